"""Benchmarks: the registry, and published files into complete task files."""

import dataclasses
import importlib
import json
import pkgutil

import pytest

from score.data import benchmarks
from score.data.benchmark import main, read_benchmark, subset
from score.data.benchmarks.base import Benchmark
from score.data.fetch import published_file
from score.errors import ScoreError
from score.jsonl import read_rows
from score.records import Task

REAL = [name for name in benchmarks.NAMES if benchmarks.get(name).world == "published"]
TINY = Benchmark("tiny", "Tiny", "facts", 3, "f1", files=("a/t-1.jsonl", "a/t-2.jsonl"), levels=(1, 2))


def test_the_registry():
    columns = "aime24 aime25 math500 olymmath hotpotqa 2wiki musique bamboogle gaia hle webwalker xbench"
    assert " ".join(REAL) == columns
    assert len(benchmarks.NAMES) == 36
    for name in benchmarks.NAMES:
        benchmark = benchmarks.get(name)
        assert benchmark.name == name
        assert (benchmark.world != "published") == (benchmark.metric == "exact") == (not benchmark.files)
    groups = [(benchmarks.get(name).world, benchmarks.get(name).group) for name in benchmarks.NAMES]
    assert all(groups.count(group) == 4 for group in set(groups))


def test_unknown_names_get_a_hint():
    with pytest.raises(ScoreError, match="unknown benchmark 'aime42'; did you mean 'aime2"):
        benchmarks.get("aime42")
    with pytest.raises(ScoreError, match="there are aime24, aime25"):
        benchmarks.get("zzz")


def test_every_real_benchmark_states_its_source():
    modules = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in ("base", "micro", "hard")]
    assert len(modules) == len(REAL)
    for module in modules:
        header = importlib.import_module(f"score.data.benchmarks.{module}").__doc__
        assert all(f"\n{word} " in header for word in ("Source", "Split", "Metric", "Licence", "Paper")), module
    for name in REAL:
        for path in benchmarks.get(name).files:
            assert published_file(path).sha256


@pytest.fixture
def files(tmp_path):
    rows = {
        "t-1.jsonl": [{"id": 1, "question": "Q1", "true_answer": 7, "solution": "it is 7", "year": "2024"}],
        "t-2.jsonl": [
            {"id": "x", "question": "Q2", "true_answer": ["a", "b"]},
            {"id": "y", "question": "Q3", "true_answer": "c"},
        ],
    }
    for name, lines in rows.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [tmp_path / "t-2.jsonl", tmp_path / "t-1.jsonl"]


def test_tasks_of_several_files(files):
    assert read_benchmark(TINY, files) == [
        Task("tiny-1", "Q1", ("7",), "tiny", {"year": "2024", "level": 1}),
        Task("tiny-x", "Q2", ("a", "b"), "tiny", {"level": 2}),
        Task("tiny-y", "Q3", ("c",), "tiny", {"level": 2}),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1, "question": "Q", "true_answer": "a"}', r"t-2\.jsonl:3: id '1' was already used in .*t-1\.jsonl:1"),
        ('{"id": 9, "question": " ", "true_answer": "a"}', r't-2\.jsonl:3: the row has no "question"'),
        ('{"id": 9, "true_answer": "a"}', r't-2\.jsonl:3: the row has no "question"'),
        ('{"id": 9, "question": "Q", "true_answer": []}', r't-2\.jsonl:3: the row has no "true_answer"'),
        ('{"id": 9, "question": "Q", "true_answer": ["a", ""]}', r't-2\.jsonl:3: the row has no "true_answer"'),
        ('{"id": 9, "question": "Q"}', r't-2\.jsonl:3: the row has no "true_answer"'),
        ('{"question": "Q", "true_answer": "a"}', r't-2\.jsonl:3: the row has no "id"'),
        ('{"id": 9, "question": "Q", "true_answer": "a"}', "4 questions, Tiny has 3"),
    ],
)
def test_defects_are_errors_with_a_place(files, line, message):
    with open(files[0], "a") as file:
        file.write(line + "\n")
    with pytest.raises(ScoreError, match=message):
        read_benchmark(TINY, files)


def test_a_list_of_answers_where_there_is_one_is_named(files):
    judged = dataclasses.replace(TINY, metric="judge")
    with pytest.raises(ScoreError, match=r't-2\.jsonl:1: "true_answer" is a list; questions of tiny have one answer'):
        read_benchmark(judged, files)


def test_the_files_must_be_the_benchmarks_own(files):
    for given in (files[:1], [*files, files[0]]):
        with pytest.raises(ScoreError, match=r"'tiny' is made of t-1\.jsonl, t-2\.jsonl; given: "):
            read_benchmark(TINY, given)
    with pytest.raises(ScoreError, match="'math2' has no published files"):
        read_benchmark(benchmarks.get("math2"), files)


def test_subsets_are_seeded_nested_and_blind_to_file_order():
    tasks = [Task(f"t-{i}", f"Q{i}", ("a",), "tiny") for i in range(50)]
    ids = lambda tasks: [task.id for task in tasks]  # noqa: E731
    ten = subset(tasks, 10, seed=0)
    assert len(ten) == 10
    assert sorted(ids(ten)) == sorted(ids(subset(tasks[::-1], 10, seed=0)))
    assert set(ids(subset(tasks, 5, seed=0))) < set(ids(ten)) < set(ids(subset(tasks, 20, seed=0)))
    assert set(ids(ten)) != set(ids(subset(tasks, 10, seed=1)))
    assert subset(tasks, None, seed=0) == subset(tasks, 99, seed=0) == tasks
    assert ids(ten) == [i for i in ids(tasks) if i in ids(ten)]


@pytest.mark.parametrize("name", REAL)
def test_published_benchmarks(official, tmp_path, name):
    benchmark = benchmarks.get(name)
    out = tmp_path / "tasks.jsonl"
    main(["--name", name, "--raw", *(str(official / path) for path in benchmark.files), "--out", str(out)])
    tasks = [Task.from_json(row) for row in read_rows(out)]
    assert len(tasks) == len({task.id for task in tasks}) == benchmark.n
    assert not any("solution" in task.meta or "rationale" in task.meta for task in tasks)
    if name == "gaia":
        assert [sum(task.meta["level"] == level for task in tasks) for level in (1, 2, 3)] == [39, 52, 12]
