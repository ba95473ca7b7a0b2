"""What the host itself looks at, during a step and after it, since no kernel limit bounds it for an ordinary process.

The number of threads, and what the working folder holds: number of files, depth, size on disk. Between two looks of a
step a fast program can make some ten thousand files or some hundred megabytes; that much is not covered.
"""

from __future__ import annotations

from pathlib import Path

from score.sandbox import scratch
from score.sandbox.channel import Process

MOST_THREADS = 256
LOOK_S = 0.2
"""Between two looks."""


class TooMuch(Exception):
    """The step used more than it may; the text says what, in words for the model."""


def look(process: Process) -> None:
    """Raises `TooMuch` if a session's running interpreter uses more than it may."""
    if threads(process) > MOST_THREADS:
        raise TooMuch(f"more than {MOST_THREADS} threads")
    try:
        scratch.check(process.folder)
    except scratch.TooMuch as problem:
        raise TooMuch(f"{problem} in the working folder") from problem


def threads(process: Process) -> int:
    """How many threads the interpreter has; 1 if that cannot be seen."""
    try:
        status = Path(f"/proc/{process.channel.sender}/stat").read_bytes()
    except OSError:
        return 1
    return int(status.rsplit(b")", 1)[1].split()[17])
