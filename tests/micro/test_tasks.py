import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_play import session

from score.data import benchmarks
from score.errors import ScoreError
from score.micro.backend import KnowledgeBase
from score.micro.graph import NotOfThisWorld, parse
from score.micro.tasks import BENCHMARKS, LONG, SIZES, WORLDS, all_tasks, main, make_tasks, split_of
from score.micro.world import NAMES, RELATIONS, make_world
from score.records import Task

WORLD = make_world()
SEEDS = st.integers(0, 10**6)


def test_the_world_has_312_facts_that_fit_their_relations_and_depends_on_the_seed_alone():
    assert len(WORLD.facts) == 312
    for (relation, name), value in WORLD.facts.items():
        subject, kind = RELATIONS[relation]
        assert WORLD.kinds[name] == subject
        assert value != name
        assert WORLD.kinds.get(value, "number") == kind
    assert make_world.__wrapped__(3).facts == make_world(3).facts != make_world(4).facts


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("{n}'s rival", True), ("rival of {n}", True), ("the rival of {n}?", True), (" {n}'s RIVAL ", True),
        ("{n}", False), ("{n}'s rival's mentor", False), ("rival of Nobody", False), ("", False),
    ],
)  # fmt: skip
def test_search_finds_exactly_the_fact_asked_for(query, found):
    name = WORLD.names("person")[0]
    results = KnowledgeBase(WORLD).search(query.format(n=name), 10)
    assert [r.snippet for r in results] == [f"{name}'s rival is {WORLD.facts['rival', name]}."] * found
    assert [r.title for r in results] == [name] * found


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(BENCHMARKS | LONG)), st.sampled_from(sorted(SIZES)), SEEDS)
def test_running_the_gold_steps_prints_the_gold_values_and_the_answer(benchmark, split, seed):
    for task in make_tasks(benchmark, split, 3, seed):
        graph = parse(task.question, WORLD)
        assert task.answers == (graph.answer,)
        assert task.meta == {"group": (BENCHMARKS | LONG)[benchmark][0], "steps": len(graph.nodes) + 1}
        assert len(graph.nodes) + 1 in (range(8, 13) if benchmark in LONG else range(3, 7))
        sandbox = session()
        defined = {node.variable for node in graph.nodes if node.variable}
        for index, node in enumerate(graph.nodes):
            assert all(need < index for need in node.needs)
            assert sandbox.run(graph.step(index, defined)[1]).text == node.stdout
            assert session().run(graph.step(index)[1]).text == node.stdout, "operands as values need no earlier step"
        assert sandbox.run(graph.final(defined)[1]).answer == session().run(graph.final()[1]).answer == graph.answer


def test_a_benchmark_asks_as_many_steps_as_its_name_says():
    steps = {"math2": 2, "math3": 3, "math4": 4, "math3x": 3, "hop2": 2, "hop3": 3, "hop4": 4, "hop5": 5}
    steps |= {"deep11": 3, "deep21": 4, "deep12": 4, "deep22": 5}
    steps |= {"math7": 7, "math8": 8, "math9": 9, "math11": 11, "hop7": 7, "hop8": 8, "hop9": 9, "hop11": 11}
    steps |= {"deep33": 7, "deep34": 8, "deep44": 9, "deep55": 11}
    assert set(steps) == set(BENCHMARKS | LONG)
    for benchmark, nodes in steps.items():
        assert {task.meta["steps"] for task in make_tasks(benchmark, "train", 20)} == {nodes + 1}


@pytest.mark.parametrize("world", WORLDS)
def test_the_registry_has_every_benchmark_of_a_world_in_the_same_order(world):
    registered = [(b.name, b.group) for b in benchmarks.BENCHMARKS.values() if b.world == world]
    assert registered == [(name, group) for name, (group, _) in WORLDS[world].items()]


def test_a_long_benchmark_has_questions_enough_for_any_pool_and_all_are_sound():
    for benchmark in LONG:
        for split in SIZES:
            graphs = [parse(task.question, WORLD) for task in make_tasks(benchmark, split, 80)]
            assert all(len({node.stdout for node in graph.nodes}) == len(graph.nodes) for graph in graphs)
            assert all(0 < int(node.value) < 200 for graph in graphs for node in graph.nodes if node.value not in NAMES)


def test_a_long_question_has_a_plan_without_numbers():
    plans = {b: {parse(t.question, WORLD).plan for t in make_tasks(b, "train", 10)} for b in LONG}
    for benchmark, found in plans.items():
        if benchmark.startswith("hop"):
            assert found == {"Plan: searches"}
        elif benchmark.startswith("deep"):
            assert found <= {"Plan: plus", "Plan: minus", "Plan: larger"}
    (counted,) = {parse(t.question, WORLD).plan for t in make_tasks("hop5", "train", 3)}
    assert counted == "Plan: 5 searches"


def test_the_questions_of_the_short_world_stay_what_they_were():
    """Every number that was published of it rests on these very questions."""
    total = hashlib.sha256()
    for split in ("train", "development", "test"):
        for task in all_tasks(split, 40):
            total.update(json.dumps(task.to_json(), sort_keys=True).encode())
    assert total.hexdigest() == "cf544b8e5d6bfccbce8738b1e44649982884a9035dd7a5ea601de1275531987c"


def test_a_distractor_is_not_part_of_the_graph():
    question = "Ba has 2 coins. Be has Ba + 9 coins. Bi has Ba * 3 coins. How many coins has Bi?"
    assert [node.variable for node in parse(question, WORLD).nodes] == ["Ba", "Bi"]


@settings(max_examples=20, deadline=None)
@given(SEEDS, SEEDS)
def test_splits_are_disjoint_whatever_the_seeds(one, other):
    seeds = dict(zip(SIZES, (one, other, one), strict=True))
    questions = {split: {task.question for task in all_tasks(split, 5, seeds[split])} for split in SIZES}
    assert all(split_of(question) == split for split, asked in questions.items() for question in asked)
    assert sum(map(len, questions.values())) == len(set().union(*questions.values())) == 3 * 5 * len(BENCHMARKS)


def test_tasks_depend_on_the_seed_alone_and_ids_are_unique():
    assert list(all_tasks("train", 60)) == (tasks := list(all_tasks("train", 60)))
    assert len({task.id for task in tasks}) == 720
    assert {task.question for task in tasks} != {task.question for task in all_tasks("train", 60, seed=1)}


@pytest.mark.parametrize(
    "question",
    [
        "", "What is 2 + 2?", "What is Zorro's rival?", f"What is {NAMES[0]}'s shoe size?", "How many coins has Ba?",
        "Ba has 2 coins. How many coins has Be?", "Ba has Be - 2 coins. Be has 3 coins. How many coins has Ba?",
        "Ba has Ba - 2 coins. How many coins has Ba?", f"What is {WORLD.names('town')[0]}'s age?",
        f"What is {WORLD.names('person')[0]}'s rival plus {WORLD.names('person')[1]}'s age?",
    ],
)  # fmt: skip
def test_a_question_of_another_world_is_refused(question):
    with pytest.raises(NotOfThisWorld, match="question"):
        parse(question, WORLD)


def test_the_command_writes_tasks_and_names_an_impossible_size(tmp_path):
    out = tmp_path / "new" / "dev.jsonl"
    main(["--split", "development", "--benchmark", "hop2", "--per-benchmark", "7", "--out", str(out)])
    tasks = [Task.from_json(json.loads(line)) for line in out.read_text().splitlines()]
    assert tasks == make_tasks("hop2", "development", 7)
    main(["--split", "train", "--world", "micro_long", "--per-benchmark", "2", "--out", str(out)])
    assert [json.loads(line)["dataset"] for line in out.read_text().splitlines()] == [b for b in LONG for _ in "12"]
    with pytest.raises(ScoreError, match="hop2 has only"):
        main(["--split", "test", "--benchmark", "hop2", "--per-benchmark", "9999", "--out", str(out)])
