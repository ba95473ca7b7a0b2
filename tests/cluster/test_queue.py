"""One workflow per experiment; what a dead one left in the queue is found, cancelled and waited for, nothing else."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from score.cluster import queue
from score.cluster.queue import Job, cancel_orphans, claim, of_experiment, queued
from score.errors import InfrastructureError, ScoreError

ROOT = Path(__file__).parents[2]
UUID = "2b1c6c1e-7d3f-4f6e-9d0a-5a0e6f0c1d2e"


def job(number: str, folder: object, comment: str, name: str = f"score_{UUID}") -> str:
    """A line of squeue as its format string asks for it."""
    return f"{number}|{name}|{folder}|{comment}"


class Slurm:
    """A SLURM whose cancelled jobs are still listed for some polls; keeps the commands that it was given."""

    def __init__(self, *lines: str, lingers: float = 0) -> None:
        self.lines, self.lingers, self.cancelled, self.commands = list(lines), lingers, set(), []

    def __call__(self, command):
        self.commands.append(list(command))
        if command[0] == "scancel":
            self.cancelled |= set(command[1:])
            return ""
        assert command[:2] == ["squeue", "--me"], "of this user alone"
        if self.cancelled:
            self.lingers -= 1
        gone = self.cancelled if self.lingers < 0 else set()
        return "".join(f"{line}\n" for line in self.lines if line.split("|")[0] not in gone)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The results folder of an experiment, with others beside it, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("micro", "micro_long", "micro_long_b"):
        (tmp_path / "results" / name).mkdir(parents=True)
    return Path("results/micro")


def test_the_profile_names_jobs_as_they_are_looked_for():
    assert f"slurm-jobname-prefix: {queue.PREFIX} " in (ROOT / "profiles/slurm/profile.yaml").read_text()


def test_array_tasks_are_jobs_of_their_own_and_noise_is_none():
    listing = Slurm(job("12_3", "/home/me/x|y", "rule_sft_wildcards_micro_bc20_0"), "slurm_load_jobs: retrying")
    assert queued(listing) == [Job("12_3", f"score_{UUID}", "/home/me/x", "y|rule_sft_wildcards_micro_bc20_0")]
    assert "--array" in listing.commands[0]


def test_only_jobs_of_the_same_prefix_folder_and_experiment_are_orphans(root):
    here, comment = os.getcwd(), "rule_evaluate_wildcards_micro_bc20_0_main_1-of-3"
    ours = [
        job("1", here, comment),
        job("2_7", here, "rule_correct_wildcards_micro_bc20_0_7-of-8"),
        job("3", here, "rule_judge_wildcards_micro_gaia"),
    ]
    others = [
        job("10", here, comment, name="interactive"),
        job("11", here, comment, name="scores_of_mine"),
        job("12", "/elsewhere", comment),
        job("13", f"{here}/results", comment),
        job("14", here, "rule_grpo_wildcards_micro_long_score_rl_0"),
        job("15", here, "rule_judge_wildcards_micro_long_b_hop2"),
        job("16", here, "rule_grpo_wildcards_microscope_score_rl_0"),
        job("17", here, "rule_hub_model"),
        job("18", here, ""),
    ]
    slurm = Slurm(*ours, *others)
    assert cancel_orphans(root, slurm, pause_s=0) == 3
    assert slurm.cancelled == {"1", "2_7", "3"}


def test_jobs_of_the_experiment_with_the_longer_name_are_its_own(root):
    jobs = [
        Job("1", f"score_{UUID}", os.getcwd(), f"rule_sft_wildcards_{experiment}_bc20_0")
        for experiment in ("micro", "micro_long", "micro_long_b")
    ]
    found = {name: of_experiment(jobs, os.getcwd(), name, os.listdir("results")) for name in os.listdir("results")}
    assert found == {"micro": [jobs[0]], "micro_long": [jobs[1]], "micro_long_b": [jobs[2]]}


def test_a_folder_is_the_same_by_another_path(root, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "here"
    link.symlink_to(os.getcwd())
    slurm = Slurm(job("1", link, "rule_sft_wildcards_micro_bc20_0"))
    assert cancel_orphans(root, slurm, pause_s=0) == 1


def test_nothing_is_cancelled_where_nothing_is_left(root):
    slurm = Slurm()
    assert cancel_orphans(root, slurm) == 0
    assert [command[0] for command in slurm.commands] == ["squeue"]


def test_it_waits_until_the_orphans_are_gone(root, caplog):
    slurm = Slurm(job("1", os.getcwd(), "rule_sft_wildcards_micro_bc20_0"), lingers=4)
    assert cancel_orphans(root, slurm, pause_s=0.01) == 1
    assert [command[0] for command in slurm.commands] == ["squeue", "scancel", *["squeue"] * 5]
    assert "cancelling 1 SLURM jobs of an earlier, killed workflow: 1" in caplog.text


def test_without_locks_nobody_knows_whose_jobs_they_are_so_none_is_cancelled(root):
    slurm = Slurm(job("1", os.getcwd(), "rule_sft_wildcards_micro_bc20_0"))
    with pytest.raises(ScoreError, match="SLURM jobs 1 of this experiment are in the queue; without file locks"):
        cancel_orphans(root, slurm, alone=False)
    assert slurm.cancelled == set()


def test_orphans_that_do_not_end_are_named(root):
    slurm = Slurm(*(job(n, os.getcwd(), "rule_sft_wildcards_micro_bc20_0") for n in "12"), lingers=10**9)
    with pytest.raises(InfrastructureError) as error:
        cancel_orphans(root, slurm, patience_s=0.1, pause_s=0.01)
    message = "SLURM jobs 1 2 of an earlier workflow do not end; cancel them by hand, then start again"
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "squeue is not installed here; run this on a login node"),
        ("sleep 10", "squeue did not answer within 0 s; is slurmctld up?"),
        ("echo 'slurm_load_jobs error:' >&2; echo refused >&2; exit 1", "squeue: slurm_load_jobs error: refused"),
    ],
)
def test_a_slurm_that_does_not_answer_is_one_line(tmp_path, monkeypatch, script, message):
    if script is not None:
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    with pytest.raises(InfrastructureError) as error:
        queue.slurm(["squeue", "--me"], timeout_s=0.5 if script == "sleep 10" else 10)
    assert str(error.value) == message


# The claim, with real processes.

HOLD = """
import sys, time
from pathlib import Path
from score.cluster.queue import claim
claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(100)
"""


@pytest.fixture
def holder(root):
    """Another process that has the claim."""
    command = [sys.executable, "-c", HOLD, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT / "src")}) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_workflow_is_refused_and_told_who_has_it(root, holder):
    for _ in range(2):
        with pytest.raises(ScoreError) as error:
            claim(root)
        node = os.uname().nodename
        message = f"{root}: another workflow is running this experiment (process {holder.pid} on {node})"
        assert str(error.value) == message
    os.close(claim(root.with_name("micro_long")))


def test_a_kill_9_of_the_holder_frees_the_claim(root, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=10)
    descriptor = claim(root)
    assert os.pread(descriptor, 200, 0).decode() == f"process {os.getpid()} on {os.uname().nodename}\n"
    os.close(descriptor)


def test_jobs_do_not_inherit_the_claim(root):
    descriptor = claim(root)
    with subprocess.Popen(["sleep", "100"], close_fds=False) as child:
        os.close(descriptor)
        os.close(claim(root))
        child.kill()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_said_and_lets_the_workflow_run(root, monkeypatch, caplog, code):
    def flock(descriptor, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert claim(root) is None
    assert "this file system has no locks; a second workflow would go unnoticed" in caplog.text


# Snakemake itself.


def test_the_second_of_two_workflows_of_an_experiment_ends_with_one_line():
    results = ROOT / "results/claimed"
    subprocess.run(["rm", "-rf", results], check=True)
    command = ["snakemake", "--profile", "demo", "results/claimed/config.resolved.yaml"]
    command += ["--config", "experiment=claimed"]
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    first = subprocess.Popen(command, **options)
    try:
        lock, deadline = results / ".workflow.lock", time.monotonic() + 60
        while not (lock.exists() and lock.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # it must not have ended when the second one begins
        second = subprocess.run(command, timeout=60, **options)
    finally:
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=60)[0]
    assert first.returncode == 0, said
    assert second.returncode != 0
    assert f"error: results/claimed: another workflow is running this experiment (process {first.pid} " in second.stdout
    assert "Traceback" not in second.stdout
    assert (results / "config.resolved.yaml").exists()
    subprocess.run(["rm", "-rf", results], check=True)
