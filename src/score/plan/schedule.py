"""How long jobs take on so many GPUs. Pure.

List scheduling: whenever GPUs are free, of the jobs that wait for nothing the one with the longest chain of jobs behind
it starts, if it fits. Nobody else uses the cluster.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from score.plan.dryrun import Job


@dataclass(frozen=True)
class Timed:
    """A job's hours and GPUs, and the places in the list of the jobs that it waits for."""

    hours: float
    gpus: int
    after: tuple[int, ...] = ()


def timed(jobs: Sequence[Job], hours: Sequence[float]) -> list[Timed]:
    """With the order that the jobs' files give."""
    makers = {file: place for place, job in enumerate(jobs) for file in job.makes}
    return [
        Timed(length, job.gpus, tuple({makers[file]: None for file in job.needs if file in makers}))
        for job, length in zip(jobs, hours, strict=True)
    ]


def chains(jobs: Sequence[Timed]) -> list[float]:
    """Hours of the longest chain of jobs that starts with each one."""
    behind = _behind(jobs)
    found: list[float | None] = [None] * len(jobs)
    for place in reversed(_ordered(jobs)):
        found[place] = jobs[place].hours + max((found[later] or 0.0 for later in behind[place]), default=0.0)
    return [length or 0.0 for length in found]


def _behind(jobs: Sequence[Timed]) -> list[list[int]]:
    """Places of the jobs that wait for each one."""
    found: list[list[int]] = [[] for _ in jobs]
    for place, job in enumerate(jobs):
        for earlier in job.after:
            found[earlier].append(place)
    return found


def _ordered(jobs: Sequence[Timed]) -> list[int]:
    """Places, each after those that it waits for."""
    order: list[int] = []
    seen: set[int] = set()
    for start in range(len(jobs)):
        stack = [(start, False)]
        while stack:
            place, ready = stack.pop()
            if ready:
                order.append(place)
            elif place not in seen:
                seen.add(place)
                stack += [(place, True), *((earlier, False) for earlier in jobs[place].after)]
    return order


def wall(jobs: Sequence[Timed], gpus: int) -> float:
    """Hours until all are done on so many GPUs, of which no job takes more."""
    length, behind, missing = chains(jobs), _behind(jobs), [len(job.after) for job in jobs]
    waiting = [(-length[place], place) for place, count in enumerate(missing) if not count]
    heapq.heapify(waiting)
    running: list[tuple[float, int]] = []
    now, free = 0.0, gpus
    while waiting or running:
        later = []
        while waiting:
            entry = heapq.heappop(waiting)
            place = entry[1]
            if jobs[place].gpus <= free:
                free -= jobs[place].gpus
                heapq.heappush(running, (now + jobs[place].hours, place))
            else:
                later.append(entry)
        waiting = later
        heapq.heapify(waiting)
        now, done = heapq.heappop(running)
        free += jobs[done].gpus
        for place in behind[done]:
            missing[place] -= 1
            if not missing[place]:
                heapq.heappush(waiting, (-length[place], place))
    return now
