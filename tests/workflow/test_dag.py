"""The whole workflow on a tiny micro-world: every rule, real parts only, killed in the middle and continued.

python -m pytest -m dag
"""

import contextlib
import csv
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from score.config.load import merged_files
from score.correct.mps import Mentored
from score.plan import ledger
from score.plan.assumptions import Assumptions
from score.plan.loads import Setting
from score.plan.questions import count
from score.records import Trajectory
from score.workflow import Plan
from workflow.conftest import RESULTS, ROOT, run

pytestmark = [pytest.mark.dag, pytest.mark.timeout(1800)]  # minutes on an idle machine


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in (RESULTS / path).read_text().splitlines()]


def is_here(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink() == ROOT.resolve()
    return False


def test_a_killed_workflow_leaves_no_job_behind(killed_run):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = subprocess.run(["pgrep", "-f", "root results/tiny"], capture_output=True, text=True).stdout.split()
        left = [pid for pid in left if is_here(pid)]  # another copy's tests may run at the same time
        if not left:
            return
        time.sleep(0.5)
    pytest.fail(f"still running: {left}")


def test_a_killed_run_continues_with_what_it_had(killed_run, finished):
    keys = {
        row["key"]
        for path in RESULTS.glob("work/correct/*/attempts.1-of-1.jsonl")
        for row in rows(str(path.relative_to(RESULTS)))
    }
    assert killed_run <= keys
    assert "found finished" in (RESULTS / "logs/correct/bc20-s0.1-of-1.log").read_text()


def test_repeating_it_runs_nothing_and_says_so(finished):
    again = run()
    assert "Nothing to be done" in again.stdout + again.stderr


def test_every_agent_is_in_the_tables_with_n_and_an_interval(finished):
    with open(RESULTS / "tables/table1.csv") as file:
        cells = list(csv.DictReader(file))
    agents = {"teacher", "untrained", "bc20", "bc_full", "grpo", "score_sft", "dpo", "sft_both", "score_rl"}
    assert {cell["agent"] for cell in cells} == agents
    for cell in cells:
        assert cell["complete"] in ("True", "true", "1", "yes"), cell
        assert int(cell["n"]) in (3, 6), cell
        assert float(cell["low"]) <= float(cell["mean"]) <= float(cell["high"])
    teacher = {float(cell["mean"]) for cell in cells if cell["agent"] == "teacher"}
    assert teacher == {100.0}, "the oracle, through its server, the agent protocol and the sandbox, is always right"
    for table in (1, 2, 3):
        assert "MICRO-WORLD" in (RESULTS / f"tables/table{table}.md").read_text()


def test_no_question_is_in_two_places(finished):
    splits = json.loads((RESULTS / "data/splits.json").read_text())
    assert not set(splits["cold_start"]) & set(splits["mentored"])
    trained = {row["question"] for row in rows("data/seeds/micro.jsonl")}
    tested = {row["question"] for path in RESULTS.glob("data/*.jsonl") for row in rows(f"data/{path.name}")}
    assert tested
    assert not trained & tested
    sft = {row["task"]["id"] for row in rows("correct/bc20-s0/sft.jsonl")}
    rl = {row["task"]["id"] for row in rows("correct/bc20-s0/rl.jsonl")}
    hard = {row["id"] for row in rows("correct/bc20-s0/hard.jsonl")}
    assert not sft & rl
    assert not (sft | rl) & hard
    assert (sft | rl | hard) <= set(splits["mentored"])


def test_the_oracle_corrects_the_student_step_by_step(finished):
    records = [Mentored.from_json(row) for row in rows("correct/bc20-s0/trajectories.jsonl")]
    assert {record.outcome for record in records} <= {"solved", "hard"}
    solved = [record for record in records if record.outcome == "solved"]
    assert solved
    for record in solved:
        assert record.attempts[-1].answer == record.task.answers[0]
        for before, fix, after in zip(record.attempts, record.corrections, record.attempts[1:], strict=False):
            kept = max(fix.k - 1, 0)
            assert [s.code for s in after.steps[:kept]] == [s.code for s in before.steps[:kept]]


def test_each_result_says_where_it_comes_from(finished):
    for name in (
        "train/score_rl-s0/provenance.json",
        "correct/bc20-s0/provenance.json",
        "eval/bc20/0/provenance.main.json",
    ):
        record = json.loads((RESULTS / name).read_text())
        assert {"commit", "packages", "settings", "seed", "model"} <= set(record), name
        assert len(record["model"]) == 64, "a sha256"
    trajectory = Trajectory.from_json(rows("eval/score_rl/0/math2.jsonl")[0])
    assert trajectory.meta["model"] == json.loads((RESULTS / "train/score_rl-s0/provenance.json").read_text())["model"]


def test_the_ledger_has_what_a_plan_expects_of_it(finished, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = Plan(merged_files([RESULTS / "config.resolved.yaml"]), main=False)
    questions = count(plan.config, RESULTS, Assumptions())
    models = dict.fromkeys(plan.config.models, 1e6)
    thought = ledger.expected(ledger.pieces(plan), Setting(plan.config, questions, Assumptions(), models))
    assert set(ledger.read(RESULTS / "ledger.csv")) == set(thought)


def test_one_setting_reruns_its_branch_only(finished):
    planned = run("-n", "--config", "training={grpo: {score_rl: {lr: 0.0002}}}")
    ran = {line.split()[0] for line in planned.stdout.split("Job stats:")[1].split("\n\n")[0].splitlines()[3:]}
    assert "grpo" in ran
    assert not ran & {"sft", "correct", "rollout", "splits", "seeds"}


def test_targets_beyond_the_default_run_too(finished):
    done = run("--", "theory", "baselines", "ablations")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    with open(RESULTS / "theory/score_sft-s0.csv") as file:
        spreads = list(csv.DictReader(file))
    assert {(row["prefix"], row["rollouts"]) for row in spreads} == {("0", "2"), ("1", "2")}
    with open(RESULTS / "tables/ablation_neither.csv") as file:
        assert {row["agent"] for row in csv.DictReader(file)} == {"ablation_neither"}
    with open(RESULTS / "tables/baselines.csv") as file:
        found = {row["agent"] for row in csv.DictReader(file)}
    assert found == {"teacher", "untrained", "bc_full", "grpo", "dpo", "sft_both"}
    for name in ("horizon", "gradient_variance", "figure3a", "figure3b", "learning_curves", "teacher_tokens"):
        assert (RESULTS / f"figures/{name}.png").stat().st_size > 10_000


def test_a_fresh_agent_is_computed_anew_once(finished):
    weights = RESULTS / "train/dpo-s0/model/model.safetensors"
    before = weights.stat().st_mtime_ns
    again = run("--config", "fresh=[dpo]")
    assert again.returncode == 0, (again.stdout + again.stderr)[-3000:]
    assert weights.stat().st_mtime_ns > before
    assert len(list(RESULTS.glob("work/train/dpo-s0-*"))) == 2, "the first run's checkpoints are set aside"
    assert len(list(RESULTS.glob("work/eval/dpo-s0-*"))) == 2, "and so are its attempts"
    assert "Nothing to be done" in (after := run()).stdout + after.stderr


def test_students_of_a_better_and_a_worse_teacher():
    results = ROOT / "results" / "tiny_teachers"
    shutil.rmtree(results, ignore_errors=True)
    files = ["configs/micro.yaml", "configs/micro_teachers.yaml", "tests/workflow/tiny.yaml"]
    command = ["snakemake", "--profile", "demo", "teacher_quality", "--configfile", *files]
    command.append("tests/workflow/tiny_teachers.yaml")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    with open(results / "figures/teacher_quality.csv") as file:
        shown = list(csv.DictReader(file))
    solved = {row["teacher"]: float(row["mean"]) for row in shown if row["measure"] == "solved after correction"}
    assert solved["1.0"] > solved["0.8"]
    assert {row["agent"] for row in shown if row["measure"] == "before correction"} == {"bc20"}
    records = {path.parent.name: json.loads(path.read_text()) for path in results.glob("correct/*/provenance.json")}
    assert {name: record["settings"].get("teacher_accuracy") for name, record in records.items()} == {
        "bc20-s0": None,
        "score_sft_p80-s0": 0.8,
    }
    assert len({record["model"] for record in records.values()}) == 1, "the same student was corrected"
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "Nothing to be done" in again.stdout + again.stderr
