"""Wall time is between what any schedule needs and what one job after the other takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from score.plan.dryrun import Job
from score.plan.schedule import Timed, chains, timed, wall

GPUS = 4


@st.composite
def workflows(draw) -> list[Timed]:
    found = []
    for place in range(draw(st.integers(0, 12))):
        after = draw(st.sets(st.integers(0, place - 1), max_size=3)) if place else set()
        found.append(Timed(draw(st.floats(0, 50)), draw(st.integers(0, GPUS)), tuple(sorted(after))))
    return found


@given(workflows())
def test_wall_time_is_within_its_bounds(jobs):
    found, longest = wall(jobs, GPUS), max(chains(jobs), default=0)
    work = sum(job.hours * job.gpus for job in jobs) / GPUS
    assert max(longest, work) - 1e-6 <= found <= sum(job.hours for job in jobs) + 1e-6


@given(workflows())
def test_with_gpus_for_all_it_is_the_longest_chain(jobs):
    assert wall(jobs, GPUS * 12) == pytest.approx(max(chains(jobs), default=0))


def test_what_waits_for_files_starts_when_they_are_made():
    jobs = [
        Job("c", gpus=1, needs=("b", "there already")),
        Job("a", gpus=1, makes=("a",)),
        Job("b", gpus=1, needs=("a",), makes=("b",)),
        Job("d", gpus=1),
    ]
    found = timed(jobs, [1, 2, 3, 4])
    assert [job.after for job in found] == [(2,), (), (1,), ()]
    assert chains(found) == [1, 6, 4, 4]
    assert wall(found, 1) == 10
    assert wall(found, 2) == 6


def test_the_longest_chain_goes_first():
    jobs = [Timed(1, 1), Timed(1, 1), Timed(2, 1), Timed(1, 1, (2,))]
    assert wall(jobs, 2) == 3
