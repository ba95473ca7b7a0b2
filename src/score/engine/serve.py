"""Starts a model server for the time of a `with` block and ends it with the job.

The server gets a port of the operating system's choice on 127.0.0.1 and a process group of its own. While it starts,
its health and its process are both watched; if it ends early the error shows its last lines. On exit, exception or
SIGTERM the whole group gets TERM and, if it does not go, KILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx

from score.errors import InfrastructureError

_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def serve(
    command: Callable[[int], Sequence[str]], log: Path, *, timeout_s: float = 600, grace_s: float = 10
) -> Iterator[str]:
    """Yields the server's base URL ("http://127.0.0.1:PORT") once GET /health answers 200.

    Args:
        command: the server's command line for a given port.
        log: file that receives its output.
    Raises:
        InfrastructureError: it ended before it was ready, or was not ready in time.
    """
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            list(command(port)), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _await_health(process, f"{url}/health", log, timeout_s)
        yield url
    finally:
        _end(process, grace_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent() -> None:
    """Even kill -9 of this process leaves no server behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _await_health(process: subprocess.Popen, url: str, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    pause = 0.05
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise InfrastructureError(
                f"the server ended with code {process.returncode} before it was ready; {_tail(log)}"
            )
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(pause)
        pause = min(2.0, pause * 1.5)
    raise InfrastructureError(f"the server was not ready after {timeout_s:.0f} s; {_tail(log)}")


def _tail(log: Path, lines: int = 8) -> str:
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return f"last lines of {log}: " + " | ".join(last)


def _end(process: subprocess.Popen, grace_s: float) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
            if sign == signal.SIGTERM:
                continue  # the leader is gone; KILL reaches whatever it left in its group
        if process.poll() is None and sign == signal.SIGKILL:
            raise InfrastructureError(f"server process {process.pid} survives SIGKILL")
