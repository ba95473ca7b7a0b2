"""How a command line ends."""

import os
import subprocess
import sys

import pytest

from score import cli

JOB = "import time; from score import cli; cli.run(lambda argv: time.sleep({seconds}))"


def test_an_interrupted_job_ends_with_one_line(capsys, monkeypatch):
    monkeypatch.setattr("score.cli.exit_on_sigterm", lambda: None)

    def interrupted(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        cli.run(interrupted)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; what is done is kept, start again\n"


def named_workflow(seconds: float, named: str) -> subprocess.CompletedProcess:
    """A job whose environment names that workflow."""
    return subprocess.run(
        [sys.executable, "-c", JOB.format(seconds=seconds)],
        env=os.environ | {"SCORE_WORKFLOW": named}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_job_whose_workflow_was_gone_before_it_could_notice_ends(gone):
    """Its shell has another parent by then."""
    job = named_workflow(100, f"{gone} {cli._numbering()}")
    assert job.returncode == 143
    assert "error: the workflow that started this job is gone; ending" in job.stderr


@pytest.mark.parametrize("other", [0, 1, 2])
def test_a_workflow_of_another_node_or_namespace_tells_a_job_nothing(gone, other):
    numbering = cli._numbering().split()
    numbering[other] += "0"
    job = named_workflow(2, f"{gone} {' '.join(numbering)}")
    assert (job.returncode, job.stderr) == (0, "")


def test_a_job_of_a_living_workflow_goes_on(monkeypatch):
    monkeypatch.setenv("SCORE_WORKFLOW", "")
    cli.name_workflow()
    job = subprocess.run([sys.executable, "-c", JOB.format(seconds=1)], capture_output=True, text=True, timeout=60)
    assert (job.returncode, job.stderr) == (0, "")


def test_a_process_that_cannot_be_looked_at_has_not_ended(monkeypatch, gone):
    assert cli._ended(gone)

    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_text", refused)
    assert not cli._ended(gone)
