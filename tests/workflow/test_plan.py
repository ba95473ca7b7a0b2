"""Planning: what is built for which target, in seconds, with errors before any job starts."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def snakemake(*args: str, timeout: float = 60) -> subprocess.CompletedProcess:
    command = ["snakemake", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def rules_of(dry_run: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from the job stats of a dry run."""
    lines = dry_run.stdout.split("Job stats:")[1].split("\n\n")[0].splitlines()[3:]
    return {name: int(count) for name, count in (line.split() for line in lines if len(line.split()) == 2)}


def test_the_full_paper_grid_plans():
    planned = snakemake("--profile", "slurm", "-n")
    assert planned.returncode == 0, planned.stderr[-2000:]
    jobs = rules_of(planned)
    assert {"rollout", "correct", "sft", "grpo", "evaluate", "evaluate_deep", "judge", "score", "write_table"} <= set(
        jobs
    )
    assert jobs["grpo"] == 9
    assert jobs["sft"] == 12


@pytest.mark.parametrize("profile", ["demo", "local", "slurm"])
def test_profiles_are_found_by_name(profile):
    assert (ROOT / profile / "profile.yaml").exists()
    assert not (ROOT / "profiles" / "default").exists(), "Snakemake would load it by itself and let it win"


def test_a_table_needs_only_its_own_columns():
    jobs = rules_of(snakemake("--profile", "demo", "-n", "table2", "--config", "experiment=unbuilt"))
    assert "evaluate" not in jobs
    assert jobs["evaluate_deep"] == 5
    jobs = rules_of(snakemake("--profile", "slurm", "-n", "table1", "--config", "experiment=unbuilt"))
    assert "evaluate_deep" not in jobs
    assert "judge" not in jobs


def test_a_narrower_run_has_fewer_columns():
    jobs = rules_of(snakemake("--profile", "slurm", "-n", "--config", "experiment=unbuilt", "benchmarks=[aime24,gaia]"))
    assert jobs["judge"] == 1
    assert jobs["all_questions"] == 12, "no benchmark's question may be trained on, evaluated or not"


def test_a_seed_is_a_run_of_its_own():
    jobs = rules_of(snakemake("--profile", "demo", "-n", "--config", "experiment=unbuilt", "seeds=[0,1,2]"))
    assert jobs["grpo"] == 3
    assert jobs["rollout"] == 1, "the teacher's demonstrations are shared"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("benchmarks=[aime42]", "unknown benchmark 'aime42'; did you mean 'aime2"),
        ("sedes=[1]", "sedes: unknown key; did you mean 'seeds'?"),
        ("seeds=[x]", "seeds.0: input should be a valid integer"),
        ('roles={teacher: "qwen72b"}', "roles.teacher: unknown model 'qwen72b'; did you mean 'qwen2.5_72b'?"),
    ],
)
def test_mistakes_end_before_any_job_with_one_line(config, message):
    done = snakemake("--profile", "slurm", "-n", "--config", config)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert message in said
    assert "Traceback" not in said


def test_the_linter_has_nothing_to_say():
    done = snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr
