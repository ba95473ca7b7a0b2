"""The sandbox's warm parent: forks one confined interpreter per session, and ends it; `zygote.ZygotePool` starts it.

It runs under the sandbox's interpreter, which needs only the packages of envs/sandbox.in: nothing of the harness is
imported here but this folder. Where the system allows it, the parent is process 1 of a process namespace, so that
nothing of it can outlive it; `_watch` then stands between it and the host.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from score.sandbox import gate, isolate, scratch
from score.sandbox.interpreter import CHANNEL, Interpreter, settle

_WARM = ("collections", "datetime", "decimal", "fractions", "functools", "itertools", "math", "re", "statistics")
_WORK = "work"  # the working folder's name in a session's folder, beside which its branches have theirs
_WRITABLE = 0o311  # names can be made and removed, but not listed: code of the session's family may be running
_CLOSED = 0o111  # a folder's mode in which names in it can be used, not listed or changed


@dataclass
class _Family:
    """A session's processes, which are one process group: its folder, how many forks may pass."""

    folder: str
    forks: int = 0


class Zygote:
    """Opens, branches and ends sessions at the host's request, and ends them all when the host is gone."""

    def __init__(self, control: socket.socket, settings: dict[str, Any], host: int, layers: tuple[str, ...]) -> None:
        self._control, self._settings, self._host, self._layers = control, settings, host, layers
        self._pid = os.getpid()
        self._families: dict[int, _Family] = {}  # by process group, which has the pid of its first process
        self._opened = 0
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)

    def serve(self) -> None:
        # A fork of the host may keep the socket open after the host's death.
        while not self._stopping and os.getppid() == self._host:
            for descriptor, event in self._poller.poll(1000):
                if descriptor != self._control.fileno():
                    self._judge(descriptor, event)
                elif not self._answer():
                    self._stopping = True
        for group in self._families:
            _kill_group(group)
        for group in list(self._families):
            self._end(group=group, whole=True)
        _remove(self._settings["scratch"])

    def _stop(self, *_signal: object) -> None:
        self._stopping = True

    def _answer(self) -> bool:
        """One request and its reply; False when the host has hung up."""
        message, descriptors, *_ = socket.recv_fds(self._control, 65536, 1)
        if not message:
            return False
        request = json.loads(message)
        action = {
            "open": self._open,
            "fork": self._fork,
            "branch": self._branch,
            "adopt": self._adopt,
            "pause": self._pause,
            "end": self._end,
        }
        try:
            reply = action[request.pop("do")](*descriptors, **request)
        except Exception as problem:  # one session's request must not end the others
            reply = {"problem": str(problem) or repr(problem)}
        self._control.send(json.dumps(reply).encode())
        return True

    def _open(self, channel: int, tools: list[str], reversible: bool) -> dict[str, Any]:
        self._opened += 1
        folder = os.path.join(self._settings["scratch"], str(self._opened))
        listening, sending = socket.socketpair()
        with listening, sending:
            try:
                work = _make_folder(folder)
                pid = os.fork()
                if pid == 0:
                    self._be_child(channel, tools, folder, sending if reversible else None)
            finally:
                os.close(channel)
            with contextlib.suppress(OSError):  # the child does the same; whoever comes first
                os.setpgid(pid, pid)
            self._families[pid] = _Family(folder)
            sending.close()
            listeners = socket.recv_fds(listening, 1, 1)[1] if reversible else []
        for listener in listeners:
            self._poller.register(listener, select.POLLIN)
        return {"pid": pid, "folder": work, "gated": bool(listeners)}

    def _be_child(self, channel: int, tools: list[str], folder: str, listener_to: socket.socket | None) -> NoReturn:
        settings, work = self._settings, os.path.join(folder, _WORK)
        try:
            gated = listener_to is not None and _gate(listener_to)
            os.dup2(channel, CHANNEL)
            os.closerange(CHANNEL + 1, 4096)
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            settle(work)
            scope = folder if gated else work  # branches have their folders beside it
            layers = isolate.confine(
                scope, settings["memory_mb"], settings["file_mb"], settings["cpu_s"], self._pid, gated=gated
            )
            random.seed(0)  # Python seeds it anew in every fork; a replayed prefix has to draw the same numbers
            Interpreter(tools, settings["output_chars"], (*self._layers, *layers)).serve()
        finally:
            os._exit(1)  # whatever happens here must not unwind into the parent's loop

    def _judge(self, listener: int, event: int) -> None:
        """Answers a process that wants to fork."""
        if not event & select.POLLIN:  # the last process behind this gate is gone
            self._poller.unregister(listener)
            os.close(listener)
            return
        asked = gate.waiting(listener)
        if asked is None:
            return
        identity, pid = asked
        family = None
        with contextlib.suppress(ProcessLookupError):
            family = self._families.get(os.getpgid(pid))
        allowed = family is not None and family.forks > 0
        if allowed:
            family.forks -= 1
        gate.answer(listener, identity, allowed=allowed)

    def _pause(self, group: int, still: bool) -> dict[str, Any]:
        os.killpg(group, signal.SIGSTOP if still else signal.SIGCONT)
        return {}

    def _fork(self, group: int, count: int) -> dict[str, Any]:
        """Lets so many forks of a session pass, and no more that it was allowed before."""
        self._families[group].forks = count
        return {}

    def _branch(self, group: int, count: int) -> dict[str, Any]:
        """Lets the forks for `count` branches pass, and makes their folders."""
        family = self._families[group]
        family.forks = count + 1
        folders = []
        with _writable(family.folder):
            for _ in range(count):
                name = os.urandom(16).hex()  # which the other processes of the family cannot guess
                folders.append(_make_folder(os.path.join(family.folder, name)))
        return {"folders": folders}

    def _adopt(self, group: int, pids: list[int], folders: list[str]) -> dict[str, Any]:
        """Makes sessions of their own of branches that have been forked."""
        for pid, folder in zip(pids, folders, strict=True):
            self._check(pid, group)
            os.setpgid(pid, pid)
            self._families[pid] = _Family(os.path.dirname(folder))
        return {}

    def _check(self, pid: int, group: int) -> None:
        """Raises OSError unless `pid`, which a child may have made up, is a child of ours in that group."""
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if os.getpgid(pid) != group:
            raise ProcessLookupError(f"process {pid} is not of session {group}")

    def _end(self, group: int, pid: int | None = None, whole: bool = False, patience_s: float = 0.0) -> dict[str, Any]:
        """Kills one process of a session, or the whole session with its files; replies which signal had ended the one
        before, if any, and if it was not for the CPU time that the session has used.

        A process whose channel has ended is given `patience_s` to finish dying of its own cause. It is looked at before
        it is waited for, so that its pid cannot have passed to another process when the kill comes.
        """
        ended = None
        try:
            if pid is not None:
                self._check(pid, group)
        except OSError:
            if not whole:
                raise
            pid = None  # a number that the child has made up
        if pid is not None:
            give_up = time.monotonic() + patience_s
            look = os.WEXITED | os.WNOHANG | os.WNOWAIT
            while (ended := os.waitid(os.P_PID, pid, look)) is None and time.monotonic() < give_up:
                time.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
        if whole:
            _kill_group(group)
        used_s = 0.0
        if pid is not None:
            usage = os.wait4(pid, 0)[2]
            used_s = usage.ru_utime + usage.ru_stime
        with contextlib.suppress(ChildProcessError):  # no more of them
            while os.waitid(os.P_PGID, group, os.WEXITED | (0 if whole else os.WNOHANG)):
                pass
        if whole:
            _clear(self._families.pop(group).folder, self._settings["scratch"])
        by_signal = ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        return {"signal": ended.si_status if by_signal and used_s < self._settings["cpu_s"] - 1 else None}


def _gate(listener_to: socket.socket) -> bool:
    """Gates this process and hands the descriptor to listen on to the parent; False where the kernel has no gates."""
    isolate.forbid_new_privileges()
    listener = gate.install()
    if listener is None:
        listener_to.send(b"-")
        return False
    socket.send_fds(listener_to, [b"+"], [listener])
    return True


def _make_folder(folder: str) -> str:
    """A session's folder, in which only its working folder, which is returned, can be listed and written."""
    work = os.path.join(folder, _WORK)
    os.makedirs(work)
    os.chmod(folder, _CLOSED)
    return work


def _kill_group(group: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(group, signal.SIGKILL)


def _clear(folder: str, top: str) -> None:
    """Removes a session's files, and the folders above them that no branch needs any more."""
    with _writable(folder):
        _remove(os.path.join(folder, _WORK))
    with contextlib.suppress(OSError):
        while (above := os.path.dirname(folder)) != top:
            with _writable(above):
                os.rmdir(folder)
            folder = above
        os.rmdir(folder)


@contextlib.contextmanager
def _writable(folder: str) -> Iterator[None]:
    os.chmod(folder, _WRITABLE)
    try:
        yield
    finally:
        os.chmod(folder, _CLOSED)


def _remove(folder: str) -> None:
    with contextlib.suppress(OSError):  # the host tries again, when all is over
        scratch.clear(folder)
        os.rmdir(folder)


def _warm() -> None:
    """Imports what steps use; exercises sympy once, so that all children share its lazy imports and caches."""
    for module in _WARM:
        importlib.import_module(module)
    import numpy
    import sympy

    x = sympy.Symbol("x")
    sympy.solve([x**2 - 1], x)
    sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)
    numpy.random.seed(0)
    gc.collect()
    gc.freeze()  # keeps the collector of the children from touching, and so copying, shared pages


def _watch(parent: int, host: int) -> int:
    """Waits, outside the namespace, for the warm parent's end, and tells it when the host is gone; its exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        pid, status = os.waitpid(parent, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if os.getppid() != host:
            os.kill(parent, signal.SIGTERM)
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)


def main() -> None:
    """`argv`: the control socket's descriptor, then the settings as JSON."""
    control = socket.socket(fileno=int(sys.argv[2]))
    settings = json.loads(sys.argv[3])
    sys.argv = [""]
    host = os.getppid()
    layers = isolate.enter_namespaces()
    if "own_processes" in layers:
        outside = os.getpid()
        pid = os.fork()
        if pid:
            control.close()
            sys.exit(_watch(pid, host))
        isolate.die_with_parent(outside)
        host = 0  # what a process without a parent in its namespace sees
    else:
        isolate.adopt_orphans()
    zygote = Zygote(control, settings, host, layers)
    _warm()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)  # the start's messages went to the host; what C code prints later concerns nobody
    os.close(null)
    zygote.serve()
