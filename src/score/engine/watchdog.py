"""Ends a server's process group when the job that started it is gone, whatever ended the job.

    python -IS watchdog.py JOB GRACE_S

The group is the first line that it reads. It is started before the server, and the server's process writes that line:
so no server starts without one. Where the line does not come there is no server, and it ends.

It is the job's own child, so it has another parent as soon as the job is dead. Then the group gets TERM, which its
members may ignore, and KILL when GRACE_S seconds are over. It ends with the group, so that nobody who is given the same
number later is hit. `score.engine.serve` starts one for each server; it uses the standard library alone.
"""

from __future__ import annotations

import os
import signal
import sys
import time

_LOOK_S = 0.5


def main(job: int, group: int, grace_s: float) -> None:
    while os.getppid() == job:
        if not _signalled(group, 0):
            return
        time.sleep(_LOOK_S)
    _signalled(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _signalled(group, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signalled(group, signal.SIGKILL)


def _signalled(group: int, sign: int) -> bool:
    """False if nobody is left in the group."""
    try:
        os.killpg(group, sign)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    if line := sys.stdin.readline():
        main(int(sys.argv[1]), int(line), float(sys.argv[2]))
