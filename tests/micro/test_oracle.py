import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_play import demonstration, run, session

from score.micro.oracle import Oracle
from score.micro.tasks import BENCHMARKS, LONG, make_tasks
from score.micro.world import make_world
from score.records import Step

WORLD = make_world()
BENCHMARK = st.sampled_from(sorted(BENCHMARKS | LONG))
SEEDS = st.integers(0, 10**6)
MATH = "Ba has 5 coins. Be has Ba - 3 coins. Bi has Be * 4 coins. How many coins has Bi?"


@settings(max_examples=40, deadline=None)
@given(BENCHMARK, SEEDS, st.sampled_from([0.0, 0.4, 1.0]))
def test_a_demonstration_answers_right_and_the_oracle_finds_no_error_in_it(benchmark, seed, leap):
    (task,) = make_tasks(benchmark, "train", 1, seed)
    oracle = Oracle(WORLD, leap, seed)
    steps, answer = demonstration(oracle, task.question)
    assert answer == task.answers[0]
    assert oracle.first_error(task.question, oracle.plan(task.question), steps) is None
    assert len(steps) == task.meta["steps"] - len(oracle.skipped(task.question))
    assert 0 not in oracle.skipped(task.question)


def test_leaps_are_the_same_at_every_call_and_about_as_many_as_asked_for():
    tasks = [task for benchmark in BENCHMARKS for task in make_tasks(benchmark, "train", 60)]
    oracle = Oracle(WORLD, 0.4, 7)
    eligible = sum(task.meta["steps"] - 2 for task in tasks)
    skipped = [oracle.skipped(task.question) for task in tasks]
    assert 0.36 < sum(map(len, skipped)) / eligible < 0.44
    assert skipped == [Oracle(WORLD, 0.4, 7).skipped(task.question) for task in tasks]
    assert skipped != [Oracle(WORLD, 0.4, 8).skipped(task.question) for task in tasks]


WRONG = ("print(Undefined)", "print(((", "print('something else')", "x = 1", "final_answer_print('Nobody')")


@settings(max_examples=60, deadline=None)
@given(BENCHMARK, SEEDS)
def test_the_planted_error_is_found_and_corrections_lead_to_the_answer(benchmark, seed):
    """Mentored problem solving in miniature: a student that errs at random steps, up to five corrections."""
    (task,) = make_tasks(benchmark, "train", 1, seed)
    question, oracle, rng = task.question, Oracle(WORLD), random.Random(seed)
    plan = oracle.plan(question)
    wrong_at = set(rng.sample(range(1, task.meta["steps"] + 1), 2))
    sandbox, steps = session(), []
    for k in range(1, task.meta["steps"] + 1):
        right = oracle.rewrite(question, plan, steps, k)
        if k in wrong_at:
            planted = run(session(), "", rng.choice(WRONG))
            assert oracle.first_error(question, plan, [*steps, planted, planted]) == k
        steps.append(run(sandbox, *right))
        assert oracle.first_error(question, plan, steps) is None
    assert sandbox.answer == task.answers[0]


def test_a_wrong_or_missing_plan_is_turn_zero():
    oracle = Oracle(WORLD)
    assert oracle.first_error(MATH, "Plan: compute Be", []) == 0
    assert oracle.first_error(MATH, None, []) == 0
    assert oracle.first_error(MATH, " Plan:  compute Bi\n", []) is None
    assert oracle.rewrite(MATH, None, [], 0) == oracle.plan(MATH) == "Plan: compute Bi"


def test_other_orders_and_equivalent_code_are_right_and_repetition_is_not():
    (task,) = make_tasks("deep11", "train", 1)
    oracle = Oracle(WORLD)
    graph, plan, sandbox = oracle.graph(task.question), oracle.plan(task.question), session()
    second, first = (run(sandbox, *graph.step(index)) for index in (1, 0))
    assert oracle.first_error(task.question, plan, [second, first]) is None
    assert oracle.first_error(task.question, plan, [second, second]) == 2
    computed = run(sandbox, "", f"x = {graph.answer}\nprint(x)")
    answered = run(sandbox, "", "final_answer_print(x + 0)")
    assert oracle.first_error(task.question, plan, [computed, answered]) is None
    wrong = run(session(), "", "final_answer_print('Nobody')")
    assert oracle.first_error(task.question, plan, [first, second, computed, wrong]) == 4


def test_an_undefined_or_wrong_variable_is_written_as_a_value():
    oracle, plan, sandbox = Oracle(WORLD), "Plan: compute Bi", session()
    found = run(sandbox, "", "print(5 - 3)")  # finds Be, and with it Ba, but defines neither
    assert oracle.rewrite(MATH, plan, [found], 2) == ("Find Bi", "Bi = 2 * 4\nprint(Bi)")
    false = dataclasses.replace(found, code="Be = 7\nprint(2)")
    assert oracle.rewrite(MATH, plan, [false], 2) == ("Find Bi", "Bi = 2 * 4\nprint(Bi)")
    assigned = run(sandbox, "", "Ba = 5\nBe = Ba - 3\nprint(Be)")
    assert oracle.rewrite(MATH, plan, [assigned], 2) == ("Find Bi", "Bi = Be * 4\nprint(Bi)")
    last = run(sandbox, *oracle.rewrite(MATH, plan, [assigned], 2))
    assert oracle.rewrite(MATH, plan, [assigned, last], 3) == ("Answer", "final_answer_print(Bi)")


@pytest.mark.parametrize("code", ["max('a', 1)", "int('x')", "x", "a.b", "1 / 2", "[1][0]", "-'a'"])
def test_an_answer_that_cannot_be_followed_is_wrong(code):
    step = Step("", f"final_answer_print({code})", "8")
    assert Oracle(WORLD).first_error(MATH, "Plan: compute Bi", [step]) == 1
