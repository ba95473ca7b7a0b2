"""How a command line ends."""

import os
import socket
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


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_job_whose_workflow_was_gone_before_it_could_look_ends(elsewhere):
    """Its shell has another parent by then. What runs on another node tells nothing here."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    named = f"{gone.pid} {'another.node' if elsewhere else socket.gethostname()}"
    job = subprocess.run(
        [sys.executable, "-c", JOB.format(seconds=3 if elsewhere else 100)],
        env=os.environ | {"SCORE_WORKFLOW": named}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    told = "error: the workflow that started this job is gone; ending"
    assert (job.returncode, told in job.stderr) == ((0, False) if elsewhere else (143, True))


def test_a_job_of_a_living_workflow_goes_on(monkeypatch):
    monkeypatch.setenv("SCORE_WORKFLOW", "")
    cli.name_workflow()
    job = subprocess.run([sys.executable, "-c", JOB.format(seconds=1)], capture_output=True, text=True, timeout=60)
    assert (job.returncode, job.stderr) == (0, "")
