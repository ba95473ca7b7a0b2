"""The reward table of the paper, and what counts as the same step."""

import pytest

from score.correct.sets import KeyStep
from score.records import Step, StopReason, Task, Trajectory
from score.train import rewards
from score.train.rewards import Equality

TASK = Task("t", "q", ("5",), "toy", {"metric": "exact"})


@pytest.mark.parametrize(
    ("right", "to_fix", "to_error", "expected"),
    [
        (True, True, False, 1.0),
        (True, False, True, 1.0),
        (False, True, False, 0.5),
        (False, True, True, 0.5),
        (False, False, False, 0.1),
        (False, False, True, 0.0),
    ],
)
def test_the_four_levels(right, to_fix, to_error, expected):
    level = rewards.tier(right, Equality(to_fix, to_error), well_formed=True, avoid_requires="difference")
    assert rewards.VALUES[level] == expected


@pytest.mark.parametrize(
    ("right", "to_fix", "to_error", "expected"),
    [
        (None, None, None, "undecided"),
        (None, True, False, "undecided"),
        (True, None, None, "final"),
        (False, None, False, "undecided"),
        (False, True, None, "key"),
        (False, False, None, "undecided"),
    ],
)
def test_what_nobody_can_tell_is_no_tier_unless_it_changes_nothing(right, to_fix, to_error, expected):
    equality = Equality(to_fix, to_error)
    assert rewards.tier(right, equality, well_formed=True, avoid_requires="difference") == expected
    assert "undecided" not in rewards.VALUES


def test_without_key_step_only_the_answer_counts():
    assert rewards.tier(False, None, well_formed=True, avoid_requires="difference") == "none"
    assert rewards.tier(True, None, well_formed=True, avoid_requires="difference") == "final"


def test_avoidance_can_require_a_well_formed_step():
    garbage = {"well_formed": False}
    assert rewards.tier(False, Equality(False, False), **garbage, avoid_requires="difference") == "avoid"
    assert rewards.tier(False, Equality(False, False), **garbage, avoid_requires="well_formed") == "none"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (Step("x", "print( 1 )", "1"), Step("y", "print(1)  # one", "1"), True),
        (Step("x", "print(2 - 1)", "1"), Step("y", "print(1)", "1"), True),
        (Step("x", "print(2)", "2"), Step("y", "print(1)", "1"), False),
        (Step("x", "y()", "NameError: y", error="exception"), Step("y", "print(1)", "1"), False),
        (
            Step("x", "y()", "NameError: y", error="exception"),
            Step("z", "y ()", "NameError: y", error="exception"),
            True,
        ),
        (Step("x", "a = 1", ""), Step("y", "a = 2 - 1", ""), None),
        (Step("", "", "Error", error="parse_error", text="<code>"), Step("y", "a = 1", ""), False),
    ],
)
def test_steps_are_compared_by_execution(a, b, same):
    assert rewards.same_turn(a, b, 1) is same
    assert rewards.same_turn(b, a, 1) is same


def test_plans_are_compared_as_text():
    assert rewards.same_turn(Step("do  it", ""), Step("do it", ""), 0) is True
    assert rewards.same_turn(Step("do it", ""), Step("do that", ""), 0) is None


def trajectory(*steps: Step, answer: str | None = None) -> Trajectory:
    return Trajectory(TASK, "p", steps, StopReason.ANSWERED if answer else StopReason.MAX_STEPS, answer)


def test_the_turn_compared_is_the_one_at_the_key_position():
    key = KeyStep(TASK, 2, None, (), wrong=Step("w", "print(8)", "8"), fix=Step("f", "print(9)", "9"))
    assert rewards.compare(trajectory(Step("a", "print(9)", "9"), Step("b", "print(8)", "8")), key) == (False, True)
    assert rewards.compare(trajectory(Step("a", "print(9)", "9")), key) is None, "it ended before the key turn"


def test_a_hard_task_has_no_key_turn():
    assert rewards.compare(trajectory(Step("a", "print(9)", "9")), KeyStep(TASK, 0, None, (), None, None)) is None
