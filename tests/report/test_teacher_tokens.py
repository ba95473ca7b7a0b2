"""What the teacher wrote for an agent, and the figure of it."""

import csv
import re

import pytest

from score.errors import ScoreError
from score.evaluate.score import QuestionScore, Scores
from score.jsonl import write_json
from score.report.figures import teacher_tokens


def record(stage, tokens, seed=0):
    usage = {"teacher": {"completion_tokens": tokens}, "student": {"completion_tokens": 7}}
    return {"stage": stage, "seed": seed, "usage": usage}


def test_demonstrations_are_made_once_and_corrections_for_each_seed():
    shared = [record("rollout", 100), record("rollout", 50)]
    assert teacher_tokens.spent(shared) == 150
    assert teacher_tokens.spent([*shared, record("correct", 10, 0), record("correct", 30, 1)]) == 150 + 20
    assert teacher_tokens.spent([]) == 0
    assert teacher_tokens.spent([{"stage": "correct", "seed": 0, "usage": {"student": {}}}]) == 0


def scores(agent, benchmark, values):
    rows = tuple(QuestionScore(f"{benchmark}-{i}", value, "answered") for i, value in enumerate(values))
    mean = sum(values) / len(values)
    return Scores(agent, 0, benchmark, 1, "exact", "squad", len(rows), len(rows), mean, True, {}, {}, rows)


def write(folder, made):
    paths = [str(folder / f"{i}.json") for i in range(len(made))]
    for path, one in zip(paths, made, strict=True):
        write_json(path, one.to_json())
    return paths


@pytest.fixture
def command(tmp_path):
    """The figure's arguments: bc and rl on two benchmarks, an ablation on one, a teacher that nobody taught."""
    given = {"teacher": [1.0] * 8, "bc": [0.0, 1.0] * 4, "rl": [1.0] * 6 + [0.0] * 2}
    made = [scores(agent, name, values) for agent, values in given.items() for name in ("math2", "hop2")]
    made.append(scores("ablation", "math2", [1.0] * 8))
    made.append(scores("deep", "deep11", [1.0, 1.0, 1.0, 0.0]))
    paths = write(tmp_path, made)
    names = {"teacher": [1], "bc": [1], "rl": [1], "ablation": [1], "deep": [2]}
    rows = [{"name": n, "student": "Tiny", "method": n.upper(), "tables": tables} for n, tables in names.items()]
    write_json(tmp_path / "agents.json", rows)
    write_json(tmp_path / "demos.json", record("rollout", 4000))
    write_json(tmp_path / "corrections.json", record("correct", 1500))
    demos, corrections = str(tmp_path / "demos.json"), str(tmp_path / "corrections.json")
    taught = ["--taught", "bc", demos, "--taught", "rl", demos, corrections, "--taught", "ablation"]
    taught += ["--taught", "deep"]
    return ["--scores", *paths, "--agents", str(tmp_path / "agents.json"), *taught, "--out-dir", str(tmp_path)]


def test_who_was_taught_and_scored_everywhere_is_drawn(tmp_path, command):
    teacher_tokens.main([*command, "--note", "A note."])
    with (tmp_path / "teacher_tokens.csv").open() as file:
        rows = {row["agent"]: row for row in csv.DictReader(file)}
    assert {agent: float(row["tokens"]) for agent, row in rows.items()} == {"bc": 4000, "rl": 5500, "deep": 0}
    assert [row["panel"] for row in rows.values()] == ["maths and facts", "maths and facts", "deep search"]
    assert (float(rows["rl"]["mean"]), rows["rl"]["n"], rows["rl"]["seeds"]) == (0.75, "16", "1")
    assert float(rows["bc"]["low"]) < 0.5 < float(rows["bc"]["high"])
    assert re.search(r"\| RL +\| 5,500 ", (tmp_path / "teacher_tokens.md").read_text())
    assert (tmp_path / "teacher_tokens.png").stat().st_size > 10_000
    assert (tmp_path / "teacher_tokens.pdf").read_bytes().startswith(b"%PDF")


def test_nobody_on_every_benchmark_is_said(tmp_path, command):
    only = command[command.index("--scores") + 1]
    rest = command[command.index("--agents") :]
    teacher_tokens.main(["--scores", only, *rest])
    assert len((tmp_path / "teacher_tokens.csv").read_text().splitlines()) == 1


def test_a_record_that_is_none_is_named(tmp_path, command):
    write_json(tmp_path / "demos.json", {"stage": "rollout"})
    with pytest.raises(ScoreError, match=r"demos\.json: not a provenance record"):
        teacher_tokens.main(command)
