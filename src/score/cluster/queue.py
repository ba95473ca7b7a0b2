"""One workflow per experiment at a time, and no SLURM job of a dead one beside it.

Snakemake's own lock outlives a kill -9 and has to be removed by hand; a file lock goes with its process. Jobs that a
killed workflow left in the queue are not taken over by the next one (the executor plugin cannot): they are found by
their name, folder and comment, and cancelled. What they had done is in their work files.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from score.errors import InfrastructureError, ScoreError
from score.jsonl import NO_LOCKS

log = logging.getLogger("queue")

PREFIX = "score"
"""Names of our jobs begin with it (`slurm-jobname-prefix` of the profile)."""

Slurm = Callable[[Sequence[str]], str]
"""Runs a SLURM client and returns what it printed."""


@dataclass(frozen=True)
class Job:
    """A line of `squeue`."""

    id: str
    name: str
    folder: str
    comment: str


def slurm(command: Sequence[str], timeout_s: float = 60) -> str:
    """The real one. Raises `InfrastructureError` if SLURM does not answer."""
    try:
        # In a group of its own: a keyboard's interrupt would also end an sbatch whose job is in the queue already.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, process_group=0
        )
    except subprocess.TimeoutExpired:
        raise InfrastructureError(f"{command[0]} did not answer within {timeout_s:.0f} s; is slurmctld up?") from None
    except FileNotFoundError:
        raise InfrastructureError(f"{command[0]} is not installed here; run this on a login node") from None
    if done.returncode:
        raise InfrastructureError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def queued(ask: Slurm = slurm) -> list[Job]:
    """This user's jobs, array tasks one by one."""
    listing = ask(["squeue", "--me", "--array", "--noheader", "--format=%i|%j|%Z|%k"])
    return [Job(*line.strip().split("|", 3)) for line in listing.splitlines() if line.count("|") >= 3]


def of_experiment(jobs: Iterable[Job], folder: str, experiment: str, others: Iterable[str]) -> list[Job]:
    """The jobs that workflows of one experiment sent from one folder.

    Args:
        others: names of the folder's other experiments, one of which may begin like this one.
    """
    longer = [name for name in others if name.startswith(f"{experiment}_")]

    def ours(job: Job) -> bool:
        if not job.name.startswith(f"{PREFIX}_") or os.path.realpath(job.folder) != os.path.realpath(folder):
            return False
        match = re.search(r"_wildcards_(.*)", job.comment)
        words = match[1] if match else ""
        return words.startswith(f"{experiment}_") and not any(words.startswith(f"{name}_") for name in longer)

    return [job for job in jobs if ours(job)]


def cancel_orphans(
    root: Path, ask: Slurm = slurm, *, alone: bool = True, patience_s: float = 120, pause_s: float = 1.0
) -> int:
    """Cancels what dead workflows of an experiment left in the queue and waits until it is gone.

    Args:
        root: the experiment's results folder, `results/<experiment>` below the workflow's folder.
        alone: it is certain that no other workflow of the experiment is running.
    Returns:
        How many jobs were cancelled.
    Raises:
        ScoreError: there are such jobs, and they may be those of a living workflow.
        InfrastructureError: SLURM does not answer, or the jobs do not go.
    """
    others = [path.name for path in root.parent.iterdir() if path.is_dir() and path.name != root.name]

    def left() -> list[Job]:
        return of_experiment(queued(ask), os.getcwd(), root.name, others)

    orphans = left()
    if not orphans:
        return 0
    if not alone:
        raise ScoreError(
            f"{root}: SLURM jobs {_ids(orphans)} of this experiment are in the queue; without file locks nobody can "
            "tell whether their workflow lives; if it does not, cancel them"
        )
    log.warning("cancelling %d SLURM jobs of an earlier, killed workflow: %s", len(orphans), _ids(orphans))
    ask(["scancel", *(job.id for job in orphans)])
    deadline = time.monotonic() + patience_s
    while remaining := left():
        if time.monotonic() > deadline:
            raise InfrastructureError(
                f"SLURM jobs {_ids(remaining)} of an earlier workflow do not end; cancel them by hand, then start again"
            )
        time.sleep(pause_s)
    return len(orphans)


def _ids(jobs: Iterable[Job]) -> str:
    return " ".join(job.id for job in jobs)


def claim(root: Path) -> int | None:
    """Makes this process the only workflow of an experiment, until it ends.

    Returns the open file that holds the claim; None where the file system has no locks.

    Raises `ScoreError` that names the process which has it.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".workflow.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise ScoreError(f"{root}: another workflow is running this experiment ({holder})") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s: this file system has no locks; a second workflow would go unnoticed", root)
        os.close(descriptor)
        return None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor
