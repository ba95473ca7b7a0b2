"""Attempts are kept by content: finished ones are reused, failed ones tried again, changed ones made anew."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import yaml

from fakes import LocalPool, ScriptedEngine, by_turn
from score.agent.protocol import plan_text, step_text
from score.attempts import Acting, Attempt, require_outcomes, trained_model, work_rows
from score.config import load
from score.config.load import merge
from score.errors import InfrastructureError, ScoreError
from score.records import StopReason, Task
from score.rollout import asking, mark_right

ROOT = Path(__file__).parents[2]
CONFIG = load(
    merge(yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text()))
)
TASKS = [Task(str(i), f"question {i}", ("5",), "toy", {"metric": "exact"}) for i in range(4)]
TURNS = (plan_text("p"), step_text("s", 'print(web_search("x"))'), step_text("a", "final_answer_print(5)"))


def actor(tools=None, **changes) -> Acting:
    engine = ScriptedEngine(by_turn(*TURNS))
    acting = Acting(CONFIG, "bc20", 0, "digest", engine, LocalPool(), tools or {"web_search": str.upper})
    return dataclasses.replace(acting, **changes)


def run(folder, tasks=TASKS, **changes):
    acting = actor(**changes)
    with work_rows(folder, "attempts") as rows:
        done = acting.run([Attempt(task) for task in tasks], CONFIG.sampling.evaluate, rows, "test")
    return done, sum(acting.engine.sizes)


def test_finished_attempts_are_reused_and_new_tasks_alone_are_run(tmp_path):
    first, turns = run(tmp_path, TASKS[:2])
    assert turns == 2 * len(TURNS)
    again, turns = run(tmp_path)
    assert turns == 2 * len(TURNS), "only the two new tasks"
    assert again[:2] == first
    assert [t.task.id for t in again] == [t.id for t in TASKS]


@pytest.mark.parametrize("change", [{"digest": "other"}, {"seed": 1}, {"system": "Be brief."}, {"identity": {"k": 3}}])
def test_another_model_seed_prompt_or_protocol_is_another_attempt(tmp_path, change):
    run(tmp_path)
    _, turns = run(tmp_path, **change)
    assert turns == len(TASKS) * len(TURNS)


def test_an_infrastructure_failure_is_kept_under_its_name_and_tried_again(tmp_path):
    calls = iter(range(100))

    def flaky(query):
        if next(calls) in (0, len(TASKS)):  # of one task, and of its second try
            raise InfrastructureError("search is down")
        return "found"

    done, _ = run(tmp_path, tools={"web_search": flaky})
    assert Counter(t.stop for t in done) == {StopReason.INFRASTRUCTURE_ERROR: 1, StopReason.ANSWERED: len(TASKS) - 1}
    mended, _ = run(tmp_path)
    assert {t.stop for t in mended} == {StopReason.ANSWERED}


def test_a_failure_of_all_attempts_is_no_result(tmp_path):
    def down(query):
        raise InfrastructureError("search is down")

    failed, _ = run(tmp_path, tools={"web_search": down})
    with pytest.raises(InfrastructureError, match=f"none of {len(TASKS)} attempts has an outcome.*search is down"):
        require_outcomes(failed)
    require_outcomes(failed[:1])  # one task may fail for good by itself
    require_outcomes([])
    require_outcomes(run(tmp_path)[0])


def test_a_passing_failure_is_mended_by_the_second_try(tmp_path):
    calls = iter(range(100))

    def flaky(query):
        if next(calls) < 2:
            raise InfrastructureError("search is down")
        return "found"

    done, _ = run(tmp_path, tools={"web_search": flaky})
    assert {t.stop for t in done} == {StopReason.ANSWERED}


def test_another_gold_answer_is_another_attempt(tmp_path):
    run(tmp_path)
    corrected = [dataclasses.replace(task, answers=("6",)) for task in TASKS]
    done, turns = run(tmp_path, corrected)
    assert turns == len(TASKS) * len(TURNS)
    assert done[0].task.answers == ("6",)


def test_an_attempt_without_outcome_is_neither_right_nor_wrong(tmp_path):
    def down(query):
        raise InfrastructureError("search is down")

    failed, _ = run(tmp_path / "a", TASKS[:1], tools={"web_search": down})
    answered, _ = run(tmp_path / "b", TASKS[:1])
    marked = mark_right([*failed, *answered], asking(actor()))
    assert [trajectory.meta["right"] for trajectory in marked] == [None, True]


def test_provenance_travels_with_each_trajectory(tmp_path):
    (trajectory, *_), _ = run(tmp_path)
    assert trajectory.meta["agent"] == "bc20"
    assert trajectory.meta["model"] == "digest"
    assert trajectory.meta["run_seed"] == 0


def test_a_model_that_is_not_trained_yet_is_named(tmp_path):
    with pytest.raises(ScoreError, match="no trained model of 'bc20' with seed 0"):
        trained_model(tmp_path, "bc20", 0)
