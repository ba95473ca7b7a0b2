"""Planted errors: at the turn that they say, true up to it, wrong at the end, and made without the oracle's checker."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from micro_play import run, session

from fakes import LocalPool
from score.correct.planting import Planted, is_error, planted, play
from score.errors import ScoreError
from score.micro.backend import KnowledgeBase
from score.micro.graph import parse
from score.micro.mutations import EVERY, LUCKY, MUTATIONS, known_before, neighbour, plant, right_turns, spoil
from score.micro.tasks import BENCHMARKS, LONG, make_tasks
from score.micro.world import make_world
from score.search import tool

WORLD = make_world()
TOOLS = {"web_search": tool(KnowledgeBase(WORLD), 1)}
SEEDS = st.integers(0, 10**6)


def task_of(benchmark, seed=0):
    (task,) = make_tasks(benchmark, "train", 1, seed)
    return task


def right_steps(task):
    sandbox = session()
    return [run(sandbox, *turn) for turn in right_turns(parse(task.question, WORLD))]


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(BENCHMARKS | LONG)), st.sampled_from(EVERY), SEEDS)
def test_the_error_is_at_its_turn_and_nowhere_before(benchmark, mutation, seed):
    task = task_of(benchmark, seed)
    found = plant(task, WORLD, mutation, seed)
    assume(found is not None)
    attempt = play(found, WORLD, LocalPool(), TOOLS)
    assume(is_error(Planted(found, attempt), WORLD))
    right, k = right_steps(task), found.k
    assert found == plant(task, WORLD, mutation, seed)
    assert attempt.steps == play(found, WORLD, LocalPool(), TOOLS).steps
    assert attempt.answer is not None
    assert attempt.answer != task.answers[0]
    if mutation == "wrong_plan":
        assert (k, found.lapse) == (0, 0)
        assert attempt.plan.split() != parse(task.question, WORLD).plan.split()
        return
    assert 1 <= k <= found.lapse <= len(attempt.steps)
    assert attempt.plan == parse(task.question, WORLD).plan
    assert [s.observation for s in attempt.steps[: k - 1]] == [s.observation for s in right[: k - 1]]
    wrong = attempt.steps[k - 1]
    assert wrong.code != right[k - 1].code
    if mutation == LUCKY:
        assert k < found.lapse
        assert [s.observation for s in attempt.steps[: found.lapse - 1]] == [
            s.observation for s in right[: found.lapse - 1]
        ]
        wrong, k = attempt.steps[found.lapse - 1], found.lapse
    assert (wrong.observation, len(attempt.steps) > k) != (right[k - 1].observation, True)


@pytest.mark.parametrize("mutation", EVERY)
def test_every_group_has_the_mutations_that_fit_it(mutation):
    groups = {
        group
        for name, (group, _) in (BENCHMARKS | LONG).items()
        if any(plant(task, WORLD, mutation, 0) for task in make_tasks(name, "train", 3))
    }
    wanted = {"wrong_hop": {"facts", "deep"}, "wrong_operation": {"math", "deep"}}
    assert groups == wanted.get(mutation, {"math", "facts", "deep"})


def test_an_error_that_is_none_is_no_plant():
    task = task_of("math3")
    found = plant(task, WORLD, "wrong_operand", 0)
    right = right_turns(found.graph)
    harmless = replace(found, k=1, lapse=1, wrong={1: right[0]})
    assert not is_error(Planted(harmless, play(harmless, WORLD, LocalPool(), TOOLS)), WORLD), "it ends right"
    elsewhere = replace(found, k=1, lapse=1, wrong={1: right[0], len(right): ("Answer", "final_answer_print(0)")})
    attempt = play(elsewhere, WORLD, LocalPool(), TOOLS)
    assert attempt.answer == "0"
    assert not is_error(Planted(elsewhere, attempt), WORLD), "turn 1 prints what is asked for"


def test_a_made_up_value_follows_where_nothing_was_read():
    task = task_of("hop3")
    found = plant(task, WORLD, "crash", 1)
    attempt = play(found, WORLD, LocalPool(), TOOLS)
    assert attempt.steps[found.k - 1].error == "exception"
    assert attempt.answer is not None
    assert attempt.answer != task.answers[0]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(BENCHMARKS | LONG)), SEEDS, st.randoms(use_true_random=False))
def test_a_spoilt_step_prints_another_value(benchmark, seed, rng):
    task = task_of(benchmark, seed)
    graph = parse(task.question, WORLD)
    turns, right = right_turns(graph), right_steps(task)
    k = rng.randint(1, len(turns))
    sandbox = session()
    for turn in turns[: k - 1]:
        run(sandbox, *turn)
    assert (
        run(sandbox, *spoil(turns[k - 1], known_before(graph, k), WORLD, rng)).observation != right[k - 1].observation
    )


def test_neighbours_have_another_plan_and_another_answer():
    import random

    for name in BENCHMARKS | LONG:
        for task in make_tasks(name, "train", 5):
            graph, other = parse(task.question, WORLD), neighbour(task.question, WORLD, random.Random(0))
            assert other is None or (other.plan != graph.plan and other.answer != graph.answer)


def test_plants_are_spread_over_benchmarks_and_follow_their_seed():
    names = ["math2", "hop3", "deep12"]
    first, again, other = (planted(EVERY, names, 4, seed, WORLD, LocalPool(), TOOLS) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [p.plant.mutation for p in first] == [mutation for mutation in EVERY for _ in range(4)]
    assert {p.plant.task.dataset for p in first if p.plant.mutation == "crash"} == set(names)
    with pytest.raises(ScoreError, match="wrong_hop: only 0 different attempts"):
        planted(["wrong_hop"], ["math2"], 1, 0, WORLD, LocalPool(), TOOLS)


def test_nothing_of_the_oracles_checker_is_used():
    code = (
        "import sys, score.micro.mutations, score.correct.planting;"
        "sys.exit(any(name in sys.modules for name in ('score.micro.progress', 'score.micro.oracle')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(MUTATIONS) | {"wrong_plan"} == set(EVERY)
