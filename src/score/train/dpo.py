"""DPO on key-step pairs (compared in the paper's appendix C): after the same verified prefix, the teacher's fix is
preferred to the student's error.

    python -m score.train.dpo --config ... --agent dpo --seed 0 --data correct/bc20-s0/rl.jsonl --out train/dpo-s0 ...

The pairs are those that SCoRe-RL starts from, so the two differ in the algorithm and not in the data. A pair is one
turn against another, without observations; its ids come from the same segments as in rollouts, SFT and RL.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from score import cli, fingerprint
from score.agent.protocol import messages, plan_text, step_message
from score.attempts import open_tools
from score.config import lineage, read
from score.config.training import Dpo
from score.correct.sets import KeyStep
from score.data.splits import held_out_of
from score.errors import ScoreError
from score.jsonl import read_rows
from score.provenance import input_key, provenance
from score.records import Step
from score.train.rows import LeftOut, TrainingSet, says_nothing

if TYPE_CHECKING:
    from score.engine.codec import ChatCodec
    from score.train.heldout import Exam

log = logging.getLogger("dpo")


def pair(key_step: KeyStep, codec: ChatCodec) -> dict[str, list[int]]:
    """Ids of prefix, preferred and rejected turn, end tokens included."""
    before = messages(
        key_step.task.question, key_step.plan, key_step.prefix, final_observation=key_step.plan is not None
    )
    chosen, rejected = (_turn_ids(turn, key_step.k, codec) for turn in (key_step.fix, key_step.wrong))
    return {"prompt_ids": codec.prompt(before), "chosen_ids": chosen, "rejected_ids": rejected}


def _turn_ids(turn: Step, k: int, codec: ChatCodec) -> list[int]:
    if k == 0 and turn.text is None:
        turn = Step(turn.thought, "", text=plan_text(turn.thought))
    return [*codec.turn_ids(step_message(turn)), codec.eos_id]


def pairs(key_steps: Sequence[KeyStep], codec: ChatCodec, max_length: int) -> TrainingSet:
    """The pairs that fit, and what was left out and why. Raises `ScoreError` if none is left."""
    left_out = LeftOut()
    made = [(k, pair(k, codec)) for k in left_out.sift(key_steps, map(_no_pair, key_steps))]
    rows = [ids for k, ids in made if left_out.fits(k, _length(ids), max_length)]
    counts = {"given": len(key_steps), "used": len(rows), **left_out.counts}
    if not rows:
        raise ScoreError(f"DPO has no pairs: {counts}; the student made no corrected error, or raise max_length")
    return TrainingSet(rows, counts, left_out)


def _no_pair(key_step: KeyStep) -> str | None:
    if key_step.fix is None or key_step.wrong is None:
        return "hard_without_pair"
    return "empty_turn" if says_nothing(key_step.fix) else None


def _length(ids: dict[str, list[int]]) -> int:
    return len(ids["prompt_ids"]) + max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))


def train(
    model, reference, codec: ChatCodec, data: list[dict], settings: Dpo, work: Path, seed: int, label: str,
    exam: Exam | None = None,
):  # fmt: skip
    """Trains `model` in place against a frozen `reference` (None with adapters); returns (model, log history)."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from score.train.fit import fit
    from score.train.monitor import Guard
    from score.train.optim import optimizers, trainer_arguments
    from score.train.order import PerEpoch
    from score.train.output import ProgressCallback, lora

    class PairTrainer(DPOTrainer):
        """Takes ids as they are; its own preparation would render and tokenise the text once more."""

        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

        def _get_train_sampler(self, dataset=None):
            return PerEpoch(super()._get_train_sampler(dataset), self)

    torch.manual_seed(seed)
    arguments = DPOConfig(
        num_train_epochs=settings.epochs,
        beta=settings.beta,
        max_length=None,  # pairs are measured before; TRL would cut at 1024 silently
        **trainer_arguments(settings, work, seed),
    )
    tokenizer = codec.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = lora(model.train(), settings.lora)
    trainer = PairTrainer(
        model=model, ref_model=reference, args=arguments, train_dataset=Dataset.from_list(data),
        processing_class=tokenizer, callbacks=[ProgressCallback(label), Guard()],
        optimizers=optimizers(model, settings),
    )  # fmt: skip
    return fit(trainer, settings, work, exam)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    cli.held_out_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="rl.jsonl of the correction stage")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    config = read(args.config)
    agent = lineage.agent(config, args.agent)
    settings = config.training.dpo[agent.settings]
    from score.train import ranks
    from score.train.heldout import open_exam
    from score.train.output import finish
    from score.train.start import load_start

    ranks.start()
    looks, base = lineage.looks(config, agent.name), config.models[lineage.base_model(config, agent.name)]
    held_out = held_out_of(args.tasks, args.splits, wanted=looks)
    with open_tools(config, "train") if looks else contextlib.nullcontext() as tools:
        start = load_start(config, agent, args.seed, args.root)
        reference = None if settings.lora else load_start(config, agent, args.seed, args.root).model
        data = pairs([KeyStep.from_json(row) for row in read_rows(args.data)], start.codec, settings.max_length)
        log.info("%s: %s", agent.name, data.counts)
        work = args.work / input_key([args.data, *cli.held_out_files(args)], start.digest, ranks.sharding())
        with open_exam(config, settings, base, start.codec, held_out, tools) as exam:
            model, history = train(
                start.model, reference, start.codec, data.rows, settings, work, args.seed, f"dpo {agent.name}", exam
            )
    settings_used = fingerprint.settings(config, "dpo", agent.name)
    facts = {"title": config.title, "seed": args.seed, **ranks.facts()}
    record = provenance(settings_used, start=start.digest, data=data.counts, **facts)
    finish(args.out, model, start, history, record, work, settings, data.left_out)


if __name__ == "__main__":
    cli.run(main)
