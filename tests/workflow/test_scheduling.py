"""Snakemake's scheduler has one timer at a time, and a signal ends it whatever lock it holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from score.scheduling import mend

ROOT = Path(__file__).parents[2]

# A job fails, and while the scheduler notes it with its lock held there is a SIGTERM.
FAILS = """
import os, signal
from snakemake.scheduling.job_scheduler import JobScheduler
from score.scheduling import mend

mend(JobScheduler)
note = JobScheduler._handle_error

def told(self, *args, **kwargs):
    assert self._lock.locked()
    os.kill(os.getpid(), signal.SIGTERM)
    note(self, *args, **kwargs)

JobScheduler._handle_error = told

rule all:
    input: "never", "after"

rule fails:
    output: "never"
    priority: 1
    shell: "exit 3"

rule goes_on:
    output: "after"
    shell: "sleep 1; touch {output}"
"""


LISTS = """
from snakemake.cli import main
try:
    main(["--list-rules", "--configfile", "configs/micro.yaml"])
except SystemExit:
    pass
from snakemake.scheduling.job_scheduler import JobScheduler
print(JobScheduler.exit_gracefully.__module__, JobScheduler._schedule_reevalutation.__module__)
"""


def python(*args: str, folder: Path) -> subprocess.CompletedProcess:
    environ = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, *args], cwd=folder, env=environ, capture_output=True, text=True, timeout=100)


def scheduler_class():
    from snakemake.scheduling.job_scheduler import JobScheduler

    class Scheduler(JobScheduler):
        def __init__(self) -> None:
            self._open_jobs = threading.Semaphore(0)

        _schedule_reevalutation = JobScheduler._schedule_reevalutation
        exit_gracefully = JobScheduler.exit_gracefully

    return Scheduler


def test_many_looks_are_one_timer_which_wakes_the_scheduler():
    scheduler = scheduler_class()()
    mend(type(scheduler))
    before = threading.active_count()
    for _ in range(20):
        scheduler._schedule_reevalutation(0.2)
    assert threading.active_count() == before + 1
    assert scheduler._open_jobs.acquire(timeout=20)
    assert not scheduler._open_jobs.acquire(blocking=False)
    scheduler._schedule_reevalutation(0.01)
    assert scheduler._open_jobs.acquire(timeout=20)


def test_a_workflow_ends_when_a_signal_meets_its_lock(tmp_path):
    (tmp_path / "Snakefile").write_text(FAILS)
    done = python("-m", "snakemake", "--cores", "1", "--keep-going", folder=tmp_path)
    assert done.returncode == 1
    assert "Will exit after finishing currently running jobs" in done.stderr, "the signal was heard"
    assert not (tmp_path / "after").exists(), "and no other job was started"


def test_a_signal_is_heard_in_the_midst_of_waking_the_scheduler():
    scheduler = scheduler_class()()
    scheduler._lock, scheduler._user_kill = threading.Lock(), None
    mend(type(scheduler))
    with scheduler._lock, scheduler._open_jobs._cond:
        scheduler.exit_gracefully(signal.SIGTERM, None)
    assert scheduler._open_jobs.acquire(timeout=20)
    assert scheduler._user_kill == "graceful"


def test_our_workflow_mends_its_scheduler():
    told = python("-c", LISTS, folder=ROOT).stdout.splitlines()
    assert "correct" in told, "the rules have been read"
    assert told[-1] == "score.scheduling score.scheduling"


@pytest.mark.parametrize("times", [1, 2])
def test_a_scheduler_without_such_methods_is_left_alone(times):
    class Other:
        pass

    for _ in range(times):
        mend(Other)
    assert not {"_schedule_reevalutation", "exit_gracefully"} & set(dir(Other))


def test_a_method_is_mended_once():
    scheduler = scheduler_class()
    mend(scheduler)
    mended = scheduler.exit_gracefully
    mend(scheduler)
    assert scheduler.exit_gracefully is mended
