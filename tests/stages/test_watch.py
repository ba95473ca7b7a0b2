"""A job ends with its workflow."""

import os
import subprocess
import sys

import pytest

from score import watch

JOB = "import time; from score import cli; cli.run(lambda argv: time.sleep({seconds}))"


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
    job = named_workflow(100, f"{gone} {watch._numbering()}")
    assert job.returncode == 143
    assert "error: the workflow that started this job is gone; ending" in job.stderr


@pytest.mark.parametrize("other", [0, 1, 2])
def test_a_workflow_of_another_node_or_namespace_tells_a_job_nothing(gone, other):
    numbering = watch._numbering().split()
    numbering[other] += "0"
    job = named_workflow(2, f"{gone} {' '.join(numbering)}")
    assert (job.returncode, job.stderr) == (0, "")


def test_a_job_of_a_living_workflow_goes_on(monkeypatch):
    monkeypatch.setenv("SCORE_WORKFLOW", "")
    watch.name_workflow()
    job = subprocess.run([sys.executable, "-c", JOB.format(seconds=1)], capture_output=True, text=True, timeout=60)
    assert (job.returncode, job.stderr) == (0, "")


def test_a_look_that_fails_ends_nobody(monkeypatch, gone):
    assert watch._known(lambda: watch._parent(gone) is None)

    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_text", refused)
    assert not watch._known(lambda: watch._parent(gone) is None)
