"""A process ends with the one that it works for, also where that one is killed with -9."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_WORKFLOW = "SCORE_WORKFLOW"
"""Variable that names the process which starts a job, so that the job knows it even when it is gone already."""


def end_with_the_workflow() -> None:
    """Has this process end when the one that started its shell is gone, or was before this one could see it.

    A Snakemake that was killed with -9 leaves its jobs running; the next one would meet them at the same files.
    """
    if not Path("/proc/self/stat").exists():
        return
    shell, workflow = os.getppid(), None

    def gone() -> bool:
        nonlocal workflow
        parent = _parent(shell)
        workflow = workflow if workflow is not None else parent
        return os.getppid() != shell or parent != workflow or _ended_before()

    _end_once(gone, "the workflow that started this job")


def end_with(pid: int) -> None:
    """Has this process end when another one is gone."""
    _end_once(lambda: _parent(pid) is None, f"process {pid}")


def name_workflow() -> None:
    """Makes this process the workflow of the jobs that inherit its environment."""
    os.environ[_WORKFLOW] = f"{os.getpid()} {_numbering()}"


def _end_once(gone: Callable[[], bool], who: str, every_s: float = 1.0) -> None:
    def watch() -> None:
        while not _known(gone):
            time.sleep(every_s)
        print(f"error: {who} is gone; ending", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _known(gone: Callable[[], bool]) -> bool:
    """Not where a look fails: too many open files, say, tell nothing."""
    try:
        return gone()
    except OSError:
        return False


def _numbering() -> str:
    """Where a process's number means the same, and can be seen: this boot of this machine, and these namespaces.

    From within another user namespace, such as an image's, a /proc with `hidepid` hides even the user's own processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return " ".join([boot, *(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "user"))])
    except OSError:
        return ""


def _ended_before() -> bool:
    """Whether the named workflow is gone. Its shell's new parent tells nothing to one who never saw the old."""
    pid, _, numbering = os.environ.get(_WORKFLOW, "").partition(" ")
    return numbering != "" and numbering == _numbering() and _parent(int(pid)) is None


def _parent(pid: int) -> int | None:
    """The parent of a process, 0 if that is outside of this container; None if the process has ended.

    Raises `OSError` if it cannot be looked at.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = stat.rsplit(")", 1)[1].split()[:2]
    return int(parent) if state != "Z" else None
