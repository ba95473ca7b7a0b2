"""The learning curve of a training run: held-out training-distribution questions, solved from the start, now and then.

These questions are neither trained on nor any benchmark's. Rollouts cannot stand in for them: with a short horizon they
start behind a verified prefix, so their success says nothing about a run with another horizon. With `select: best` they
choose the checkpoint that the run leaves behind.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel, Trainer, TrainerCallback

from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.attempts import sandbox
from score.config.schema import Config, Model, Sampling
from score.config.schema import Protocol as Limits
from score.config.training import Optim
from score.data.metric import by_rules, metric_of
from score.engine.codec import ChatCodec
from score.errors import InfrastructureError, ScoreError
from score.records import StopReason, Task, derive_seed
from score.sandbox.base import SandboxPool, Tools
from score.train import ranks
from score.train.decoding import decoding, ready_to_decode
from score.train.samplers import TrainerEngine

log = logging.getLogger("heldout")

ACCURACY, N = "heldout/accuracy", "heldout/n"
_WEIGHTS = ("*.safetensors", "pytorch_model_fsdp_*", "global_step*")
"""What a checkpoint has of whole weights or adapters, of parts by FSDP2, and by ZeRO-3."""


@dataclass(frozen=True)
class Exam:
    """Held-out questions and what it takes to attempt them; `context` in tokens, `batch` in conversations."""

    tasks: Sequence[Task]
    sampling: Sampling
    codec: ChatCodec
    limits: Limits
    pool: SandboxPool
    tools: Tools
    context: int
    batch: int

    def accuracy(self, model: PreTrainedModel) -> tuple[float, int]:
        """(share of right answers, number of tasks behind it): those that have an outcome.

        `tasks` are `ruled` ones; several processes share them out. Raises `InfrastructureError` if none has an outcome.
        """
        episodes = ranks.agreed(lambda: self._attempt(model))
        lost = ranks.gathered([e.failure for e in episodes if e.stop == StopReason.INFRASTRUCTURE_ERROR])
        ended = [episode for episode in episodes if episode.stop != StopReason.INFRASTRUCTURE_ERROR]
        decided = ranks.gathered([by_rules(episode.task, episode.answer) for episode in ended])
        if not decided:
            raise InfrastructureError(f"none of {len(self.tasks)} held-out questions has an outcome: {lost[0]}")
        return fmean(decided), len(decided)

    def _attempt(self, model: PreTrainedModel) -> list[Episode]:
        """This process's share of them, ended."""
        engine = TrainerEngine(model, self.codec, context=self.context, batch=self.batch)
        mine = ranks.shard().take(self.tasks)
        episodes = [Episode(task, self.limits, seed=derive_seed("held-out", task.id)) for task in mine]
        with engine.rounds:
            run_episodes(episodes, engine, self.sampling, self.pool, self.tools)
        return episodes


@contextlib.contextmanager
def open_exam(
    config: Config, settings: Optim, base: Model, codec: ChatCodec, tasks: Sequence[Task], tools: Tools | None
) -> Iterator[Exam | None]:
    """An exam with a sandbox of its own, for runs that need none themselves; None if the settings want none.

    Raises `ScoreError` if no question can be decided by rules.
    """
    if not settings.eval_every:
        yield None
        return
    with sandbox(config) as pool:
        yield Exam(
            ruled(tasks), config.sampling.evaluate, codec, config.protocol, pool, tools, base.context, settings.batch
        )


def ruled(tasks: Sequence[Task]) -> list[Task]:
    """The tasks that rules decide whatever the answer. Raises `ScoreError` if there is none.

    Chosen by metric and not by outcome: of a question that needs a judge, rules settle right answers only.
    """
    kept = [task for task in tasks if metric_of(task) != "judge"]
    if not kept:
        raise ScoreError(f"none of {len(tasks)} held-out questions is decided by rules; set eval_every to 0")
    return kept


def best(history: Sequence[Mapping[str, Any]]) -> tuple[int, float] | None:
    """(update, accuracy) of the best look in a trainer's log, the earliest of equals; None without any.

    No candidates are the start, update 0, for a run leaves a trained model behind, and looks in which an infrastructure
    failure took more questions than in others: their share is one of other questions.
    """
    looks = [row for row in history if ACCURACY in row and row["step"] > 0]
    most = max((row[N] for row in looks), default=0)
    whole = [(row["step"], row[ACCURACY]) for row in looks if row[N] == most]
    return max(whole, key=lambda look: look[1], default=None)


class HeldOut(TrainerCallback):
    """Logs `heldout/accuracy` and `heldout/n` at the start, every `every` updates and at the end, and has the best
    checkpoint saved and kept."""

    def __init__(self, trainer: Trainer, exam: Exam, *, every: int) -> None:
        self.trainer, self.exam, self.every = trainer, exam, every

    @classmethod
    def watch(cls, trainer: Trainer, exam: Exam | None, *, every: int) -> None:
        """Adds it to a trainer of TRL's; nothing without an exam."""
        if exam is not None:
            ready_to_decode(trainer)
            trainer.add_callback(cls(trainer, exam, every=every))

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == 0:
            state.log_history.append({"step": 0, **self._look()})

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        look = self._look()
        for name, value in look.items():
            self.trainer._metrics["train"][name].append(value)  # the row of this update takes it along
        found = best([*state.log_history, {"step": state.global_step, **look}])
        if found[0] == state.global_step:
            state.best_metric, state.best_global_step = look[ACCURACY], state.global_step  # rotation leaves it alone
            control.should_save = True

    def _look(self) -> dict[str, float]:
        with decoding(self.trainer):
            share, n = self.exam.accuracy(self.trainer.accelerator.unwrap_model(self.trainer.model))
        log.info("%.1f %% of %d held-out questions", 100 * share, n)
        return {ACCURACY: share, N: float(n)}


def choose(trainer: Trainer, settings: Optim) -> None:
    """Gives the trained model the weights that the settings want: those of the last update, or the best look's.

    Raises `ScoreError` if the best checkpoint is gone or has no weights. A collective operation.
    """
    found = best(trainer.state.log_history)
    if settings.select == "last" or found is None or found[0] == trainer.state.global_step:
        return
    folder = Path(trainer.args.output_dir, f"checkpoint-{found[0]}")
    if not any(any(folder.glob(kind)) for kind in _WEIGHTS):  # the trainer would only warn
        raise ScoreError(f"{folder}: the weights of the best update are gone; compute the run anew (fresh=[...])")
    log.info("update %d, with %.1f %% of the held-out questions, is the best", found[0], 100 * found[1])
    trainer.state.best_model_checkpoint = str(folder)
    trainer._load_best_model()
