"""SCoRe-RL (paper section 3.3): GRPO from the verified prefix with the key-step reward; both are switches of the agent.

    python -m score.train.grpo --config ... --agent score_rl --seed 0 --data correct/bc20-s0/rl.jsonl \
        --out train/score_rl-s0 ...

A judge, search backend or sandbox that fails stops the run with its reason; the last checkpoint stays in the work
folder and the next call continues from it. A failure never becomes a reward.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from score import cli, fingerprint
from score.agent.drivers import run_episodes
from score.agent.episode import Episode, forced_prefix
from score.attempts import open_tools, sandbox
from score.config import Config, lineage, read
from score.config.schema import Agent
from score.config.training import Grpo
from score.correct.sets import KeyStep
from score.data.metric import by_rules
from score.data.splits import held_out_of
from score.engine import digest_of, keep_gpus, open_engine
from score.engine.base import Completion, Request
from score.errors import InfrastructureError, ScoreError
from score.jsonl import ResumableRows, read_rows
from score.judge.verdicts import Case, Judge, Ruling, identity, tally
from score.provenance import input_key, provenance
from score.records import StopReason, Task, Trajectory
from score.sandbox.base import SandboxPool, Tools
from score.train import ranks, rewards
from score.train.launch import Layout
from score.train.rows import LeftOut, says_nothing
from score.usage import Usage, gathered

log = logging.getLogger("grpo")

WINDOW, LEAST = 64, 16
"""Of how many cases, the last that a reward judge was asked about, more than half need a readable verdict, and how many
there have to be before a judge is condemned: a batch may leave it a single one."""


class RewardModel:
    """Rewards of a batch of rollouts: rules and execution first, the reward judge for what they leave open.

    A rollout for which the judge's replies hold no verdict is `undecided` and has no reward (None). A judge that is
    down, or of whose verdicts on the last `WINDOW` distinct cases of this run more than half are unparseable, raises
    `InfrastructureError`.
    """

    def __init__(self, agent: Agent, settings: Grpo, judge: Judge | None) -> None:
        self.agent, self.settings, self.judge = agent, settings, judge
        self._rulings: dict[str, Ruling] = {}  # of this run, in the order of their cases

    def __call__(
        self, trajectories: Sequence[Trajectory], key_steps: Sequence[KeyStep]
    ) -> list[tuple[float | None, str]]:
        pairs = list(zip(trajectories, key_steps, strict=True))
        right = self._settle([_answer_case(t) for t in trajectories])
        wanted = [self.agent.key_step_reward and r is False for r in right]
        compared = [rewards.compare(t, k) if w else None for (t, k), w in zip(pairs, wanted, strict=True)]
        to_fix = self._settle(
            [c is not None and _turn_case(*p, p[1].fix, c[0]) for p, c in zip(pairs, compared, strict=True)]
        )
        to_error = self._settle(
            [c is not None and _turn_case(*p, p[1].wrong, c[1]) for p, c in zip(pairs, compared, strict=True)]
        )
        tiers = []
        for i, (trajectory, key_step) in enumerate(pairs):
            equality = None if compared[i] is None else rewards.Equality(to_fix[i], to_error[i])
            turn = rewards.key_turn(trajectory, key_step.k)
            sound = turn is not None and rewards.well_formed(turn, key_step.k)
            tiers.append(
                rewards.tier(right[i], equality, well_formed=sound, avoid_requires=self.settings.avoid_requires)
            )
        return [(rewards.VALUES.get(tier), tier) for tier in tiers]

    def _settle(self, questions: Sequence[bool | Case]) -> list[bool | None]:
        """Decided ones as they are; open ones from the judge (None: unparseable), or False if there is no judge (rules
        alone decide then)."""
        cases = [q for q in questions if isinstance(q, Case)]
        if self.judge is None or not cases:
            return [q is True for q in questions]
        rulings = self.judge.rulings(cases)
        self._rulings |= {self.judge.key(case): ruling for case, ruling in zip(cases, rulings, strict=True)}
        self._check()
        verdicts = iter(rulings)
        return [next(verdicts).equivalent if isinstance(q, Case) else q for q in questions]

    @property
    def rulings(self) -> list[Ruling]:
        """The judge's, one per distinct case of this run, in the order in which the cases came up."""
        return list(self._rulings.values())

    def _check(self) -> None:
        """Raises `InfrastructureError` if the judge's last verdicts are mostly none."""
        last = self.rulings[-WINDOW:]
        lost = [ruling for ruling in last if ruling.equivalent is None]
        if len(last) >= LEAST and len(lost) > len(last) / 2:
            raise InfrastructureError(
                f"the reward judge gave no readable verdict on {len(lost)} of the last {len(last)} cases; "
                f"the last: {lost[-1].failure}, {lost[-1].reply[:200]!r}"
            )


def _answer_case(trajectory: Trajectory) -> bool | Case:
    if trajectory.answer is None:
        return False
    decided = by_rules(trajectory.task, trajectory.answer)
    return Case.of(trajectory.task, trajectory.answer) if decided is None else decided == 1.0


def _turn_case(trajectory: Trajectory, key_step: KeyStep, reference, decided: bool | None) -> bool | Case:
    """What execution decided about the key turn, or the case for the judge."""
    if decided is not None or reference is None:
        return bool(decided)
    turn = rewards.key_turn(trajectory, key_step.k)
    if turn is None:
        return False
    return Case(trajectory.task.question, f"{reference.thought}\n{reference.code}", f"{turn.thought}\n{turn.code}")


@contextlib.contextmanager
def reward_model(
    config: Config, agent: Agent, settings: Grpo, work: Path, usage: Usage
) -> Iterator[RewardModel | None]:
    """Opens the reward judge, if the config names one; its rulings are kept in the work folder.

    Of several processes the main one asks it; the others get no reward model.
    """
    name = config.roles.reward_judge
    if not ranks.is_main():
        yield None
        return
    if name is None:
        yield RewardModel(agent, settings, None)
        return
    model = config.models[name]
    with ResumableRows(work / "rulings.jsonl") as rows, open_engine(model, work / "judge.log") as engine:
        # What it could not say is asked for anew: kept, one such reply would meet every restart.
        counted = usage.counted(engine, "reward_judge")
        judge = Judge(counted, config.sampling.judge, identity(name, model), rows, anew=True)
        reward = RewardModel(agent, settings, judge)
        yield reward
        log.info("%s: verdicts of the reward judge in this run: %s", agent.name, tally(reward.rulings))


def usable(
    key_steps: Sequence[KeyStep], codec, max_prompt: int, left_out: LeftOut
) -> tuple[list[KeyStep], dict[str, int]]:
    """Prompts that fit, and how many did not; nothing is filtered silently (hazard 23): the others join `left_out`."""
    from score.agent.protocol import messages

    def length(k: KeyStep) -> int:
        return len(codec.prompt(messages(k.task.question, k.plan, k.prefix, final_observation=k.plan is not None)))

    sound = left_out.sift(key_steps, ["empty_turn" if k.fix and says_nothing(k.fix) else None for k in key_steps])
    kept = [k for k in sound if left_out.fits(k, length(k), max_prompt)]
    counts = {"given": len(key_steps), "used": len(kept), **left_out.counts}
    if not kept:
        raise ScoreError(f"RL has no prompts: {counts}; the student made no corrected error, or raise max_prompt")
    return kept, counts


def replaying(
    key_steps: Sequence[KeyStep], config: Config, pool: SandboxPool, tools: Tools, left_out: LeftOut
) -> list[KeyStep]:
    """Those whose verified prefix, executed again, prints what was recorded: search engines and libraries change.

    The others join `left_out`. Several processes share the work, and learn the same. Raises `ScoreError` if none does.
    """
    mine = ranks.shard().take(range(len(key_steps)))
    starts = [
        Episode(k.task, config.protocol, seed=0, forced=forced_prefix(k.plan, k.prefix))
        for k in (key_steps[i] for i in mine)
    ]
    run_episodes(starts, _Nothing(), config.sampling.student, pool, tools)
    failed = [(i, s.failure) for i, s in zip(mine, starts, strict=True) if s.stop == StopReason.INFRASTRUCTURE_ERROR]
    lost = dict(ranks.gathered(failed))
    kept = left_out.sift(key_steps, ["no_replay" if i in lost else None for i in range(len(key_steps))])
    first = lost[min(lost)] if lost else None
    if lost and ranks.is_main():
        log.warning("%d of %d prefixes do not replay and are left out; the first: %s", len(lost), len(key_steps), first)
    if not kept:
        raise ScoreError(f"RL has no prompts: none of {len(lost)} prefixes replays ({first}); run the correction again")
    return kept


class _Nothing:
    """An engine that ends every episode as soon as its given turns are played."""

    batch = 256

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion("", "context") for _ in requests]


def dataset_rows(key_steps: Sequence[KeyStep], prompts_per_update: int) -> list[dict]:
    """The trainer's dataset: a question for its sampler and the index of the key step.

    Prompts are repeated until they fill an update: TRL drops an incomplete one, and with it the whole training.
    """
    rows = [{"prompt": [{"role": "user", "content": k.task.question}], "index": i} for i, k in enumerate(key_steps)]
    return rows * -(-prompts_per_update // len(rows))


def train(
    model, codec, key_steps: Sequence[KeyStep], config: Config, agent: Agent, settings: Grpo, work: Path, seed: int,
    held_out: Sequence[Task] = (), *, tools: Tools, usage: Usage, left_out: LeftOut,
):  # fmt: skip
    """Trains `model`; returns (model, log history). `held_out` gives the learning curve, if the settings want one.

    Prompts whose prefix does not replay join `left_out`.
    """
    import torch
    from datasets import Dataset

    from score.train import samplers
    from score.train.fit import fit
    from score.train.heldout import Exam, ruled
    from score.train.monitor import Guard
    from score.train.optim import optimizers
    from score.train.output import ProgressCallback, lora
    from score.train.rollouts import Rollouts
    from score.train.trainer import AgentGRPO

    torch.manual_seed(seed)
    guard = Guard(max_gap=settings.max_gap, max_flat=settings.max_flat)
    base, arguments = lineage.base_model(config, agent.name), _arguments(settings, work, seed)
    model = lora(model, settings.lora)
    with sandbox(config) as pool, reward_model(config, agent, settings, work, usage) as reward:
        key_steps = replaying(key_steps, config, pool, tools, left_out)
        rows = dataset_rows(key_steps, settings.batch // settings.generations)
        rollouts = Rollouts(
            codec=codec, key_steps=key_steps, reward=reward, pool=pool, tools=tools, limits=config.protocol,
            short_horizon=agent.short_horizon, sampling=samplers.sampling(settings),
            context=min(settings.max_prompt + settings.max_completion, config.models[base].context),
        )  # fmt: skip
        trainer = AgentGRPO(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=codec.tokenizer,
            callbacks=[ProgressCallback(f"grpo {agent.name}"), guard], optimizers=optimizers(model, settings),
            rollouts=rollouts, negative_weight=settings.negative_weight, mask_truncated=settings.mask_truncated,
            counted=lambda engine: usage.counted(engine, "student"),
        )  # fmt: skip
        exam = None
        if settings.eval_every:
            exam = Exam(
                ruled(held_out), config.sampling.evaluate, codec, config.protocol, pool, tools, rollouts.context,
                settings.batch,
            )  # fmt: skip
        return fit(trainer, settings, work, exam)


def _arguments(settings: Grpo, work: Path, seed: int):
    """The settings in TRL's words: a `GRPOConfig`. Raises `ScoreError` if the sampler needs a vLLM that is not here."""
    from trl import GRPOConfig

    from score.train import samplers
    from score.train.optim import trainer_arguments

    return GRPOConfig(
        max_steps=settings.updates,
        num_generations=settings.generations,
        max_completion_length=settings.max_completion,
        temperature=settings.temperature,
        beta=settings.beta,
        epsilon=settings.epsilon,
        loss_type=settings.loss_type,
        scale_rewards=settings.scale_rewards if settings.scale_rewards != "none" else False,
        **samplers.arguments(settings),
        **trainer_arguments(settings, work, seed),
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    cli.held_out_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="rl.jsonl of the correction stage")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    config = read(args.config)
    agent = lineage.agent(config, args.agent)
    settings = config.training.grpo[agent.settings]
    judges = {"reward_judge": config.models[config.roles.reward_judge]} if config.roles.reward_judge else {}
    ours = {"gpus": Layout.of(config, agent.name).gpus}
    trained = config.models[lineage.base_model(config, agent.name)].model_copy(update=ours)
    keep_gpus(trained, **judges)
    ranks.start()
    from score.train.output import finish
    from score.train.start import load_start

    held_out = held_out_of(args.tasks, args.splits, wanted=lineage.looks(config, agent.name))
    with open_tools(config, "train") as tools:
        start = load_start(config, agent, args.seed, args.root)
        rows = [KeyStep.from_json(row) for row in read_rows(args.data)]
        left_out = LeftOut()
        key_steps, counts = usable(rows, start.codec, settings.max_prompt, left_out)
        log.info("%s: %s", agent.name, counts)
        work = args.work / input_key([args.data, *cli.held_out_files(args)], start.digest, ranks.sharding())
        with Usage(work, "grpo", ranks.shard()) as usage:
            model, history = train(
                start.model, start.codec, key_steps, config, agent, settings, work, args.seed, held_out, tools=tools,
                usage=usage, left_out=left_out,
            )  # fmt: skip
    counted = ranks.gathered([usage.facts()])
    facts = {"stage": "grpo", "agent": agent.name, "title": config.title, "seed": args.seed, **ranks.facts()}
    facts |= {**counted[0], "usage": gathered(counted)}
    facts["reward_judge"] = (
        {"name": config.roles.reward_judge, "model": digest_of(judges["reward_judge"])} if judges else None
    )
    counts |= {"used": len(rows) - len(left_out.rows), **left_out.counts}
    record = provenance(fingerprint.settings(config, "grpo", agent.name), start=start.digest, data=counts, **facts)
    finish(args.out, model, start, history, record, work, settings, left_out)


if __name__ == "__main__":
    cli.run(main)
