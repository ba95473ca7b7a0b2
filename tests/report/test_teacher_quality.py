"""The figure of what a worse teacher costs: its numbers by hand, and what it cannot use."""

import pytest
from test_figures import NOTE, check_files, scores, write_scores

from score.errors import ScoreError
from score.jsonl import write_rows
from score.report.figures import teacher_quality


def taught(folder, name, rows):
    write_rows(folder / f"correct/{name}/trajectories.jsonl", rows)
    return str(folder / f"correct/{name}/trajectories.jsonl")


def task(name, outcome, *turns, failure=None):
    corrections = [{"k": k} for k in turns]
    return {"task": {"id": name}, "outcome": outcome, "corrections": corrections, "failure": failure}


def test_teacher_quality_from_files(tmp_path):
    right = [task("a", "solved", 2), task("b", "solved", 4, 1), task("c", "solved"), task("d", "hard", 3)]
    worse = [
        *(task("a", "failed", failure="rewrite_identical: x"), task("b", "hard", 0, 1)),
        *(task("c", "solved"), task("d", "failed", failure="infrastructure: down")),
    ]
    corrections = [taught(tmp_path, "bc-s0", right), taught(tmp_path, "rl-s0", worse)]
    paths = write_scores(
        tmp_path, scores("bc", "math2", {"a": 1.0, "b": 0.0}), scores("sft", "math2", {"a": 1.0, "b": 1.0}),
        scores("rl", "math2", {"a": 0.0, "b": 0.0}),
    )  # fmt: skip
    teachers = ["--teacher", "1.0", "sft", "bc", "--teacher", "0.6", "rl", "rl"]
    teacher_quality.main(
        [*teachers, "--scores", *paths, "--corrections", *corrections, "--note", NOTE, "--out-dir", str(tmp_path)]
    )
    rows = {(row["agent"], row["measure"]): row for row in check_files(tmp_path, "teacher_quality", "none: bc")}
    found = {key: (float(row["mean"]), int(row["n"])) for key, row in rows.items()}
    assert found == {
        ("rl", "accuracy of SCoRe-SFT"): (0, 2),
        ("rl", "solved after correction"): (0, 2),  # a and b: c was right at first, d has no outcome
        ("rl", "teacher failed"): (0.5, 2),
        ("rl", "key step"): (0, 1),
        ("sft", "accuracy of SCoRe-SFT"): (1, 2),
        ("sft", "solved after correction"): (pytest.approx(2 / 3), 3),
        ("sft", "teacher failed"): (0, 3),
        ("sft", "key step"): (3, 3),
        ("bc", "before correction"): (0.5, 2),
    }
    assert rows["rl", "key step"]["teacher"] == "0.6"


def test_seeds_of_a_corrected_task_are_one_task(tmp_path):
    paths = [taught(tmp_path, f"bc-s{seed}", [task("a", "solved", 1 + 2 * seed)]) for seed in (0, 1)]
    outcomes = teacher_quality.read_outcomes(list(map(tmp_path.joinpath, paths)))
    assert outcomes["key step"]["bc"] == {"a": [1, 3]}
    cells = teacher_quality.pool([scores("sft", "math2", {"a": 1.0})])
    data = teacher_quality.measure([teacher_quality.Taught(1.0, "sft", "bc")], cells, outcomes).set_index("measure")
    assert (data.loc["key step", "mean"], data.loc["key step", "n"], data.loc["key step", "seeds"]) == (2, 1, 2)


def test_what_teacher_quality_cannot_use_is_named(tmp_path):
    write_rows(tmp_path / "t.jsonl", [])
    with pytest.raises(ScoreError, match=r"t.jsonl: whose are they\?"):
        teacher_quality.read_outcomes([tmp_path / "t.jsonl"])
    path = taught(tmp_path, "bc-s0", [{"outcome": "solved"}])
    with pytest.raises(ScoreError, match=r"trajectories.jsonl:1: not a mentored task"):
        teacher_quality.read_outcomes([tmp_path / path])
    cells = teacher_quality.pool([scores("sft", "math2", {"a": 1.0})])
    nothing = teacher_quality.read_outcomes([])
    with pytest.raises(ScoreError, match="no corrections named 'bc'"):
        teacher_quality.measure([teacher_quality.Taught(1.0, "sft", "bc")], cells, nothing)
    with pytest.raises(ScoreError, match="other has no scores on some"):
        teacher_quality.measure([teacher_quality.Taught(1.0, "other", "bc")], cells, nothing)
    with pytest.raises(ScoreError, match="the accuracy must be a number"):
        teacher_quality._taught(["high", "sft", "bc"])
