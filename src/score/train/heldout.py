"""The learning curve of an RL run: held-out training-distribution questions, solved from the start, every few updates.

These questions are neither trained on nor any benchmark's. Rollouts cannot stand in for them: with a short horizon they
start behind a verified prefix, so their success says nothing about a run with another horizon.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean

from transformers import PreTrainedModel, TrainerCallback

from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.config.schema import Sampling
from score.data.metric import by_rules, metric_of
from score.errors import InfrastructureError, ScoreError
from score.records import StopReason, Task, derive_seed
from score.train import ranks
from score.train.rollouts import Rollouts
from score.train.samplers import TrainerEngine
from score.train.trainer import AgentGRPO

log = logging.getLogger("heldout")


def accuracy(
    model: PreTrainedModel, tasks: Sequence[Task], rollouts: Rollouts, sampling: Sampling, batch: int
) -> tuple[float, int]:
    """(share of right answers, number of tasks behind it): those that have an outcome.

    `tasks` are `ruled` ones; several processes share them out. Raises `InfrastructureError` if none has an outcome.
    """
    engine = TrainerEngine(model, rollouts.codec, context=rollouts.context, batch=batch)
    mine = ranks.shard().take(tasks)
    episodes = [Episode(task, rollouts.limits, seed=derive_seed("held-out", task.id)) for task in mine]
    with engine.rounds:
        run_episodes(episodes, engine, sampling, rollouts.pool, rollouts.tools)
    lost = ranks.gathered([e.failure for e in episodes if e.stop == StopReason.INFRASTRUCTURE_ERROR])
    ended = [episode for episode in episodes if episode.stop != StopReason.INFRASTRUCTURE_ERROR]
    decided = ranks.gathered([by_rules(episode.task, episode.answer) for episode in ended])
    if not decided:
        raise InfrastructureError(f"none of {len(tasks)} held-out questions has an outcome: {lost[0]}")
    return fmean(decided), len(decided)


def ruled(tasks: Sequence[Task]) -> list[Task]:
    """The tasks that rules decide whatever the answer. Raises `ScoreError` if there is none.

    Chosen by metric and not by outcome: of a question that needs a judge, rules settle right answers only.
    """
    kept = [task for task in tasks if metric_of(task) != "judge"]
    if not kept:
        raise ScoreError(f"none of {len(tasks)} held-out questions is decided by rules; set eval_every to 0")
    return kept


class HeldOut(TrainerCallback):
    """Logs `heldout/accuracy` and `heldout/n` at the start and every `every` updates."""

    def __init__(self, tasks: Sequence[Task], sampling: Sampling, *, every: int, batch: int) -> None:
        self.tasks, self.sampling, self.every = ruled(tasks), sampling, every
        self.batch = batch
        self.trainer: AgentGRPO | None = None  # set once it exists: it takes its callbacks first

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == 0:
            state.log_history.append({"step": 0, **self._look()})

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % self.every == 0:
            for name, value in self._look().items():
                self.trainer._metrics["train"][name].append(value)  # the row of this update takes it along

    def _look(self) -> dict[str, float]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        with self.trainer.decoding():
            share, n = accuracy(model, self.tasks, self.trainer.rollouts, self.sampling, self.batch)
        log.info("%.1f %% of %d held-out questions", 100 * share, n)
        return {"heldout/accuracy": share, "heldout/n": float(n)}
