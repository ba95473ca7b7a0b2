"""Published demonstrations: seeded, within a token budget, free of test questions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from score.data import demonstrations
from score.data.demonstrations import main, read_demonstrations, within_budget
from score.data.questions import question_id
from score.errors import ScoreError
from score.jsonl import read_rows, write_rows
from score.records import StopReason, Task, Trajectory


def record(question, length):
    values = [question, "<first_thought>p</first_thought>", "Observation: None"]
    values.append(f"<thought>{'x' * length}</thought><code>final_answer_print(1)</code>")
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]}


def thought_length(trajectory):
    return len(trajectory.steps[0].thought)


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "BC_init.json"
    path.write_text(json.dumps([record(f"Question {i}?", 10) for i in range(30)]))
    return path


lengths = st.lists(st.integers(1, 20), min_size=1, max_size=20)


@given(lengths, st.integers(0, 200), st.randoms(use_true_random=False))
def test_the_budget_holds_and_the_choice_ignores_file_order(lengths, budget, shuffler):
    given = [
        Trajectory(Task(question_id(f"Question {i}"), "", (), "d"), "p", (), StopReason.ANSWERED, tokens={"n": length})
        for i, length in enumerate(lengths)
    ]
    chosen, total = within_budget(given, lambda t: t.tokens["n"], budget, seed=0)
    assert total == sum(t.tokens["n"] for t in chosen) <= budget
    if budget >= sum(lengths):
        assert len(chosen) == len(given)
    shuffler.shuffle(given)
    assert within_budget(given, lambda t: t.tokens["n"], budget, seed=0) == (chosen, total)


def test_the_command(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(demonstrations, "token_counter", lambda folder, revision: thought_length)
    tests = [Task("math500-1", "question 3", ("1",), "math500")]
    write_rows(tmp_path / "math500.jsonl", [task.to_json() for task in tests])
    out = tmp_path / "out.jsonl"
    command = ["--raw", str(raw), "--tokenizer", "x", "--exclude", str(tmp_path / "math500.jsonl"), "--out", str(out)]
    main([*command, "--max-tokens", "1000"])
    all_questions = {Trajectory.from_json(row).task.question for row in read_rows(out)}
    assert all_questions == {f"Question {i}?" for i in range(30)} - {"Question 3?"}
    main([*command, "--max-tokens", "105"])
    ten = [Trajectory.from_json(row) for row in read_rows(out)]
    assert len(ten) == 10
    assert all(t.task.id == question_id(t.task.question) and t.meta["right"] is True for t in ten)
    main([*command, "--max-tokens", "105", "--seed", "1"])
    assert {t.task.id for t in ten} != {row["task"]["id"] for row in read_rows(out)}
    with pytest.raises(ScoreError, match="no demonstration fits into 5 tokens"):
        main([*command, "--max-tokens", "5"])


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(ScoreError, match=r"x\.json: not a JSON list"):
        read_demonstrations(path)
    path.write_text(json.dumps([record("Q", 1), {"conversations": [{"from": "gpt", "value": "?"}]}]))
    with pytest.raises(ScoreError, match=r"x\.json: record 1: turns must alternate"):
        read_demonstrations(path)


def test_published_demonstrations(official):
    trajectories = read_demonstrations(official / "SFT/data/train/BC_init_math.json")
    assert len({t.task.id for t in trajectories}) == 1200
    assert {t.task.dataset for t in trajectories} == {"BC_init_math"}
