"""The judge against rules: who is asked about what, and the numbers."""

import pytest

from score import agreement
from score.judge.verdicts import Ruling
from score.records import Task

TASKS = [Task(f"gaia-{i}", f"Question {i}?", (f"answer {i}", f"alias {i}"), "gaia") for i in range(30)]
ANSWERS = [(task, answer) for task in TASKS for answer in (task.answers[1].upper(), "undecided", " ")]


def test_half_of_the_sample_is_right_and_half_is_made_wrong():
    pairs = agreement.sample("gaia", TASKS, ANSWERS, size=20)
    assert [sum(p.right is side for p in pairs) for side in (True, False)] == [10, 10]
    assert len({(p.task.id, p.candidate) for p in pairs}) == 20
    for pair in pairs:
        assert (pair.candidate.lower() in pair.task.answers) is pair.right
        assert pair.candidate.strip() not in ("", "undecided"), "what rules leave open is no test of the judge"


def test_the_sample_is_seeded_and_independent_of_order():
    pairs = agreement.sample("gaia", TASKS, ANSWERS, size=20)
    assert agreement.sample("gaia", TASKS[::-1], ANSWERS[::-1], size=20) == pairs


def test_a_small_benchmark_gives_what_it_has():
    assert agreement.sample("gaia", TASKS[:1], [], size=100) == [], "a question is no wrong pair with itself"
    assert len(agreement.sample("gaia", TASKS[:3], [], size=100)) == 3
    assert agreement.sample("gaia", TASKS, ANSWERS, size=0) == []


def rule(*verdicts):
    return [Ruling({"yes": True, "no": False}.get(v), f"raw {v}", None if v in ("yes", "no") else v) for v in verdicts]


def report(rights, verdicts):
    pairs = [agreement.Pair(TASKS[i], f"c{i}", right) for i, right in enumerate(rights)]
    return agreement.report(pairs, rule(*verdicts))


def test_counts_share_interval_and_kappa():
    found = report([True] * 5 + [False] * 5, ["yes"] * 4 + ["no"] + ["no"] * 3 + ["yes", "unreadable"])
    assert found["counts"] == {
        "right": {"yes": 4, "no": 1, "unparseable": 0},
        "wrong": {"yes": 1, "no": 3, "unparseable": 1},
    }
    assert found["agreement"]["share"] == 0.7
    assert found["agreement"]["low"] == pytest.approx(0.3968, abs=1e-4)
    assert found["agreement"]["high"] == pytest.approx(0.8922, abs=1e-4)
    # chance: 0.5 * 0.5 (yes) + 0.5 * 0.4 (no) = 0.45
    assert found["kappa"] == pytest.approx((0.7 - 0.45) / 0.55)
    assert [row["reply"] for row in found["disagreements"]] == ["raw no", "raw yes", "raw unreadable"]


def test_a_judge_that_always_says_yes_is_seen_through():
    found = report([True] * 5 + [False] * 5, ["yes"] * 10)
    assert (found["agreement"]["share"], found["kappa"]) == (0.5, 0.0)


def test_where_nothing_can_be_said_nothing_is():
    assert report([], []) | {"counts": 0} == {
        "n": 0, "counts": 0, "agreement": None, "kappa": None, "disagreements": [],
    }  # fmt: skip
    assert report([True] * 3, ["yes"] * 3)["kappa"] is None
