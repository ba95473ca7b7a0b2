"""What a trajectory must be to be trained on."""

import dataclasses

import pytest

from score.agent.protocol import step_text
from score.records import Step, StopReason, Task, Trajectory
from score.train.rows import unusable

STEP = Step("t", "print(1)", "1", text=step_text("t", "print(1)"))
GOOD = Trajectory(Task("t", "q", ("1",), "toy"), "p", (STEP,), StopReason.ANSWERED, "1", meta={"right": True})


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (STEP, None),
        (dataclasses.replace(STEP, text=STEP.text + "\n"), None),
        (dataclasses.replace(STEP, text=STEP.text + "\nObservation: 1"), "talks_on"),
        (dataclasses.replace(STEP, error="exception"), None),
        (dataclasses.replace(STEP, error="truncated"), "malformed"),
        (Step("", "", None, text="<thought></thought><code></code>"), "empty_turn"),
        (Step(" ", "\n", None), "empty_turn"),
        (Step("", "print(1)", "1"), None),
        (dataclasses.replace(STEP, error="parse_error"), "malformed"),
    ],
)
def test_a_turn_that_talks_on_or_is_cut_is_not_imitated(step, reason):
    assert unusable(dataclasses.replace(GOOD, steps=(step,))) == reason


def test_a_published_trajectory_without_a_verdict_counts_as_right():
    assert unusable(dataclasses.replace(GOOD, meta={})) is None
    assert unusable(dataclasses.replace(GOOD, meta={"right": None})) == "not_right"
