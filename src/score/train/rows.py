"""From trajectories to training rows: token ids with labels on the assistant's own tokens only.

Which trajectories are trained on: those that are right, whose turns are all well-formed, and that fit. What is left
out is counted by reason; nothing is cut silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from score.agent.protocol import Message, trajectory_messages
from score.errors import ScoreError
from score.records import Trajectory

_MALFORMED = ("parse_error", "truncated")


class Codec(Protocol):
    """What is needed of `score.engine.codec.ChatCodec`."""

    def training_row(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]: ...


@dataclass(frozen=True)
class TrainingSet:
    """`rows` hold input_ids and labels; `counts` says how many trajectories became rows and why others did not."""

    rows: list[dict[str, list[int]]]
    counts: dict[str, int]


def training_set(trajectories: Sequence[Trajectory], codec: Codec, max_length: int) -> TrainingSet:
    """Raises `ScoreError` if nothing is left to train on."""
    rows, counts = [], Counter(given=len(trajectories))
    for trajectory in trajectories:
        reason = unusable(trajectory)
        if reason is None:
            ids, labels = codec.training_row(trajectory_messages(trajectory))
            reason = "too_long" if len(ids) > max_length else None
        if reason is not None:
            counts[reason] += 1
            continue
        rows.append({"input_ids": ids, "labels": labels})
        counts["rows"] += 1
        counts["tokens"] += len(ids)
        counts["trained_tokens"] += sum(label != -100 for label in labels)
    if not rows:
        raise ScoreError(
            f"the training set is empty: of {len(trajectories)} trajectories none can be used ({dict(counts)}); "
            "look at the stage that wrote them, or raise max_length"
        )
    return TrainingSet(rows, dict(counts))


def unusable(trajectory: Trajectory) -> str | None:
    """Why a trajectory is not trained on, or None."""
    if trajectory.meta.get("right", True) is not True:
        return "not_right"
    if trajectory.plan is None or any(step.error in _MALFORMED for step in trajectory.steps):
        return "malformed"
    if any(step.text is not None and step.text.rsplit("</code>", 1)[-1].strip() for step in trajectory.steps):
        return "talks_on"  # text after the code, such as an observation that the model made up
    return None
