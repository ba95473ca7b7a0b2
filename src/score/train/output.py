"""What a finished training run leaves behind, and what it prints while it runs."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)
from transformers.utils import logging as transformers_logging

from score.config.schema import Lora
from score.progress import Progress
from score.provenance import record_digest, write
from score.train import ranks
from score.train.optim import last_checkpoint


class ProgressCallback(TrainerCallback):
    """Progress lines with the last loss (and reward) instead of a bar that logs cannot show."""

    def __init__(self, label: str) -> None:
        self.label, self.progress, self.note = label, None, ""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if ranks.is_main():
            self.progress = Progress(self.label, state.max_steps, done=state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        shown = {k: logs[k] for k in ("loss", "reward") if logs and k in logs}
        self.note = ", ".join(f"{name} {float(value):.3f}" for name, value in shown.items()) or self.note

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.progress is not None:
            self.progress.tick(self.note)


def quiet(trainer: Trainer) -> None:
    """Progress lines take the place of the trainer's own printing."""
    trainer.remove_callback(PrinterCallback)
    transformers_logging.disable_progress_bar()


def lora(model: PreTrainedModel, settings: Lora | None) -> PreTrainedModel:
    """The model itself, or the model with fresh adapters on all its linear layers."""
    if settings is None:
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, config)


def whole(trainer: Trainer) -> PreTrainedModel | None:
    """The trained model with all its weights; adapters are in it as they were in training.

    Of processes that hold parts of it, which all take part, the main one gets it and the others None.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not ranks.sharding():
        return model
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not ranks.is_main():
        return None
    with torch.device("meta"):  # the structure alone: the weights are those that came together
        copy = AutoModelForCausalLM.from_config(model.config)
        copy.generation_config = model.generation_config
        if adapters := getattr(model, "peft_config", None):
            from peft import get_peft_model

            copy = get_peft_model(copy, adapters["default"])
    copy.load_state_dict(weights, strict=False, assign=True)
    copy.tie_weights()
    if empty := [name for name, weight in copy.named_parameters() if weight.is_meta]:
        raise RuntimeError(f"no process had {len(empty)} of the trained weights, {empty[0]} among them")
    return copy


def finish(
    out: Path,
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    history: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    work: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes `model/`, `log.csv` and `provenance.json` below `out`; the model folder appears complete or not at all.

    Of several processes the main one does. Then removes all checkpoints in `work` but the last: a job that dies before
    its results are accepted needs that one. `dtype` is the precision that the model came in, and is written in.
    """
    if not ranks.is_main():
        return
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model = model if dtype is None else model.to(dtype)
    partial = out / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    digest = record_digest(partial)
    write_log(out / "log.csv", history)
    write(out / "provenance.json", {**record, "model": digest})
    shutil.rmtree(out / "model", ignore_errors=True)
    partial.rename(out / "model")
    newest = last_checkpoint(work)
    for checkpoint in (work / "checkpoints").glob("checkpoint-*"):
        if str(checkpoint) != newest:
            shutil.rmtree(checkpoint, ignore_errors=True)


def write_log(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """The trainer's history, one row per logged step; columns are the union of what was logged."""
    rows = [row for row in history if "step" in row]
    columns = ["step", *sorted({key for row in rows for key in row} - {"step"})]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
