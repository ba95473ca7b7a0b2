"""A finished run's ledger stands beside what was expected of it, and calibrates the next plan."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from fakes import mapping
from plan.small import ROOT
from score.errors import ScoreError
from score.plan import __main__ as command
from score.plan import ledger, progress, show
from score.plan.assumptions import Assumptions
from score.plan.dryrun import Job
from score.plan.loads import Piece, load
from score.plan.questions import count
from score.report.ledger import COLUMNS
from score.workflow import Plan

ACTUAL = {"requests": 2.0, "prompt": 0.5, "completion": 3.0}
"""What the run did, in what was expected of it."""


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def run(tmp_path) -> Path:
    """The ledger of a finished run that asked twice as often, and so on."""
    raw = mapping(experiment="pilot", data={"per_benchmark": 10, "held_out": 20})
    (tmp_path / "config.resolved.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "data").mkdir()
    parts = {"cold_start": list("abcd"), "mentored": list("efghijkl"), "held_out": ["m"]}
    (tmp_path / "data" / "splits.json").write_text(json.dumps(parts))
    plan = Plan(raw)
    where = command._setting(plan, tmp_path, Assumptions())
    thought = ledger.expected(ledger.pieces(plan), where)
    path = tmp_path / "ledger.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval=0)
        writer.writeheader()
        for (stage, role), counts in thought.items():
            row = {column: counts[name] * ACTUAL[name] for name, column in ledger._COLUMNS.items()}
            half = {column: value / 2 for column, value in row.items()}
            writer.writerows([{"stage": stage, "role": role, **half}] * 2)
    return path


def test_every_stage_and_role_of_the_ledger_is_expected(run):
    assert set(ledger.read(run)) == {
        *(("rollout", "teacher"), ("correct", "student"), ("correct", "teacher")),
        *(("grpo", "student"), ("grpo", "reward_judge")),
        *(("evaluate", "teacher"), ("evaluate", "student"), ("judge", "evaluation_judge")),
    }


def test_expected_and_actual_stand_side_by_side(run, capsys):
    command.main(["--against", str(run)])
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines()]
    assert rows[0][:5] == ["stage", "role", "requests: expected", "actual", "ratio"]
    for row in rows[2:]:
        assert [row[4], row[7], row[10]] == ["2.00", "0.50", "3.00"]
    assert ["all", "student"] in [row[:2] for row in rows]


def test_calibrated_by_a_run_the_same_run_is_expected_exactly(run, capsys):
    command.main(["--against", str(run), "--calibrate", str(run), "--assume", "steps=3"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert all([row[4], row[7], row[10]] == ["1.00"] * 3 for row in rows[2:])


def test_a_calibrated_plan_is_multiplied_by_the_ratios(run):
    plan = Plan(mapping())
    before = command._setting(plan, Path("results/nowhere"), Assumptions())
    after = command._calibrated(before, run)
    work = list(ledger.pieces(plan))
    for pair in ledger.pairs(ledger.expected(work, before), ledger.expected(work, after)).values():
        assert {name: pair.ratio(name) for name in ACTUAL} == pytest.approx(ACTUAL)
    sampled = [load(Piece("grpo", "qwen7b_score_rl"), where).sampled for where in (before, after)]
    assert sampled[1] == pytest.approx(3 * sampled[0]), "as the students wrote in evaluation"
    assert "  evaluate, student: requests x 2, prompt x 0.5, completion x 3" in show.calibration(after, run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; a run writes it at its end"),
        ("a,b\n1,2\n", "not a ledger"),
        (",".join(COLUMNS) + "\n", "a ledger without rows"),
        (",".join(COLUMNS) + "\nevaluate,a,0,student,m,many,1,1,1,0,0,\n", "not a ledger"),
        (
            ",".join(COLUMNS) + "\nevaluate,a,0,student,m,1,1,1,1,0,0,\n",
            "no such file; a ledger is read with the config",
        ),
    ],
)
def test_what_is_no_ledger_ends_with_one_line(tmp_path, text, message):
    file = tmp_path / "ledger.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ScoreError) as raised:
        command.main(["--against", str(file)])
    assert message in str(raised.value)


def test_questions_are_counted_where_their_files_are(tmp_path):
    config = Plan(mapping()).config
    before = count(config, tmp_path, Assumptions())
    assert before.cold_start == pytest.approx(before.mentored / 4, abs=1)
    assert before.held_out == 200
    assert "math_mps 11,600 (assumed)" in before.source
    (tmp_path / "data/seeds").mkdir(parents=True)
    (tmp_path / "data/seeds/math_mps.jsonl").write_text('{"id": 1}\n' * 100)
    counted = count(config, tmp_path, Assumptions())
    assert "math_mps 100 (counted)" in counted.source
    assert counted.searching > before.searching
    (tmp_path / "data/splits.json").write_text('{"cold_start": ["a"], "mentored": ["b", "c"], "held_out": []}')
    split = count(config, tmp_path, Assumptions())
    assert (split.cold_start, split.mentored, split.held_out) == (1, 2, 0)
    (tmp_path / "data/splits.json").write_text("{")
    with pytest.raises(ScoreError, match="no split of questions; remove it"):
        count(config, tmp_path, Assumptions())


def test_questions_that_nothing_tells_are_asked_for(tmp_path):
    config = Plan(mapping(data={"seeds": ["mine/math_mine_seed.jsonl"]})).config
    with pytest.raises(ScoreError, match=r"--assume questions\.math_mine=1000"):
        count(config, tmp_path, Assumptions())
    assert count(config, tmp_path, Assumptions(own={"questions.math_mine": 500})).mentored == 240


def test_the_micro_worlds_questions_follow_from_its_config(tmp_path):
    found = count(Plan(mapping("micro.yaml")).config, tmp_path, Assumptions())
    assert found.cold_start + found.mentored + found.held_out == 840
    assert (found.held_out, found.judged) == (120, 0)


def test_what_killed_jobs_left_in_their_work_folders_is_found(tmp_path, monkeypatch):
    plan = Plan(mapping("micro.yaml"))
    monkeypatch.setattr(plan, "root", str(tmp_path))
    agent = {"agent": "bc20", "seed": "0"}
    jobs = [
        Job("splits"),
        Job("correct", agent | {"scatteritem": "1-of-2"}),
        Job("sft", agent),
        Job("evaluate", agent | {"part": "main", "scatteritem": "1-of-1"}),
        Job("rollout", {"agent": "teacher", "part": "mentored", "scatteritem": "1-of-1"}),
    ]
    assert progress.done(plan, jobs) == {}
    work = tmp_path / "work"
    rows = {
        work / f"correct/bc20-s0-{plan.stage('correct', 'bc20', '0')}/attempts.1-of-2.jsonl": 3,
        work / f"correct/bc20-s0-{plan.stage('correct', 'bc20', '0')}/attempts.2-of-2.jsonl": 9,
        work / "eval/bc20-s0-of-other-settings/main/attempts.1-of-1.jsonl": 5,
        work / f"rollout/teacher-{plan.stage('rollout', 'teacher')}/mentored.1-of-1.jsonl": 4,
    }
    for file, n in rows.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}\n" * n)
    for update in (50, 100, 150):
        folder = work / f"train/bc20-s0-{plan.stage('sft', 'bc20', '0')}/inputs/checkpoints/checkpoint-{update}"
        folder.mkdir(parents=True)
        if update < 150:  # the last one was being written
            (folder / "trainer_state.json").write_text("{}")
    assert progress.done(plan, jobs) == {1: 3, 2: 100, 4: 4}
