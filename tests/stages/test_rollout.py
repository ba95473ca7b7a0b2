"""Demonstrations and their rejection sampling: who says that an attempt is right, and what becomes of the others."""

import dataclasses

import pytest

from fakes import LocalPool, ScriptedAsyncEngine, ScriptedEngine
from score.agent.protocol import plan_text, step_text
from score.attempts import Acting, Attempt
from score.config.schema import Config
from score.engine.base import Completion
from score.errors import InfrastructureError, ScoreError
from score.jsonl import ResumableRows
from score.records import StopReason, Task
from score.rollout import asking, mark_right, summary
from score.train.rows import training_set

SAMPLING = {name: {"temperature": 0.0} for name in ("student", "evaluate", "step", "judge")}
CONFIG = Config.model_validate(
    {
        "experiment": "toy", "title": "toy", "seeds": [0], "benchmarks": ["gaia"],
        "models": {"m": {"engine": "endpoint", "url": "http://x"}}, "roles": {"teacher": "m"},
        "sampling": SAMPLING | {"plan": {"temperature": 0.5}}, "agents": [{"name": "a", "label": "a", "model": "m"}],
    }
)  # fmt: skip


class Codec:
    def training_row(self, messages):
        return [1] * len(messages), [1] * len(messages)


def ask(name: str, gold: str, metric: str) -> Task:
    return Task(name, f"question {name}", (gold,), "toy", {"metric": metric})


def plays(judge):
    """A teacher that answers "x" after one look; `judge` replies where it is asked about that answer."""

    def reply(request):
        text = request.messages[-1].content
        if "<candidate>" in text or (len(request.messages) > 2 and "JSON" in text):
            return judge(text)
        turns = [
            plan_text("look, then answer"),
            step_text("look", "y = 'x'"),
            step_text("say", "final_answer_print(y)"),
        ]
        return turns[sum(m.role == "assistant" for m in request.messages)]

    return reply


def marked(tasks, judge=lambda text: AssertionError("not asked"), engine=None, replies=None, rows=None):
    engine = engine or ScriptedAsyncEngine(plays(judge))
    agent = Acting(CONFIG, "a", 0, "digest", engine, LocalPool(), {})
    done = agent.run([Attempt(task) for task in tasks], CONFIG.sampling.step, rows, "test", plan=CONFIG.sampling.plan)
    return mark_right(done, asking(agent, replies)), engine


@pytest.fixture
def rows(tmp_path):
    with ResumableRows(tmp_path / "rows.jsonl") as rows:
        yield rows


def test_the_plan_comes_first_with_a_sampling_of_its_own(rows):
    (trajectory,), engine = marked([ask("t", "x", "exact")], rows=rows)
    assert (trajectory.plan, trajectory.answer) == ("look, then answer", "x")
    assert [step.code for step in trajectory.steps] == ["y = 'x'", "final_answer_print(y)"]
    assert [request.sampling.temperature for request in engine.requests] == [0.5, 0.0, 0.0]


def test_rules_decide_first_and_the_model_only_what_they_leave_open(rows):
    tasks = [ask("a", "x", "exact"), ask("b", "z", "exact"), ask("c", "X.", "judge"), ask("d", "the letter", "judge")]
    done, engine = marked(tasks, lambda text: '{"equivalent": true}', rows=rows)
    assert [t.meta["right"] for t in done] == [True, False, True, True]
    asked = [r for r in engine.requests if "<candidate>" in r.messages[-1].content]
    assert ["question d" in r.messages[-1].content for r in asked] == [True]
    assert asked[0].schema["required"] == ["equivalent"]


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ("yes, the answer is right", "unreadable"),
        ('{"equivalent": "true"}', "unreadable"),
        (Completion('{"equivalent": tr', "length"), "truncated"),
        (Completion("", "context"), "context"),
    ],
)
def test_what_nobody_can_tell_is_counted_by_its_reason_and_not_trained_on(rows, verdict, reason):
    tasks = [ask("a", "x", "exact"), ask("b", "z", "exact"), ask("c", "the letter", "judge")]
    done, _ = marked(tasks, lambda text: verdict, rows=rows)
    assert [t.meta["right"] for t in done] == [True, False, None]
    counts = summary(done)
    assert (counts["right"], counts["undecided"], counts["undecided_because"]) == (1, 1, {reason: 1})
    rows_ = training_set(done, Codec(), 100)
    assert (rows_.counts["rows"], rows_.counts["not_right"]) == (1, 2)
    with pytest.raises(ScoreError, match="training set is empty"):
        training_set(done[1:], Codec(), 100)


def test_a_model_that_cannot_be_reached_ends_the_stage_and_the_next_run_asks_for_what_is_missing(rows, tmp_path):
    tasks = [ask("c", "it", "judge"), ask("d", "that", "judge")]
    right = '{"equivalent": true}'
    with ResumableRows(tmp_path / "replies.jsonl") as replies:
        with pytest.raises(InfrastructureError, match="whether 1 of 2 attempts are right; the first, d: down"):
            marked(tasks, lambda t: InfrastructureError("down") if "question d" in t else right, None, replies, rows)
        done, engine = marked(tasks, lambda text: right, replies=replies, rows=rows)
    assert [t.meta["right"] for t in done] == [True, True]
    assert len(engine.requests) == 1


def test_an_attempt_that_a_failure_ended_is_neither_right_nor_wrong(rows):
    (trajectory,), _ = marked(
        [ask("a", "x", "exact")], engine=ScriptedAsyncEngine(lambda r: InfrastructureError("down")), rows=rows
    )
    assert (trajectory.stop, trajectory.meta["right"]) == (StopReason.INFRASTRUCTURE_ERROR, None)
    assert summary([trajectory])["infrastructure_errors"] == 1


def test_an_in_process_model_does_not_judge(rows):
    reply = plays(lambda text: AssertionError("not asked"))
    (trajectory,), _ = marked([ask("c", "the letter", "judge")], engine=ScriptedEngine(reply), rows=rows)
    assert (trajectory.meta["right"], trajectory.meta["undecided"]) == (None, "no_endpoint")


def test_verdicts_survive_a_kill(rows, tmp_path):
    with ResumableRows(tmp_path / "replies.jsonl") as replies:
        (first,), _ = marked([ask("c", "it", "judge")], lambda t: '{"equivalent": true}', replies=replies, rows=rows)
        (again,), engine = marked([ask("c", "it", "judge")], replies=replies, rows=rows)
    assert again == first == dataclasses.replace(first, meta=first.meta | {"right": True})
    assert engine.requests == []
