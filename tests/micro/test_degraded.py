"""The oracle that errs: as often as it is told to, the same each time, and not at all with accuracy 1."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_play import run, session

from score import prompts
from score.agent.protocol import plan_text
from score.correct.render import render_trajectory
from score.micro.degraded import Degraded
from score.micro.oracle import Oracle
from score.micro.server import reply
from score.micro.tasks import BENCHMARKS, make_tasks
from score.micro.world import make_world

WORLD = make_world()
TASKS = [task for benchmark in BENCHMARKS for task in make_tasks(benchmark, "train", 40)]


def attempt(task):
    """Right steps, then one that finds nothing."""
    oracle, sandbox, steps = Oracle(WORLD), session(), []
    for k in range(1, task.meta["steps"]):
        steps.append(run(sandbox, *oracle.rewrite(task.question, None, steps, k)))
    return oracle.plan(task.question), [*steps, run(sandbox, "", "print('nothing')")]


@pytest.mark.parametrize("accuracy", [0.0, 0.6, 1.0])
def test_it_is_right_as_often_as_it_is_told_to_be(accuracy):
    oracle, degraded = Oracle(WORLD), Degraded(WORLD, accuracy=accuracy)
    located = rewritten = 0
    named = set()
    for task in TASKS:
        plan, steps = attempt(task)
        k = len(steps)
        assert oracle.first_error(task.question, plan, steps) == k
        given_k = degraded.first_error(task.question, plan, steps)
        named.add((k, given_k))
        located += given_k == k
        rewritten += degraded.rewrite(task.question, plan, steps, k) == oracle.rewrite(task.question, plan, steps, k)
    for right in (located, rewritten):
        assert abs(right / len(TASKS) - accuracy) < 0.06 * (0 < accuracy < 1) + 1e-9
    if accuracy == 0:
        longest = max(k for k, _ in named)
        assert {given_k for k, given_k in named if k == longest} == set(range(longest)), "any other turn"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(TASKS), st.integers(0, 5))
def test_a_wrong_rewrite_prints_something_else_than_the_right_one(task, k):
    oracle, degraded = Oracle(WORLD), Degraded(WORLD, accuracy=0.0)
    plan, steps = attempt(task)
    k = min(k, len(steps))
    right, wrong = (teacher.rewrite(task.question, plan, steps, k) for teacher in (oracle, degraded))
    assert wrong == degraded.rewrite(task.question, plan, steps, k)
    assert right != wrong
    if k:
        sandboxes = session(), session()
        for sandbox, step in itertools.product(sandboxes, steps[: k - 1]):
            run(sandbox, "", step.code)
        first, second = (
            run(sandbox, *turn).observation for sandbox, turn in zip(sandboxes, (right, wrong), strict=True)
        )
        assert first != second


@pytest.mark.parametrize("task", TASKS[::40])
def test_with_accuracy_one_every_reply_is_the_oracles_to_the_byte(task):
    oracle, degraded = Oracle(WORLD, 0.4, 3), Degraded(WORLD, 0.4, 3, 1.0)
    plan, steps = attempt(task)
    text = render_trajectory(plan_text(plan), steps)
    before = render_trajectory(plan_text(plan), steps[:-1])
    asked = [
        prompts.load("locate").render(question=task.question, reference=task.answers[0], trajectory=text),
        prompts.load("rewrite").render(
            question=task.question, trajectory=before, number=str(len(steps)), wrong="x", advice=""
        ),
        prompts.load("rewrite").render(question=task.question, trajectory="", number="0", wrong="x", advice=""),
        prompts.load("judge").render(question=task.question, reference="7", candidate="8"),
    ]
    for messages in asked:
        conversation = [message.chat() for message in messages]
        assert reply(degraded, conversation) == reply(oracle, conversation)
    assert json.loads(reply(degraded, [m.chat() for m in asked[0]]))["step"] == len(steps)


def test_it_plans_and_demonstrates_as_the_oracle():
    oracle, degraded = Oracle(WORLD, 0.4, 1), Degraded(WORLD, 0.4, 1, 0.0)
    for task in TASKS[::20]:
        assert degraded.plan(task.question) == oracle.plan(task.question)
        assert degraded.demonstrate(task.question, []) == oracle.demonstrate(task.question, [])
