"""What the sandbox tests share: attempts on it, and its processes as seen from outside of its process namespace."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest


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


def needs(pool, layer):
    if layer not in pool.layers:
        pytest.skip(f"this kernel does not offer {layer}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def attempts(session, *expressions: str) -> str:
    """Runs each expression by itself; returns a line "allowed" or the exception's name for each."""
    code = "for attempt in [" + ", ".join(f"lambda: {e}" for e in expressions) + "]:\n"
    code += "    try: attempt(); print('allowed')\n    except BaseException as e: print(type(e).__name__)"
    return session.run("import os, socket, ctypes, fcntl, resource, struct, subprocess, signal, sys\n" + code).text
