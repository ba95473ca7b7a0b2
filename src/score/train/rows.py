"""From trajectories to training rows: token ids with labels on the assistant's own tokens only.

Which trajectories are trained on: those that are right, whose turns are all well-formed, and that fit. What is left
out, here and in RL and DPO, is listed and counted by reason; nothing is cut silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from score.agent.protocol import Message, trajectory_messages
from score.errors import ScoreError
from score.records import Step, Trajectory

_MALFORMED = ("parse_error", "truncated")


class Codec(Protocol):
    """What is needed of `score.engine.codec.ChatCodec`."""

    def training_row(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]: ...


Given = TypeVar("Given")  # something of a task: a trajectory, a key step


@dataclass
class LeftOut:
    """What was given and is not trained on: (id of the task, reason)."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def sift(self, given: Sequence[Given], reasons: Iterable[str | None]) -> list[Given]:
        """Those that have no reason to be left out; the others are noted."""
        pairs = list(zip(given, reasons, strict=True))
        self.rows += [(one.task.id, reason) for one, reason in pairs if reason is not None]
        return [one for one, reason in pairs if reason is None]

    def fits(self, given: Given, length: int, limit: int) -> bool:
        """Is it within the limit? Else it is noted as too long."""
        return bool(self.sift([given], ["too_long" if length > limit else None]))

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(reason for _, reason in self.rows))


@dataclass(frozen=True)
class TrainingSet:
    """`rows` of token ids (SFT: input_ids and labels); `counts` says how many were made of how many, and why others
    were not."""

    rows: list[dict[str, list[int]]]
    counts: dict[str, int]
    left_out: LeftOut


def training_set(trajectories: Sequence[Trajectory], codec: Codec, max_length: int) -> TrainingSet:
    """Raises `ScoreError` if nothing is left to train on."""
    rows, counts, left_out = [], Counter(given=len(trajectories)), LeftOut()
    for trajectory in left_out.sift(trajectories, map(unusable, trajectories)):
        ids, labels = codec.training_row(trajectory_messages(trajectory))
        if not left_out.fits(trajectory, len(ids), max_length):
            continue
        rows.append({"input_ids": ids, "labels": labels})
        counts["rows"] += 1
        counts["tokens"] += len(ids)
        counts["trained_tokens"] += sum(label != -100 for label in labels)
    counts.update(left_out.counts)
    if not rows:
        raise ScoreError(
            f"the training set is empty: of {len(trajectories)} trajectories none can be used ({dict(counts)}); "
            "look at the stage that wrote them, or raise max_length"
        )
    return TrainingSet(rows, dict(counts), left_out)


def unusable(trajectory: Trajectory) -> str | None:
    """Why a trajectory is not trained on, or None."""
    if trajectory.meta.get("right", True) is not True:
        return "not_right"
    if trajectory.plan is None or any(step.error in _MALFORMED for step in trajectory.steps):
        return "malformed"
    if not trajectory.plan.strip() or any(map(says_nothing, trajectory.steps)):
        return "empty_turn"
    if any(step.text is not None and step.text.rsplit("</code>", 1)[-1].strip() for step in trajectory.steps):
        return "talks_on"  # text after the code, such as an observation that the model made up
    return None


def says_nothing(turn: Step) -> bool:
    """An assistant turn without a thought and without code: there is nothing in it to learn."""
    return not (turn.thought + turn.code).strip()
