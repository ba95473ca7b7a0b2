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
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel, Trainer, TrainerCallback

from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.attempts import open_tools, sandbox
from score.config.schema import Config, Model, Sampling
from score.config.schema import Protocol as Limits
from score.config.training import Dpo, Optim, Sft
from score.data.metric import by_rules, metric_of
from score.engine.codec import ChatCodec
from score.errors import InfrastructureError, ScoreError
from score.records import StopReason, Task, derive_seed
from score.sandbox.base import SandboxPool, Tools
from score.train import ranks
from score.train.samplers import TrainerEngine, decoding, ready_to_decode

log = logging.getLogger("heldout")

ACCURACY, N = "heldout/accuracy", "heldout/n"


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
        engine = TrainerEngine(model, self.codec, context=self.context, batch=self.batch)
        mine = ranks.shard().take(self.tasks)
        episodes = [Episode(task, self.limits, seed=derive_seed("held-out", task.id)) for task in mine]
        with engine.rounds:
            run_episodes(episodes, engine, self.sampling, self.pool, self.tools)
        lost = ranks.gathered([e.failure for e in episodes if e.stop == StopReason.INFRASTRUCTURE_ERROR])
        ended = [episode for episode in episodes if episode.stop != StopReason.INFRASTRUCTURE_ERROR]
        decided = ranks.gathered([by_rules(episode.task, episode.answer) for episode in ended])
        if not decided:
            raise InfrastructureError(f"none of {len(self.tasks)} held-out questions has an outcome: {lost[0]}")
        return fmean(decided), len(decided)


@contextlib.contextmanager
def open_exam(
    config: Config, settings: Sft | Dpo, base: Model, codec: ChatCodec, tasks: Sequence[Task]
) -> Iterator[Exam | None]:
    """An exam with tools and a sandbox of its own, for runs that need none themselves; None if the settings want none.

    Raises `ScoreError` if no question can be decided by rules.
    """
    if not (settings.eval_every and tasks):
        yield None
        return
    context = min(settings.max_length, base.context)
    with open_tools(config, "train") as tools, sandbox(config) as pool:
        yield Exam(ruled(tasks), config.sampling.evaluate, codec, config.protocol, pool, tools, context, settings.batch)


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

    The start, update 0, is no candidate: a run leaves a trained model behind.
    """
    looks = [(row["step"], row[ACCURACY]) for row in history if ACCURACY in row and row["step"] > 0]
    return max(looks, key=lambda look: look[1], default=None)


class HeldOut(TrainerCallback):
    """Logs `heldout/accuracy` and `heldout/n` at the start, every `every` updates and at the end, and has the best
    checkpoint saved and kept."""

    def __init__(self, exam: Exam, *, every: int) -> None:
        self.exam, self.every = exam, every
        self.trainer: Trainer | None = None

    @classmethod
    def watch(cls, trainer: Trainer, exam: Exam | None, *, every: int) -> None:
        """Adds it to a trainer of TRL's, whose callbacks it takes before it exists; nothing without an exam."""
        if exam is None:
            return
        curve = cls(exam, every=every)
        curve.trainer = trainer
        ready_to_decode(trainer)
        trainer.add_callback(curve)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == 0:
            state.log_history.append({"step": 0, **self._look()})

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        look = self._look()
        for name, value in look.items():
            self.trainer._metrics["train"][name].append(value)  # the row of this update takes it along
        earlier = best(state.log_history)
        if earlier is None or look[ACCURACY] > earlier[1]:
            state.best_metric, state.best_global_step = look[ACCURACY], state.global_step  # rotation leaves it alone
            control.should_save = True

    def _look(self) -> dict[str, float]:
        with decoding(self.trainer):
            share, n = self.exam.accuracy(self.trainer.accelerator.unwrap_model(self.trainer.model))
        log.info("%.1f %% of %d held-out questions", 100 * share, n)
        return {ACCURACY: share, N: float(n)}


def choose(trainer: Trainer, settings: Optim) -> None:
    """Gives the trained model the weights that the settings want: those of the last update, or the best look's.

    Raises `ScoreError` if the best checkpoint is gone. A collective operation.
    """
    found = best(trainer.state.log_history)
    if settings.select == "last" or found is None or found[0] == trainer.state.global_step:
        return
    if trainer.state.best_model_checkpoint is None:
        raise ScoreError(
            f"the best checkpoint, that of update {found[0]}, is not in {trainer.args.output_dir} any more; "
            "compute the run anew (fresh=[...]), or select: last"
        )
    log.info("update %d, with %.1f %% of the held-out questions, is the best", found[0], 100 * found[1])
    trainer._load_best_model()
