"""Training questions: normalisation, contamination, split."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from score.data import benchmarks
from score.data.benchmark import read_benchmark
from score.data.contamination import Match, find_contamination
from score.data.questions import normalise, question_id, read_questions
from score.data.seeds import distinct, read_seeds
from score.data.seeds import main as seeds_main
from score.data.splits import main, split
from score.errors import ScoreError
from score.jsonl import read_rows, write_rows
from score.plan.questions import CONTAMINATED, PUBLISHED
from score.records import Task
from score.report.contamination import sentence


def task(question, id=None, dataset="train"):
    return Task(id or question_id(question), question, ("a",), dataset)


def test_normalise():
    assert normalise("Wer ist  Ｇröße №1?\n") == "weristgrößeno1"
    assert normalise("2024年“秋季”？") == "2024年秋季"
    assert normalise("?!") == ""
    assert question_id("A b?") == question_id("a B") != question_id("a c")


def test_contamination():
    train = [task("What is it?"), task("Who?"), task("New one"), task("...")]
    tests = {"x": [task("what IS it", "x1"), task("Other", "x2"), task("---", "x3")], "y": [task("What is it", "y1")]}
    found = find_contamination(train, tests)
    assert found.dropped == {train[0].id: ["x1", "y1"]}
    assert found.found("x", same=True) == ["x1"]
    assert found.found(same=True) == ["x1", "y1"]
    assert found.found(same=False) == []


FALL_GUYS = "During which dates and with what costumes did the Winter Pass appear in Fall Guys?"


@pytest.mark.parametrize(
    ("question", "overlap"),
    [
        ("Please answer: " + FALL_GUYS, 1.0),
        (FALL_GUYS[:-1] + ", as highlighted in the notes of the developers?", 1.0),
        (FALL_GUYS.replace("Fall Guys", "another game"), 0.855),
        (FALL_GUYS.replace("costumes", "dresses"), None),
        ("When was Fall Guys released, and with what costumes did the Winter Pass appear?", None),
    ],
)
def test_a_training_question_that_holds_most_of_a_test_question_is_dropped(question, overlap):
    tests = {"webwalker": [task(FALL_GUYS, "w1"), task("Another question altogether, of a certain length?", "w2")]}
    train = [task(question, "t1")]
    found = find_contamination(train, tests, near=0.8)
    assert found.matches == (() if overlap is None else (Match("t1", "w1", "webwalker", False, overlap),))
    assert find_contamination(train, tests).matches == (), "unless only equal ones are looked for"


def test_short_questions_are_the_same_or_others():
    tests = {"x": [task("Who wrote Emma?", "x1")]}
    assert find_contamination([task("Who wrote Emma, and when was it printed first?")], tests, near=0.8).matches == ()


def test_a_test_question_that_is_there_word_for_word_is_not_counted_as_near_as_well():
    tests = {"x": [task(FALL_GUYS, "x1")]}
    train = [task(FALL_GUYS, "t1"), task(FALL_GUYS + " Please think.", "t2")]
    found = find_contamination(train, tests, near=0.8)
    assert found.dropped == {"t1": ["x1"], "t2": ["x1"]}
    assert (found.found(same=True), found.found(same=False)) == (["x1"], [])


questions = st.lists(st.text("abc", min_size=1, max_size=4), unique=True, max_size=30)


@given(questions, st.floats(0, 1), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_split_depends_on_questions_not_on_order(questions, share, seed, shuffler):
    tasks = [task(question) for question in questions]
    held_out = min(2, max(len(tasks) - 1, 0))
    parts = split(tasks, share, seed, held_out)
    assert len(parts["held_out"]) == held_out
    assert len(parts["cold_start"]) == round(share * (len(tasks) - held_out))
    assert sorted(id for ids in parts.values() for id in ids) == sorted(t.id for t in tasks)
    shuffler.shuffle(tasks)
    assert split(tasks, share, seed, held_out) == parts


def test_questions_held_out_leave_the_order_of_the_others_alone():
    tasks = [task(f"question {i}") for i in range(20)]
    without, held = split(tasks, 0.5, 0), split(tasks, 0.5, 0, 4)
    drawn = without["cold_start"] + without["mentored"]
    assert held["cold_start"] + held["mentored"] == drawn[:16]


def test_holding_out_everything_is_an_error():
    with pytest.raises(ScoreError, match=r"data.held_out: 5 of 5 training questions leave none"):
        split([task(str(i)) for i in range(5)], 0.2, 0, 5)


def test_seeds_give_different_splits():
    tasks = [task(f"question {i}") for i in range(100)]
    cold = [set(split(tasks, 0.2, seed)["cold_start"]) for seed in (0, 1)]
    assert cold[0] != cold[1]
    assert len(cold[0] & cold[1]) < 15


def test_the_command(tmp_path):
    train = [task(f"question {i}") for i in range(20)]
    write_rows(tmp_path / "a.jsonl", [t.to_json() for t in train[:12]])
    write_rows(tmp_path / "b.jsonl", [t.to_json() for t in train[10:]])
    tests = [task("Question 3.", "t-1", "hle"), task("Unseen", "t-2", "hle")]
    write_rows(tmp_path / "hle.jsonl", [t.to_json() for t in tests])
    outputs = ["--out", "splits.json", "--contamination", "c.json", "--report", "c.md"]
    outputs = [word if word.startswith("--") else str(tmp_path / word) for word in outputs]
    inputs = [
        "--seeds",
        str(tmp_path / "a.jsonl"),
        str(tmp_path / "b.jsonl"),
        "--benchmarks",
        str(tmp_path / "hle.jsonl"),
    ]
    main([*inputs, *outputs, "--share", "0.2"])
    splits = json.loads((tmp_path / "splits.json").read_text())
    contamination = json.loads((tmp_path / "c.json").read_text())
    assert contamination["counts"] == {
        "given": 22,
        "distinct": 20,
        "dropped": 1,
        "test_questions_found": 1,
        "nearly_found": None,
        "cold_start": 4,
        "mentored": 15,
        "held_out": 0,
    }
    assert contamination["benchmarks"] == {"hle": {"questions": 2, "found": ["t-1"], "nearly": None, "too_short": None}}
    equal = {"train": train[3].id, "test": "t-1", "benchmark": "hle", "same": True, "overlap": 1.0}
    assert contamination["matches"] == [equal]
    assert set(splits["cold_start"]) | set(splits["mentored"]) == {t.id for t in train} - {train[3].id}
    report = (tmp_path / "c.md").read_text()
    assert "| hle | 2 | 1 | – |" in report
    assert "1 of 2 test questions stand in the 20 distinct training questions" in report
    assert "not looked for" in report
    assert sentence(tmp_path / "c.json") == (
        "1 of the 2 test questions of all benchmarks stood in the 20 training questions "
        "(nearly equal ones not looked for); what held them was dropped (1)."
    )
    main([*inputs, *outputs, "--share", "0.2", "--near", "0.8"])
    assert json.loads((tmp_path / "c.json").read_text())["benchmarks"]["hle"]["too_short"] == 2
    assert "2 have fewer than 20 and were compared as a whole only" in (tmp_path / "c.md").read_text()
    assert "(0 more nearly so)" in sentence(tmp_path / "c.json")
    main([*inputs[:1], *inputs[2:3], inputs[1], *inputs[3:], *outputs, "--share", "0.2"])
    assert json.loads((tmp_path / "splits.json").read_text()) == splits


def test_seeds(tmp_path):
    rows = [
        {"id": "u1", "question": "How many?", "true_answer": " The final answer is \\[ \\boxed{\\text{Two}} \\] "},
        {"id": "u2", "question": "how many", "true_answer": "\\boxed{3}"},
        {"id": "u3", "question": "Half?", "true_answer": "\\frac{1}{2}", "level": 2},
    ]
    write_rows(tmp_path / "search_x_seed.jsonl", rows)
    seeds_main(["--raw", str(tmp_path / "search_x_seed.jsonl"), "--out", str(tmp_path / "out.jsonl")])
    first, second = (Task.from_json(row) for row in read_rows(tmp_path / "out.jsonl"))
    assert (first.id, first.answers, first.dataset) == (question_id("how many"), ("Two",), "search_x")
    assert first.meta == {"published_id": "u1", "metric": "judge", "published_answer": rows[0]["true_answer"]}
    assert (second.answers, second.meta) == (("\\frac{1}{2}",), {"published_id": "u3", "metric": "judge", "level": 2})
    seeds_main(["--raw", str(tmp_path / "search_x_seed.jsonl"), "--out", str(tmp_path / "one.jsonl"), "--limit", "1"])
    (one,) = read_rows(tmp_path / "one.jsonl")
    assert one["id"] in (first.id, second.id)
    write_rows(tmp_path / "other.jsonl", rows)
    with pytest.raises(ScoreError, match="must start with one of math, search"):
        read_seeds(tmp_path / "other.jsonl")


# The published files


@pytest.fixture(scope="module")
def tests(official):
    real = [benchmarks.get(name) for name in benchmarks.NAMES if benchmarks.get(name).world == "published"]
    return {b.name: read_benchmark(b, [official / path for path in b.files]) for b in real}


def counted(found, tests):
    return {name: len(ids) for name in tests if (ids := found.found(name, same=True))}


def test_published_search_seeds_hold_593_test_questions(official, tests):
    seeds = read_seeds(official / "MPS/data_resource/search_mps_seed.jsonl")
    assert len(seeds) == 11_167
    found = find_contamination(seeds, tests)
    assert counted(found, tests) == {
        "2wiki": 116,
        "webwalker": 118,
        "hotpotqa": 97,
        "bamboogle": 78,
        "hle": 73,
        "musique": 58,
        "gaia": 31 + 20 + 2,
    }
    assert len(found.found(same=True)) == 593
    gaia = {t.id: t.meta["level"] for t in tests["gaia"]}
    assert [sum(gaia[id] == level for id in found.found("gaia", same=True)) for level in (1, 2, 3)] == [20, 31, 2]
    assert len(found.dropped) == 593
    raw = read_questions([official / "MPS/data_resource/search_mps_seed.jsonl"], "raw")
    by_id = {t.id: t for t in seeds}
    tail = {t.id for t in raw[8260:]}
    assert sum(by_id[id].meta["published_id"] in tail for id in found.dropped) == 590


def test_the_other_published_seeds(official, tests):
    search = find_contamination(read_seeds(official / "MPS/data_resource/search_bc_init_seed.jsonl"), tests)
    assert counted(search, tests) == {"hotpotqa": 12}
    math = read_seeds(official / "MPS/data_resource/math_bc_init_seed.jsonl")
    assert len(math) == 1331
    assert {t.meta["metric"] for t in math} == {"math"}
    assert find_contamination(math, tests).matches == ()


def test_published_seeds_that_are_nearly_test_questions(official, tests):
    """As many as were looked at by eye to choose the share."""
    files = ("math_bc_init", "search_bc_init", "search_mps")
    seeds = [t for name in files for t in read_seeds(official / f"MPS/data_resource/{name}_seed.jsonl")]
    found = find_contamination(seeds, tests, near=0.8)
    near = [match.test for match in found.matches if not match.same]
    assert len(near) == 10
    assert "webwalker-161a856d-74f9-4b18-971e-ded83dff0970" in near
    assert len(found.found(same=True)) == 605


def test_the_published_seeds_split_is_even_over_files(official):
    seeds = [
        t for kind in ("math", "search") for t in read_seeds(official / f"MPS/data_resource/{kind}_bc_init_seed.jsonl")
    ]
    random.Random(0).shuffle(seeds)
    cold = set(split(seeds, 0.2, 0)["cold_start"])
    for dataset in ("math_bc_init", "search_bc_init"):
        ids = [t.id for t in seeds if t.dataset == dataset]
        assert 0.17 < sum(id in cold for id in ids) / len(ids) < 0.23


def test_a_plan_counts_the_published_seeds_as_they_are(official, tests):
    for name, n in PUBLISHED.items():
        seeds = read_seeds(official / f"MPS/data_resource/{name}_seed.jsonl")
        assert len(distinct(seeds)) == n
        assert len(find_contamination(seeds, tests).found(same=True)) == CONTAMINATED.get(name, 0)
