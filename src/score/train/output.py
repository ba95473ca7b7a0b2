"""What a finished training run leaves behind, and what it prints while it runs."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from transformers.utils import logging as transformers_logging

from score.config.training import Lora, Optim
from score.engine.adapter import adapter_in
from score.jsonl import write_text
from score.progress import Progress
from score.provenance import record_digest, write
from score.train import ranks
from score.train.card import chosen, model_card
from score.train.heldout import best
from score.train.optim import last_checkpoint
from score.train.rows import LeftOut
from score.train.start import StartModel

if TYPE_CHECKING:
    from peft import PeftModel


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
    start: StartModel,
    history: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    work: Path,
    settings: Optim,
    left_out: LeftOut,
) -> None:
    """Writes `model/` with its card, `log.csv`, `left_out.csv` and `provenance.json` below `out`; the model folder
    appears complete or not at all.

    Of several processes the main one does. Then removes all checkpoints in `work` but the last, which a job that dies
    before its results are accepted needs, and the best by held-out questions. Weights are written in the precision that
    the start came in.
    """
    if not ranks.is_main():
        return
    partial = out / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    alone = settings.lora is not None and not settings.lora.merge
    if alone:
        save_adapter(model, start, partial)
    else:
        complete = model if settings.lora is None else model.merge_and_unload()
        complete.to(start.dtype).save_pretrained(partial)
    start.codec.tokenizer.save_pretrained(partial)
    digest = record_digest(partial, below=start.digest if alone else None)
    step, accuracy = chosen(history, settings.select)
    record = {**record, "model": digest, "selected": {"update": step, "held_out": accuracy}}
    card = model_card(record, history, select=settings.select, merged=not alone, digest=digest)
    (partial / "README.md").write_text(card, encoding="utf-8")  # in place of peft's
    write_log(out / "log.csv", history)
    write_left_out(out / "left_out.csv", left_out)
    write(out / "provenance.json", record)
    shutil.rmtree(out / "model", ignore_errors=True)
    partial.rename(out / "model")
    found = best(history)
    kept = {last_checkpoint(work), str(work / "checkpoints" / f"checkpoint-{found[0]}") if found else None}
    for checkpoint in (work / "checkpoints").glob("checkpoint-*"):
        if str(checkpoint) not in kept:
            shutil.rmtree(checkpoint, ignore_errors=True)


def save_adapter(model: PeftModel, start: StartModel, folder: Path) -> None:
    """Writes the trained adapter alone, with the name of the complete model that it changes.

    If the start is an adapter itself, both become one, of the sum of their ranks: a server puts one on a model.
    """
    trained = model.peft_config["default"]
    trained.base_model_name_or_path, trained.revision = start.path, start.revision
    if adapter_in(start.path) is None:
        model.save_pretrained(folder)
        return
    model.load_adapter(start.path, "start")
    model.add_weighted_adapter(["start", "default"], [1.0, 1.0], "both", combination_type="cat")
    model.save_pretrained(folder, selected_adapters=["both"])
    for file in (folder / "both").iterdir():
        file.rename(folder / file.name)
    (folder / "both").rmdir()


def write_left_out(path: Path, left_out: LeftOut) -> None:
    """The ids of the tasks that were given and not trained on, and why."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("id", "reason"), *left_out.rows])
    write_text(path, table.getvalue())


def write_log(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """The trainer's history, one row per logged step; columns are the union of what was logged."""
    rows = [row for row in history if "step" in row]
    columns = ["step", *sorted({key for row in rows for key in row} - {"step"})]
    table = io.StringIO()
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())
