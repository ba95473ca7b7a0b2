"""The sandbox's own side: a warm parent that forks one confined interpreter per session; `zygote.ZygotePool` starts it.

It runs under the sandbox's interpreter, which needs only numpy and sympy: nothing of the harness is imported here but
`frames` and `isolate`. The model's code shares a process with `Interpreter`, so it can reach into it or write to the
channel; all it could forge there is its own observation. The host trusts no frame further than that.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import random
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from score.sandbox import frames, isolate

_CHANNEL = 3  # the child's end of its session's channel
_WARM = ("collections", "datetime", "decimal", "fractions", "functools", "itertools", "math", "re", "statistics")


class _Answered(BaseException):
    """Ends a step at final_answer_print; not an Exception, so that `except Exception` does not catch it."""


class _Output(io.TextIOBase):
    """Standard output in bounded memory: the first and the last characters up to `limit` in all."""

    def __init__(self, limit: int) -> None:
        self._head_chars, self._limit = limit // 2, limit
        self._head = self._tail = ""
        self._total = 0
        self._frozen = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._frozen:
            return len(text)
        room = self._head_chars - len(self._head)
        keep = self._limit - self._head_chars
        self._head += text[:room]
        self._tail = (self._tail + text[room:][-keep:])[-keep:]
        self._total += len(text)
        return len(text)

    def freeze(self) -> None:
        self._frozen = True

    def line(self, text: str) -> None:
        """Adds a line of its own."""
        written = self._tail or self._head
        self.write(text if not written or written.endswith("\n") else f"\n{text}")

    def text(self) -> str:
        dropped = self._total - self._limit
        if dropped <= 0:
            return (self._head + self._tail).rstrip("\n")
        return f"{self._head}\n... [{dropped} characters left out] ...\n{self._tail}".rstrip("\n")


class Interpreter:
    """Runs steps in one lasting namespace and serves the host's requests until the channel ends."""

    def __init__(self, tools: list[str], output_chars: int) -> None:
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module  # where pickle and dataclasses look for what the code defines
        self._namespace = module.__dict__
        self._namespace.update({name: self._tool(name) for name in tools})
        self._namespace["final_answer_print"] = self._final_answer_print
        self._output_chars = output_chars
        self._stderr = open(os.devnull, "w")  # noqa: SIM115  (lives as long as the process)
        self._channel_lock = threading.Lock()  # the code's own threads may call tools, too
        self._running = False
        self._left_behind: list[threading.Thread] = []  # threads of earlier steps; objects, as a dead one's id returns
        self._answer: str | None = None

    def serve(self) -> NoReturn:
        while True:
            request = frames.read(_read_exactly)
            self._left_behind = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
            self._running = True
            reply = self._step(request["code"])
            with self._channel_lock:
                self._running = False
                _write(reply)

    def _step(self, code: str) -> dict[str, Any]:
        self._answer, error = None, None
        out = self._out = sys.stdout = _Output(self._output_chars)
        sys.stderr = self._stderr
        try:
            exec(compile(code, "<step>", "exec", dont_inherit=True), self._namespace)
        except _Answered:
            pass
        except BaseException as problem:  # SystemExit and KeyboardInterrupt of the code end the step, not the session
            if self._answer is None:
                error = "exception"
                out.line(_last_line(problem))
        return {"text": out.text(), "error": error, "answer": self._answer}

    def _tool(self, name: str) -> Callable[..., str]:
        def tool(*positional: object, **named: object) -> str:
            argument = _only_argument(name, positional, named)
            with self._channel_lock:
                if not self._running or threading.current_thread() in self._left_behind:
                    raise RuntimeError(f"{name}() works only during the step that it was called in")
                _write({"call": name, "argument": argument})
                reply = frames.read(_read_exactly)
            if "refusal" in reply:
                raise RuntimeError(reply["refusal"])
            return reply["result"]

        tool.__name__ = tool.__qualname__ = name
        return tool

    def _final_answer_print(self, *positional: object, **named: object) -> None:
        answer = _only_argument("final_answer_print", positional, named)
        if self._answer is None:  # a bare `except:` may catch the end of the step and come here a second time
            print(answer)
            self._answer = answer
            self._out.freeze()
        raise _Answered


def _only_argument(name: str, positional: tuple[object, ...], named: dict[str, object]) -> str:
    """The text of a tool's one argument, under whatever name the model's code passes it."""
    values = (*positional, *named.values())
    if len(values) != 1:
        raise TypeError(f"{name}() takes exactly one argument ({len(values)} given)")
    text = str(values[0])
    if len(text) > frames.MAX_ARGUMENT_CHARS:
        raise ValueError(f"{name}() takes at most {frames.MAX_ARGUMENT_CHARS} characters ({len(text)} given)")
    return text


def _last_line(problem: BaseException) -> str:
    try:
        return traceback.format_exception_only(problem)[-1].strip()
    except BaseException:  # a hostile or broken __str__ of the code's own exception class
        return type(problem).__name__


def _read_exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = os.read(_CHANNEL, count - len(data))
        if not chunk:
            os._exit(0)  # the host closed the session
        data += chunk
    return data


def _write(frame: dict[str, Any]) -> None:
    data = memoryview(frames.encode(frame))
    while data:
        data = data[os.write(_CHANNEL, data) :]


class Zygote:
    """The warm parent: opens and ends sessions at the host's request, and ends them all when the host is gone."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self._control, self._settings = control, settings
        self._host, self._pid = os.getppid(), os.getpid()
        self._folders: dict[int, str] = {}  # of the living children, by pid
        self._opened = 0
        self._inherited = ("namespaces",) if isolate.enter_namespaces() else ()

    def serve(self) -> None:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        while os.getppid() == self._host:  # a fork of the host may keep the socket open after the host's death
            if not poller.poll(1000):
                continue
            message, descriptors, *_ = socket.recv_fds(self._control, 65536, 1)
            if not message:
                break
            request = json.loads(message)
            reply = self._open(descriptors[0], request["tools"]) if "tools" in request else self._end(**request)
            self._control.send(json.dumps(reply).encode())
        for pid in self._folders:
            _kill(pid)
        for pid in list(self._folders):
            self._end(pid)
        _remove(self._settings["scratch"])

    def _open(self, channel: int, tools: list[str]) -> dict[str, Any]:
        self._opened += 1
        folder = os.path.join(self._settings["scratch"], str(self._opened))
        try:
            os.mkdir(folder)
            pid = os.fork()
            if pid == 0:
                self._be_child(channel, tools, folder)
        except OSError as problem:
            return {"problem": str(problem)}
        finally:
            os.close(channel)
        with contextlib.suppress(OSError):  # the child does the same; whoever comes first
            os.setpgid(pid, pid)
        self._folders[pid] = folder
        return {"pid": pid}

    def _be_child(self, channel: int, tools: list[str], folder: str) -> NoReturn:
        settings = self._settings
        try:
            os.dup2(channel, _CHANNEL)
            os.closerange(_CHANNEL + 1, 4096)
            os.setpgid(0, 0)
            os.chdir(folder)
            os.environ["HOME"] = os.environ["TMPDIR"] = folder
            layers = isolate.confine(folder, settings["memory_mb"], settings["file_mb"], parent=self._pid)
            random.seed(0)  # Python seeds it anew in every fork; a replayed prefix has to draw the same numbers
            _write({"layers": [*self._inherited, *layers]})
            Interpreter(tools, settings["output_chars"]).serve()
        finally:
            os._exit(1)  # whatever happens here must not unwind into the parent's loop

    def _end(self, pid: int, patience_s: float = 0.0) -> dict[str, Any]:
        """Kills a child with its process group, removes its folder; replies which signal had ended it before, if any.

        A child whose channel has ended is given `patience_s` to finish dying of its own cause. It is looked at before
        it is waited for, so that its pid cannot have passed to another process when the kill comes.
        """
        give_up = time.monotonic() + patience_s
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while (ended := os.waitid(os.P_PID, pid, look)) is None and time.monotonic() < give_up:
            time.sleep(0.001)
        _kill(pid)
        os.waitpid(pid, 0)
        _remove(self._folders.pop(pid))
        by_signal = ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        return {"signal": ended.si_status if by_signal else None}


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _remove(folder: str) -> None:
    with contextlib.suppress(RecursionError):  # thousands of nested folders, made on purpose: left to the system
        shutil.rmtree(folder, ignore_errors=True)


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


def main() -> None:
    """`argv`: the control socket's descriptor, then the settings as JSON."""
    control = socket.socket(fileno=int(sys.argv[2]))
    settings = json.loads(sys.argv[3])
    sys.argv = [""]
    zygote = Zygote(control, settings)
    _warm()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)  # the start's messages went to the host; what C code prints later concerns nobody
    os.close(null)
    zygote.serve()
