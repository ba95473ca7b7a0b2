"""The variance of the policy gradient over the length of the verified prefix (theorem 3.3), measured.

    python -m score.train.variance --config ... --agent score_sft --seed 0 --data correct/bc20-s0/other_half.jsonl \
        --out theory/score_sft-s0.csv ...

From corrected trajectories that end right, prefixes of growing length are replayed; from each, several rollouts are
sampled at temperature 1. One rollout's gradient is g = R * sum_t grad log pi(a_t | s_t), summed over the sampled
tokens, R = 1 for a right final answer: the theorem's estimator with the outcome as its only reward and gamma = 1. With
GRPO's baseline it is (R - mean R of the group). The variance of either is the trace of its covariance over rollouts.
Nothing is trained.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

import torch
from transformers import PreTrainedModel

from score import cli, fingerprint
from score.agent.drivers import run_episodes
from score.agent.episode import Episode, forced_prefix
from score.agent.protocol import plan_message
from score.agent.sessions import branched
from score.attempts import open_tools, sandbox, trained_model
from score.config import Config, lineage, read
from score.config.schema import Sampling, Theory
from score.data.metric import by_rules
from score.engine.codec import ChatCodec
from score.engine.transformers import TransformersEngine, load_model
from score.errors import InfrastructureError, ScoreError
from score.jsonl import read_rows, write_text
from score.progress import Progress
from score.provenance import provenance, write
from score.records import StopReason, Trajectory, derive_seed
from score.sandbox.base import Tools
from score.train.rollouts import token_row

log = logging.getLogger("variance")


@dataclass(frozen=True)
class Spread:
    """One task at one prefix length. `remaining`: steps left of the right trajectory, H - k + 1 in the theorem.

    `success`: share of the rollouts that end right. `norm2`: squared norm of the mean gradient.
    """

    agent: str
    seed: int
    task: str
    prefix: int
    remaining: int
    rollouts: int
    success: float
    variance: float
    variance_with_baseline: float
    norm2: float


def spread_of(gradients_RD: torch.Tensor, returns_R: torch.Tensor) -> tuple[float, float, float]:
    """(variance, variance with the mean return as baseline, squared norm of the mean) of per-rollout gradients.

    `gradients_RD`: sums of grad log pi [rollouts, parameters]; each is weighted by its return. The first variance is
    unbiased; the second is a little small, since its baseline comes from the same rollouts.
    """
    weighted = gradients_RD * returns_R[:, None]
    centred = gradients_RD * (returns_R - returns_R.mean())[:, None]
    return (
        float(weighted.var(dim=0, unbiased=True).sum()),
        float(centred.var(dim=0, unbiased=True).sum()),
        float(weighted.mean(dim=0).square().sum()),
    )


def score_function(model: PreTrainedModel, codec: ChatCodec, episode: Episode, given: int) -> torch.Tensor:
    """grad of the summed log-probability of the tokens that the episode sampled, flat [parameters]."""
    row = token_row(episode, codec, given)
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]], device=model.device)
    sampled = torch.tensor(row.env_mask, dtype=torch.bool, device=model.device)
    start = len(row.prompt_ids)
    log_probs = model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)
    chosen = log_probs.gather(1, ids[0, start:, None])[:, 0]
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(chosen[sampled].sum(), parameters)])


def chosen_tasks(trajectories: Sequence[Trajectory], count: int) -> list[Trajectory]:
    """The longest ones, so that every prefix length has the same tasks; ties in an order that the task decides."""
    order = sorted(trajectories, key=lambda t: (-len(t.steps), derive_seed("variance", t.task.id)))
    return order[:count]


def measure(
    config: Config, agent: str, seed: int, model: PreTrainedModel, codec: ChatCodec, data: Sequence[Trajectory], *,
    theory: Theory, tools: Tools,
) -> list[Spread]:  # fmt: skip
    """One `Spread` per task of `data` and prefix length; every trajectory is longer than the longest prefix.

    Raises `InfrastructureError` if an episode has no outcome.
    """
    entry = config.models[lineage.base_model(config, agent)]
    rollouts = theory.rollouts
    engine = TransformersEngine(model, codec, context=entry.context, batch=max(rollouts, entry.batch))
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=theory.turn_tokens)
    lengths = [(trajectory, k) for trajectory in data for k in theory.prefixes]
    progress = Progress(f"gradient variance {agent}", len(lengths))
    found = []
    with sandbox(config) as pool:
        for trajectory, k in lengths:
            forced = forced_prefix(plan_message(trajectory), trajectory.steps[:k]) if k else ()
            episodes = [
                Episode(
                    trajectory.task, config.protocol, seed=derive_seed(seed, trajectory.task.id, k, i), forced=forced
                )
                for i in range(rollouts)
            ]
            with branched(episodes, pool, tools) as sessions:
                run_episodes(episodes, engine, sampling, pool, tools, sessions=sessions)
            returns = torch.tensor([_return(episode) for episode in episodes])
            gradients = torch.stack([score_function(model, codec, episode, len(forced)) for episode in episodes])
            variance, with_baseline, norm2 = spread_of(gradients, returns)
            found.append(
                Spread(
                    agent, seed, trajectory.task.id, k, len(trajectory.steps) - k, rollouts,
                    float(returns.mean()), variance, with_baseline, norm2,
                )
            )  # fmt: skip
            progress.tick()
    return found


def _return(episode: Episode) -> float:
    if episode.stop == StopReason.INFRASTRUCTURE_ERROR:
        raise InfrastructureError(f"a rollout has no outcome: {episode.failure}")
    decided = by_rules(episode.task, episode.answer)
    if decided is None:
        raise ScoreError(f"task {episode.task.id} needs a judge; the variance is measured where rules decide")
    return decided


def to_csv(spreads: Sequence[Spread]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(Spread)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, spreads))
    return out.getvalue()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="trajectories that end right")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    config = read(args.config)
    theory = config.theory
    data = [t for row in read_rows(args.data) if len((t := Trajectory.from_json(row)).steps) > max(theory.prefixes)]
    if not data:
        raise ScoreError(
            f"{args.data}: no trajectory has more than {max(theory.prefixes)} steps; lower theory.prefixes"
        )
    entry = config.models[lineage.base_model(config, args.agent)]
    measured = chosen_tasks(data, theory.tasks)
    with open_tools(config, "train") as tools:
        model, codec = load_model(str(trained_model(args.root, args.agent, args.seed)), entry.dtype)
        if torch.cuda.is_available():
            model = model.to("cuda")
        spreads = measure(config, args.agent, args.seed, model, codec, measured, theory=theory, tools=tools)
    write_text(args.out, to_csv(spreads))
    record = provenance(fingerprint.settings(config, "variance", args.agent), seed=args.seed, tasks=len(measured))
    write(args.out.with_suffix(".provenance.json"), record)
    log.info("%d tasks, mean success %.2f", len(measured), fmean(s.success for s in spreads))


if __name__ == "__main__":
    cli.run(main)
