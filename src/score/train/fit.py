"""What every training run does with its trainer: start or go on, watch held-out questions, and give back one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer

from score.config.training import Optim
from score.train.heldout import Exam, HeldOut, choose
from score.train.optim import last_checkpoint
from score.train.output import quiet, whole


def fit(
    trainer: Trainer, settings: Optim, work: Path, exam: Exam | None = None
) -> tuple[PreTrainedModel | None, Sequence[Mapping[str, Any]]]:
    """(the model that the settings select, the log), continuing from the newest checkpoint in `work`.

    Of several processes that hold parts of it the main one gets the model, the others None.
    """
    quiet(trainer)
    HeldOut.watch(trainer, exam, every=settings.eval_every)
    epoch = trainer._run_epoch

    def unless_done(*args, **kwargs) -> None:
        """From a checkpoint of the last update within an epoch, the trainer would make one update more."""
        if trainer.state.global_step < trainer.state.max_steps:
            epoch(*args, **kwargs)

    trainer._run_epoch = unless_done
    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    choose(trainer, settings)
    return whole(trainer), trainer.state.log_history
