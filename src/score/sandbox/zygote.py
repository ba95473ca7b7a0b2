"""The sandbox that the harness uses: a warm parent process that forks a confined interpreter for every session.

`ZygotePool` is the host's side of the parent (`worker.py`, which runs in an interpreter and an environment of its own);
`session.ZygoteSession` is the host's side of a forked child; `isolate.py` lists what a child may not do.
When the host dies, even by SIGKILL, the parent notices, and with it go all children.

    with ZygotePool(Limits()) as pool, pool.open({"web_search": search}) as session:
        session.run("print(1 + 1)")
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from score.errors import InfrastructureError, ScoreError
from score.sandbox import frames, isolate, scratch
from score.sandbox.base import Limits, Observation, Tools
from score.sandbox.channel import Channel, Process
from score.sandbox.session import ZygoteSession

PYTHON_VARIABLE = "SCORE_SANDBOX_PYTHON"

_SOURCE = Path(__file__).resolve().parents[2]
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from score.sandbox.worker import main; del sys.path[0]; main()"
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",  # the order of a set in an observation is the same in every run
    "OPENBLAS_NUM_THREADS": "1",  # a process must be single-threaded to be forked, and to enter a namespace
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_VERSIONS = """import platform, numpy, sympy
print("python", platform.python_version(), "numpy", numpy.__version__, "sympy", sympy.__version__)"""
_REPLY_S = 120.0  # the parent's first reply waits for its imports
_STOP_S = 20.0
_CPU_STEPS, _LEAST_CPU_S = 30, 10  # a process may compute as long as so many full steps, but at least this long


def _allow_many_files() -> None:
    """A session needs a descriptor, and so does each of its snapshots: many more than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def own_python() -> str:
    """The interpreter for model-written code: SCORE_SANDBOX_PYTHON, which images set, or that of `make sandbox`.

    Raises `ScoreError` if there is neither.
    """
    python = os.environ.get(PYTHON_VARIABLE) or str(_SOURCE.parent / ".sandbox/bin/python")
    if not os.access(python, os.X_OK):
        raise ScoreError(f"sandbox: no interpreter at {python}; `make sandbox` makes one, or set {PYTHON_VARIABLE}")
    return python


class ZygotePool:
    """Sessions of one set of limits. Thread-safe: sessions may be opened and run from any thread.

    Args:
        python: the interpreter for the model's code; needs numpy and sympy, and nothing of the harness.
        require: layers (`isolate.LAYERS`) without which the pool refuses to start.

    Raises:
        ScoreError: the interpreter cannot start, or a required layer is missing on this system.
    """

    def __init__(self, limits: Limits, python: str = sys.executable, require: tuple[str, ...] = ()) -> None:
        if unknown := set(require) - set(isolate.LAYERS):
            known = ", ".join(isolate.LAYERS)
            raise ScoreError(f"sandbox: unknown layer {min(unknown)!r} in `require`; known: {known}")
        self.limits = limits
        _allow_many_files()
        self._lock = threading.Lock()
        self._scratch = tempfile.mkdtemp(prefix="score-sandbox-")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_REPLY_S)
        # A session's clock starts with its step, so no more steps run at once than the cores can serve in time.
        self._runners = ThreadPoolExecutor(max(8, 4 * len(os.sched_getaffinity(0))), "sandbox")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with theirs:
                self._process = self._start(python, theirs.fileno())
            self.layers, self.versions = self._probe(python)
            if missing := [layer for layer in require if layer not in self.layers]:
                raise ScoreError(f"sandbox: this system does not offer {', '.join(missing)}, which `require` asks for")
        except BaseException:
            self.close()
            raise

    def _start(self, python: str, control: int) -> subprocess.Popen[bytes]:
        settings = {
            "scratch": self._scratch,
            "memory_mb": self.limits.memory_mb,
            "file_mb": self.limits.file_mb,
            "cpu_s": max(_LEAST_CPU_S, math.ceil(_CPU_STEPS * self.limits.timeout_s)),
            "output_chars": self.limits.output_chars,
        }
        program = os.path.abspath(shutil.which(python) or python)  # the parent starts in another folder
        library_path = {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}
        try:
            return subprocess.Popen(
                [program, "-s", "-P", "-c", _BOOT, str(_SOURCE), str(control), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT | library_path,
                cwd=self._scratch,
                pass_fds=(control,),
                start_new_session=True,
            )
        except OSError as problem:
            raise ScoreError(f"sandbox: cannot start the interpreter {python}: {problem.strerror}") from problem

    def _probe(self, python: str) -> tuple[tuple[str, ...], str]:
        """(layers, versions) that a first session has; this also waits for the parent's warm-up."""
        try:
            with self.open() as session:
                self.layers = session.greet()
                return self.layers, session.run(_VERSIONS).text
        except InfrastructureError as problem:
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                raise problem from None  # it lives, so it is not the interpreter that is at fault
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines() or [str(problem)]
            raise ScoreError(f"sandbox: {python} did not start: {said[-1]} (it needs envs/sandbox.in)") from problem

    def open(self, tools: Tools | None = None, *, reversible: bool = False) -> ZygoteSession:
        return ZygoteSession(self, tools or {}, reversible=reversible)

    def run_many(self, work: Sequence[tuple[ZygoteSession, str]]) -> list[Observation | InfrastructureError]:
        """Runs one step of each of several different sessions side by side; tools are called from several threads."""
        steps = [self._runners.submit(session.run, code) for session, code in work]
        return [_outcome(step) for step in steps]

    def spawn(self, tools: Tools, *, reversible: bool) -> Process:
        """Forks an interpreter that knows the tools' names (for `ZygoteSession`)."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as problem:
            raise InfrastructureError(f"sandbox: cannot open a channel: {problem}") from problem
        with theirs:
            reply = self._ask({"do": "open", "tools": list(tools), "reversible": reversible}, theirs.fileno())
        if "problem" in reply:
            raise InfrastructureError(f"sandbox: cannot fork an interpreter: {reply['problem']}")
        channel = self.channel(reply["pid"], ours)
        return Process(channel, group=reply["pid"], folder=reply["folder"], gated=reply["gated"])

    def channel(self, pid: int, ours: socket.socket) -> Channel:
        """Our end of a process's channel."""
        # A character takes at most 12 bytes in ASCII JSON.
        return Channel(pid, ours, 16 * (self.limits.output_chars + frames.MAX_ARGUMENT_CHARS) + 4096)

    def pause(self, group: int, still: bool) -> None:
        """Stops a session's processes, or lets them go on."""
        self._ask({"do": "pause", "group": group, "still": still})

    def let_fork(self, group: int, count: int) -> None:
        """Lets so many forks of a session's processes pass its gate, and none that was allowed before."""
        self._ask({"do": "fork", "group": group, "count": count})

    def let_branch(self, group: int, count: int) -> list[str]:
        """The same for `count` branches; returns their working folders."""
        reply = self._ask({"do": "branch", "group": group, "count": count})
        if "problem" in reply:
            raise InfrastructureError(f"sandbox: cannot make folders for branches: {reply['problem']}")
        return reply["folders"]

    def adopt(self, group: int, pids: list[int], folders: list[str]) -> bool:
        """Makes branches sessions of their own; False if they are not what they say."""
        return "problem" not in self._ask({"do": "adopt", "group": group, "pids": pids, "folders": folders})

    def end(self, group: int, pid: int | None, *, whole: bool, patience_s: float = 0.0) -> int | None:
        """Kills one process of a session, or all of it with its files; the signal that had ended the one before, if
        one had.

        Raises:
            InfrastructureError: there is no such process.
        """
        reply = self._ask({"do": "end", "group": group, "pid": pid, "whole": whole, "patience_s": patience_s})
        if "problem" in reply:
            raise InfrastructureError(f"sandbox: {reply['problem']}")
        return reply["signal"]

    def _ask(self, request: dict[str, object], *descriptors: int) -> dict[str, object]:
        with self._lock:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
                reply = self._control.recv(65536)
            except OSError as problem:
                self._hang_up()
                raise InfrastructureError(f"sandbox: the parent process does not answer: {problem}") from problem
            except BaseException:
                self._hang_up()
                raise
        if not reply:
            raise InfrastructureError("sandbox: the parent process is gone")
        return json.loads(reply)

    def close(self) -> None:
        """Ends all sessions and the parent, and removes their files."""
        self._runners.shutdown(wait=False, cancel_futures=True)
        self._hang_up()
        self._control.close()
        if self._process is not None:
            self._stop(self._process)
        with contextlib.suppress(OSError):  # the parent has removed it, if it could
            scratch.clear(self._scratch)
            os.rmdir(self._scratch)

    def _hang_up(self) -> None:
        """Makes the parent end, even if a fork of ours holds a copy of the socket.

        Needed after an unanswered request, too: its late reply must not be taken for another's.
        """
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the children follow by their parent-death signal
            process.wait()
        process.stderr.close()

    def __enter__(self) -> ZygotePool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _outcome(step: Future[Observation]) -> Observation | InfrastructureError:
    try:
        return step.result()
    except InfrastructureError as problem:
        return problem
