"""Processes of a sandbox as the tests see them, from outside of its process namespace."""

from __future__ import annotations

import re
from pathlib import Path


def inside(parent: int) -> dict[int, int]:
    """The processes below a warm parent: their numbers in its namespace, and ours."""
    below, found = [parent], {}
    while below:
        children = Path(f"/proc/{below[0]}/task/{below.pop(0)}/children").read_text().split()
        below += map(int, children)
        for child in map(int, children):
            status = Path(f"/proc/{child}/status").read_text()
            found[int(re.search(r"^NSpid:.*?(\d+)$", status, re.MULTILINE)[1])] = child
    return found


def pid_of(session) -> int:
    """The number by which this process knows a session's interpreter."""
    pid = session._process.channel.pid
    return inside(session._pool._process.pid)[pid] if "own_processes" in session._pool.layers else pid
