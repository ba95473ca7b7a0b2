"""Snakemake's scheduler has one timer at a time."""

from __future__ import annotations

import threading

import pytest

from score.scheduling import one_timer


def scheduler_class():
    from snakemake.scheduling.job_scheduler import JobScheduler

    class Scheduler(JobScheduler):
        def __init__(self) -> None:
            self._open_jobs = threading.Semaphore(0)

        _schedule_reevalutation = JobScheduler._schedule_reevalutation

    return Scheduler


def test_many_looks_are_one_timer_which_wakes_the_scheduler():
    scheduler = scheduler_class()()
    one_timer(type(scheduler))
    before = threading.active_count()
    for _ in range(20):
        scheduler._schedule_reevalutation(0.2)
    assert threading.active_count() == before + 1
    assert scheduler._open_jobs.acquire(timeout=20)
    assert not scheduler._open_jobs.acquire(blocking=False)
    scheduler._schedule_reevalutation(0.01)
    assert scheduler._open_jobs.acquire(timeout=20)


@pytest.mark.parametrize("times", [1, 2])
def test_a_scheduler_without_such_timers_is_left_alone(times):
    class Other:
        pass

    for _ in range(times):
        one_timer(Other)
    assert not hasattr(Other, "_schedule_reevalutation")
