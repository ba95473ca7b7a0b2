"""Supervised fine-tuning on trajectories (paper section 3.1, L_BC): thoughts and code are trained on, observations
are not.

    python -m score.train.sft --config ... --agent bc20 --seed 0 --data rollout/teacher/cold_start.jsonl \
        --out train/bc20-s0 ...

TRL's SFTTrainer on rows that are tokenised here, segment by segment, exactly as a rollout tokenises them; it keeps
`labels` as they are. A killed job continues from its last checkpoint. The output folder holds
`model/` (complete weights, or the adapter alone with `lora.merge: false`), `log.csv`, `left_out.csv` (which
trajectories were not trained on, and why) and `provenance.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from score import cli, fingerprint
from score.attempts import open_tools
from score.config import lineage, read
from score.config.training import Sft
from score.data.splits import held_out_of
from score.jsonl import read_rows
from score.provenance import input_key, provenance
from score.records import Trajectory
from score.train.rows import TrainingSet, training_set

if TYPE_CHECKING:
    from score.train.heldout import Exam

log = logging.getLogger("sft")


LOGITS = 2**26
"""Values of a forward pass's logits that are held in memory at most, in float32 and with their gradient: about 1 GB."""


def logits_fit(settings: Sft, vocabulary: int) -> bool:
    """May a forward pass hold all its logits?"""
    return settings.micro_batch * settings.max_length * vocabulary <= LOGITS


def train(model, codec, data: TrainingSet, settings: Sft, work: Path, seed: int, label: str, exam: Exam | None = None):
    """Trains `model` in place; returns (model, log history).

    Args:
        work: keeps checkpoints.
        exam: for the learning curve, if the settings want one.
    """
    import torch
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer
    from trl import SFTConfig, SFTTrainer

    from score.train.fit import fit
    from score.train.monitor import Guard
    from score.train.optim import optimizers, trainer_arguments
    from score.train.order import PerEpoch
    from score.train.output import ProgressCallback, lora

    plain = logits_fit(settings, model.config.get_text_config().vocab_size)

    class RowTrainer(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return PerEpoch(super()._get_train_sampler(dataset), self)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """TRL's computes the logits twice rather than hold them; the same loss, from the model, does not."""
            if not plain or self.aux_loss_enabled:  # of experts, which TRL scales otherwise than the model
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            whole = inputs | {"use_cache": False}
            loss, outputs = Trainer.compute_loss(self, model, whole, True, num_items_in_batch)
            self._note(outputs.logits, inputs["labels"])
            return (loss, outputs) if return_outputs else loss

        @torch.no_grad()
        def _note(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
            """Logs what TRL's loss logs: entropy and accuracy, means over the labelled tokens of all processes."""
            following = labels[:, 1:]
            labelled = following != -100
            logps, wanted = logits[:, :-1][labelled].float().log_softmax(dim=-1), following[labelled]
            sums = torch.stack([-(logps.exp() * logps).sum(), (logps.argmax(dim=-1) == wanted).sum().float()])
            sums = torch.cat([sums, sums.new_tensor([len(wanted)])])
            entropy, right, count = self.accelerator.gather(sums[None]).sum(dim=0).tolist()
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["entropy"].append(entropy / max(count, 1))
            self._metrics[mode]["mean_token_accuracy"].append(right / max(count, 1))

    torch.manual_seed(seed)
    arguments = SFTConfig(
        num_train_epochs=settings.epochs,
        max_length=None,  # rows are measured before; TRL would cut at 1024 silently
        packing=False,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        **trainer_arguments(settings, work, seed),
    )
    tokenizer = codec.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = lora(model.train(), settings.lora)
    trainer = RowTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(data.rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100),
        processing_class=tokenizer,
        callbacks=[ProgressCallback(label), Guard()],
        optimizers=optimizers(model, settings),
    )
    return fit(trainer, settings, work, exam)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    cli.held_out_arguments(parser)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="trajectories")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    config = read(args.config)
    agent = lineage.agent(config, args.agent)
    settings = config.training.sft[agent.settings]
    trajectories = [Trajectory.from_json(row) for path in args.data for row in read_rows(path)]
    from score.train import ranks
    from score.train.heldout import open_exam
    from score.train.output import finish
    from score.train.start import load_start

    ranks.start()
    looks, base = lineage.looks(config, agent.name), config.models[lineage.base_model(config, agent.name)]
    held_out = held_out_of(args.tasks, args.splits, wanted=looks)
    with open_tools(config, "train") if looks else contextlib.nullcontext() as tools:
        start = load_start(config, agent, args.seed, args.root)
        data = training_set(trajectories, start.codec, settings.max_length)
        log.info("%s: %s", agent.name, data.counts)
        work = args.work / input_key([*args.data, *cli.held_out_files(args)], start.digest, ranks.sharding())
        with open_exam(config, settings, base, start.codec, held_out, tools) as exam:
            model, history = train(start.model, start.codec, data, settings, work, args.seed, f"sft {agent.name}", exam)
    settings_used = fingerprint.settings(config, "sft", agent.name)
    facts = {"title": config.title, "seed": args.seed, **ranks.facts()}
    record = provenance(settings_used, start=start.digest, data=data.counts, **facts)
    finish(args.out, model, start, history, record, work, settings, data.left_out)


if __name__ == "__main__":
    cli.run(main)
