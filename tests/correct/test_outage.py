"""A teacher that cannot be reached: asked again, and then the stage ends with an error that a second run makes good."""

import contextlib

import pytest

from fakes import LocalPool, ScriptedAsyncEngine, ScriptedEngine, by_turn
from score.agent.protocol import plan_text, step_text
from score.attempts import Acting
from score.config.schema import Config, Sampling
from score.correct.__main__ import mentor_with
from score.correct.teacher import Correction, Failure, Right, Teacher, Wrong
from score.errors import InfrastructureError
from score.jsonl import ResumableRows
from score.records import Step, StopReason, Task, Trajectory

CONFIG = Config.model_validate(
    {
        "experiment": "toy", "title": "toy", "seeds": [0], "benchmarks": ["gaia"],
        "models": {"m": {"engine": "endpoint", "url": "http://x"}}, "roles": {"teacher": "m"},
        "sampling": {name: {} for name in ("student", "evaluate", "plan", "step", "judge")},
        "agents": [{"name": "a", "label": "a", "model": "m"}],
    }
)  # fmt: skip
TASKS = [Task(name, f"question {name}", ("5",), "toy", {"metric": "exact"}) for name in ("one", "two", "three")]
DOWN = InfrastructureError("down")
STUDENT = by_turn(plan_text("p"), step_text("a", "x = 4\nprint(x)"), step_text("b", "final_answer_print(x)"))


def teacher(locate=lambda text: '{"step": 1}', replies=None):
    """Corrects the first step; `locate` may say otherwise."""

    def reply(request):
        text = request.messages[1].content
        return step_text("a", "x = 5\nprint(x)") if "<wrong" in text else locate(text)

    engine = ScriptedAsyncEngine(reply, concurrency=1)
    return Teacher(engine, step=Sampling(), judge=Sampling(), replies=replies), engine


def attempts():
    steps = (Step("a", "print(4)", "4"),)
    return [Trajectory(task, "p", steps, StopReason.MAX_STEPS, plan_text=plan_text("p")) for task in TASKS]


def test_a_review_that_an_outage_ended_is_asked_for_once_more():
    outage = iter([DOWN, DOWN])
    mentor, engine = teacher(lambda text: next(outage, '{"step": 1}'))
    assert [type(review) for review in mentor.review(attempts())] == [Correction] * 3
    assert len(engine.requests) == 2 + 3 + 3


def test_what_an_outage_ends_twice_is_a_failure_and_what_is_no_outage_is_not_asked_for_again():
    mentor, engine = teacher(lambda text: DOWN if "one" in text else '{"step": null}' if "two" in text else "{}")
    assert [review.reason for review in mentor.review(attempts())] == ["infrastructure", "no_wrong_step", "unreadable"]
    assert len(engine.requests) == 2 + 1 + 2


def test_an_attempt_that_a_failure_ended_is_not_the_teachers_to_answer():
    (attempt, *_) = attempts()
    ended = Trajectory(attempt.task, None, (), StopReason.INFRASTRUCTURE_ERROR, meta={"failure": "the student is down"})
    mentor, engine = teacher()
    assert mentor.review([ended]) == [Failure("infrastructure", "the student is down")]
    assert engine.requests == []


def test_verdicts_are_asked_for_once_more_too():
    judged = Task("t", "Who?", ("Ada",), "toy", {"metric": "judge"})
    tried = Trajectory(judged, "p", (), StopReason.ANSWERED, "the first programmer", plan_text=plan_text("p"))
    outage = iter([DOWN])
    mentor, _ = teacher(lambda text: next(outage, '{"equivalent": true}'))
    assert mentor.right([tried]) == [True]
    mentor, _ = teacher(lambda text: '{"equivalent": false}')
    assert [type(review) for review in mentor.review([tried], correct=False)] == [Wrong]
    assert Right() not in mentor.review([tried], correct=False)


@contextlib.contextmanager
def stage(folder, locate, student=STUDENT):
    """The students' and the teacher's part of a job whose work files are in `folder`."""
    with ResumableRows(folder / "attempts.jsonl") as rows, ResumableRows(folder / "replies.jsonl") as replies:
        acting = Acting(CONFIG, "a", 0, "digest", ScriptedEngine(student), LocalPool(), {})
        mentor, engine = teacher(locate, replies)
        yield lambda: mentor_with(acting, mentor, TASKS, rows), engine


def test_a_stage_that_an_outage_left_incomplete_ends_with_an_error_and_is_completed_by_the_next_run(tmp_path):
    with (
        stage(tmp_path, lambda text: DOWN if "question two" in text else '{"step": 1}') as (run, _),
        pytest.raises(InfrastructureError, match="the teacher did not answer on 1 of 3 tasks; the first, two: down"),
    ):
        run()
    with stage(tmp_path, lambda text: '{"step": 1}') as (run, engine):
        assert [record.outcome for record in run()] == ["solved"] * 3
        assert len(engine.requests) == 2, "where and how, of the one task that is missing"


def test_a_student_that_is_down_is_left_out_and_counted_and_stops_nobody(tmp_path):
    def student(request):
        return DOWN if "question two" in request.messages[0].content else STUDENT(request)

    with ResumableRows(tmp_path / "attempts.jsonl") as rows:
        acting = Acting(CONFIG, "a", 0, "digest", ScriptedAsyncEngine(student), LocalPool(), {})
        records = mentor_with(acting, teacher()[0], TASKS, rows)
    assert [record.outcome for record in records] == ["solved", "failed", "solved"]


def test_a_server_can_hold_the_teacher_to_the_turns_that_there_are(tmp_path):
    with stage(tmp_path, lambda text: '{"step": 1}') as (run, engine):
        run()
    asked = [request.schema["properties"] for request in engine.requests if request.schema]
    turns = [properties["step"]["anyOf"] for properties in asked if "step" in properties]
    assert turns
    assert all(none == {"type": "null"} and whole["type"] == "integer" for whole, none in turns)
    assert {tuple(whole["enum"]) for whole, _ in turns} == {(0, 1, 2)}  # the plan and two steps
    assert {request.turn for request in engine.requests if request.schema is None} == {"step"}
