"""Starts a model server for the time of a `with` block and ends it with the job.

A server that can listen on a Unix socket gets one in a private folder: nobody else can be there first, or answer in its
place. Others get a port of the operating system's choice on 127.0.0.1. While the server starts, its health and its
process are both watched; if it ends early the error shows its last lines. On exit, exception, SIGTERM or SIGINT, while
it is starting too, the whole process group gets TERM and, if it does not go, KILL; if the job is killed, a watchdog
does that in its place (`score.engine.watchdog`). A server that ends in the middle of the work is an
`InfrastructureError` that shows its last lines, for every request (`Server.death`) and for the block as a whole, so
that a stage does not end well with a server that did not.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from score.engine import watchdog
from score.errors import InfrastructureError
from score.signals import exit_on_sigterm, in_main_thread, put_off

Command = Callable[[str], Sequence[str]]
"""The server's command line for a port or for the path of a socket."""

_PR_SET_PDEATHSIG = 1
_LONGEST_SOCKET = 100  # a socket's path has 107 bytes at most, wherever TMPDIR is
_LOOPBACK = "127.0.0.1"
_STARTS = 3
_POLL_S = 2.0  # one look at the health of a server, which may hang
_IN_USE = "address already in use"


@dataclass
class Server:
    """A server that runs. `url` has no path; `socket` is the Unix socket that it is reached by, if any."""

    url: str
    socket: str | None
    process: subprocess.Popen
    log: Path
    said_before: int
    """Bytes of the log that are not this server's."""
    watchdog: subprocess.Popen
    facts: dict[str, Any] = field(default_factory=dict)
    """For the provenance: the exact command, but for the place, and the version that the server gives for itself."""

    def death(self) -> str | None:
        """How the server ended and its last lines; None while it runs."""
        code = self.process.poll()
        return None if code is None else f"the server ended with code {code}; {self.last_lines()}"

    def last_lines(self, lines: int = 8) -> str:
        """The first error that the server named, which a long shutdown may follow, and its last lines."""
        said = self.said()
        error = _ERROR.search(said)
        first = f"its first error: {error[1][:300]}; " if error else ""
        return first + f"last lines of {self.log}: " + " | ".join(said.splitlines()[-lines:])

    def said(self) -> str:
        with open(self.log, "rb") as file:
            file.seek(self.said_before)
            return file.read().decode("utf-8", "replace")


_ERROR = re.compile(r"^(?!.*\bWARNING\b).*?\b([A-Z]\w*(?:Error|Exception): .+)", re.MULTILINE)
"""A warning may tell of errors that have not come."""


@contextlib.contextmanager
def serve(
    command: Command, log: Path, *, unix: bool = False, address: tuple[str, int] | None = None,
    environment: Mapping[str, str] | None = None, timeout_s: float = 600, grace_s: float = 10,
) -> Iterator[Server]:  # fmt: skip
    """Yields the server once GET /health answers 200.

    A port is bound here, with SO_REUSEADDR and SO_REUSEPORT but without listening, until the server has ended: the
    system gives it to nobody else, and a server that sets either of the two can listen on it. If the server finds it in
    use all the same, or sets neither, it is started again on another one, which nobody holds.

    Args:
        log: file that receives its output.
        unix: the command is for a socket's path, not for a port.
        address: host and port, 0 for any, in place of a port of the system's choice on 127.0.0.1; it is not started
            again on another.
        environment: variables of the server's beside this process's own.
    Raises:
        InfrastructureError: it ended, before it was ready or after that, or was not ready in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with _ended_by_sigterm(), contextlib.ExitStack() as kept:
        host, wanted = address or (_LOOPBACK, 0)
        starts = _STARTS if address is None else 1
        for start in range(1, starts + 1):
            place = kept.enter_context(_socket_path() if unix else _port(host, wanted, held=start == 1))
            server = None
            try:
                with put_off():  # no server starts unseen
                    url = "http://localhost" if unix else url_of(_reached(host), place)
                    server = _start(command, place, url, log, unix, environment, grace_s)
                if not _await_health(server, timeout_s, again=start < starts):
                    continue
                words = [("SOCKET" if unix else "PORT") if word == place else word for word in server.process.args]
                server.facts = {"command": words, "version": _version(server)}
                yield server
                if why := server.death():
                    raise InfrastructureError(f"{why}; what is done is kept, start again")
                return
            finally:
                if server is not None:
                    with put_off():  # none is left half ended
                        _end(server, grace_s)


def _start(
    command: Command, place: str, url: str, log: Path, unix: bool, environment: Mapping[str, str] | None, grace_s: float
) -> Server:
    guard = _watchdog(grace_s)
    try:
        with guard.stdin as told, open(log, "ab") as output:
            before = output.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                list(command(place)), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, **(environment or {})},
                preexec_fn=functools.partial(_guarded, told.fileno()),
            )  # fmt: skip
    except BaseException:
        _dismiss(guard)
        raise
    return Server(url, place if unix else None, process, log, before, guard)


@contextlib.contextmanager
def _socket_path() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="score-")  # which only this user may enter
    if len(folder) > _LONGEST_SOCKET - len("/socket"):
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="score-", dir="/tmp")
    try:
        yield os.path.join(folder, "socket")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _port(host: str, wanted: int, *, held: bool) -> Iterator[str]:
    with socket.socket(family(host)) as holder:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            holder.bind((host, wanted))
        except OSError as error:
            raise InfrastructureError(f"{host}, port {wanted}: {error.strerror or error}") from None
        port = str(holder.getsockname()[1])
        if not held:
            holder.close()
        yield port


def family(host: str) -> socket.AddressFamily:
    """Of an address or a name: only addresses of version 6 have colons."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def url_of(host: str, port: str) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reached(host: str) -> str:
    """Where this machine reaches a server that listens there."""
    return {"0.0.0.0": _LOOPBACK, "::": "::1"}.get(host, host)


def _watchdog(grace_s: float) -> subprocess.Popen:
    """Even kill -9 of this process leaves nothing of the server behind: it is there first, and is told its number."""
    words = [sys.executable, "-IS", watchdog.__file__, str(os.getpid()), str(grace_s)]
    quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    # In a session of its own, or what ends the server's group would end it, too.
    return subprocess.Popen(words, start_new_session=True, stdin=subprocess.PIPE, **quiet)


def _guarded(told: int) -> None:
    """In the new process, before it becomes the server: tells its number, and asks for TERM when its parent ends.

    The kernel sends that at once, but not to the server's own children, and it may be ignored: hence the watchdog.
    """
    os.write(told, f"{os.getpid()}\n".encode())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _await_health(server: Server, timeout_s: float, *, again: bool) -> bool:
    """False if the server ended since its port was in use, and may be started `again`.

    Raises `InfrastructureError` if it does not get ready.
    """
    deadline = time.monotonic() + timeout_s
    pause = 0.05
    with httpx.Client(transport=httpx.HTTPTransport(uds=server.socket), timeout=_POLL_S) as client:
        while time.monotonic() < deadline:
            if why := server.death():
                if again and server.socket is None and _IN_USE in server.said().lower():
                    return False
                raise InfrastructureError(f"before it was ready {why}")
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"{server.url}/health").status_code == 200:
                    return True
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)
    raise InfrastructureError(f"the server was not ready after {timeout_s:.0f} s; {server.last_lines()}")


def _version(server: Server) -> str | None:
    """What the server says at /version, as vLLM does; None if it says nothing."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=server.socket), timeout=_POLL_S) as client:
        try:
            return str(client.get(f"{server.url}/version").raise_for_status().json()["version"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Where nobody handles SIGTERM, it becomes an exit like any other, which ends the server."""
    if not in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    undo = exit_on_sigterm()
    try:
        yield
    finally:
        undo()


def _end(server: Server, grace_s: float) -> None:
    process = server.process
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
            if sign == signal.SIGTERM:
                continue  # the leader is gone; KILL reaches whatever it left in its group
        if process.poll() is None and sign == signal.SIGKILL:
            raise InfrastructureError(f"server process {process.pid} survives SIGKILL")
    _dismiss(server.watchdog)


def _dismiss(guard: subprocess.Popen) -> None:
    guard.kill()
    guard.wait()
