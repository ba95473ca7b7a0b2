"""What runs in a sandboxed child: an interpreter with one lasting namespace, which serves the host to the end.

The model's code shares a process with it, so it can reach into it or write to the channel; all it could forge there is
its own observation. The host trusts no frame further than that. Standard library only.
"""

from __future__ import annotations

import _io
import contextlib
import gc
import io
import os
import random
import select
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from score.sandbox import frames, isolate

CHANNEL = 3
"""The child's end of its session's channel."""
_MOST_FILES = 64  # as `isolate` limits them


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

    def __init__(self, tools: list[str], output_chars: int, layers: tuple[str, ...]) -> None:
        self._layers = layers
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
        self._socket = socket.socket(fileno=CHANNEL)
        self._files = OpenFiles()

    def serve(self) -> NoReturn:
        write({"layers": self._layers})
        while True:
            match frames.read(_read_exactly):
                case {"code": str(code)}:
                    self._run(code)
                case {"snapshot": True}:
                    self._snapshot()
                case {"branch": folders}:
                    self._branch(folders)

    def _run(self, code: str) -> None:
        self._left_behind = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        self._running = True
        reply = self._step(code)
        with self._channel_lock:
            self._running = False
            write(reply)

    def _snapshot(self) -> None:
        """Forks a copy that waits behind a channel of its own for the host to go on from it."""
        (channel,) = self._channels(1)
        try:
            pid = _fork()
        except OSError as problem:
            write({"problem": str(problem)})
        else:
            if pid == 0:
                os.dup2(channel, CHANNEL)
            else:
                write({"pid": pid})
        os.close(channel)

    def _branch(self, folders: list[str]) -> None:
        """Forks independent copies, each with a folder of its own.

        Through a process in between that ends at once, so that the warm parent becomes theirs and can end them.
        """
        channels = self._channels(len(folders))
        try:
            between = _fork()
        except OSError as problem:
            write({"problem": str(problem)})
        else:
            if between == 0:
                self._fork_branches(channels, folders)
                return
            os.waitpid(between, 0)
            write({"done": True})
        for channel in channels:
            os.close(channel)

    def _fork_branches(self, channels: list[int], folders: list[str]) -> None:
        """Returns in the branches only."""
        pids = []
        try:
            while len(pids) < len(folders) and (pid := _fork()):
                pids.append(pid)
        except OSError as problem:
            write({"problem": str(problem)})
            os._exit(1)
        if len(pids) == len(folders):
            write({"pids": pids})
            os._exit(0)
        folder = folders[len(pids)]
        os.dup2(channels[len(pids)], CHANNEL)
        for channel in channels:
            os.close(channel)
        settle(folder)
        if "files" in self._layers and not isolate.restrict_files(os.path.dirname(folder)):
            os._exit(1)
        write({"layers": self._layers})

    def _channels(self, count: int) -> list[int]:
        """The descriptors that the host sends behind a request."""
        _, descriptors, *_ = socket.recv_fds(self._socket, 1, count)
        return descriptors

    def _step(self, code: str) -> dict[str, Any]:
        self._answer, error = None, None
        out = self._out = sys.stdout = _Output(self._output_chars)
        sys.stderr = self._stderr
        try:
            exec(_compiled(code), self._namespace)
        except _Answered:
            pass
        except BaseException as problem:  # SystemExit and KeyboardInterrupt of the code end the step, not the session
            if self._answer is None:
                error = "exception"
                out.line(_last_line(problem))
        if closed := self._files.close_left_open():
            out.line(f"Notice: closed, as it was left open at the end of the step: {', '.join(closed)}")
        return {"text": out.text(), "error": error, "answer": self._answer}

    def _tool(self, name: str) -> Callable[..., str]:
        def tool(*positional: object, **named: object) -> str:
            argument = _only_argument(name, positional, named)
            with self._channel_lock:
                if not self._running or threading.current_thread() in self._left_behind:
                    raise RuntimeError(f"{name}() works only during the step that it was called in")
                write({"call": name, "argument": argument})
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


def _compiled(code: str) -> types.CodeType:
    """Raises the same for the same code under every version of Python, so that a step prints the same everywhere."""
    try:
        return compile(code, "<step>", "exec", dont_inherit=True)
    except UnicodeError:
        raise
    except ValueError as problem:  # a null byte before Python 3.11.4; a SyntaxError since
        raise SyntaxError(str(problem)) from None


class OpenFiles:
    """Sees to it that no file stays open from one step to the next: processes that are forked later would share it."""

    def __init__(self) -> None:
        self._poll = select.poll()
        for number in range(CHANNEL, _MOST_FILES):
            self._poll.register(number, 0)
        self._ours = self._open()

    def close_left_open(self) -> list[str]:
        """Closes what the step left open; returns how to call it."""
        left = self._open() - self._ours
        if not left:
            return []
        names = []
        # Text and buffer layers first, as they hold what is not yet written.
        files = [thing for thing in gc.get_objects() if issubclass(type(thing), _io._IOBase)]
        for kind in (_io._TextIOBase, _io._BufferedIOBase, _io.FileIO):
            for file in files:
                if issubclass(type(file), kind):
                    with contextlib.suppress(Exception):
                        if file.fileno() in left:
                            names.append(str(file.name))
                            file.close()
        rest = self._open() - self._ours
        for number in rest:
            os.close(number)
        return sorted(set(names)) or [f"{len(rest)} descriptor{'s' * (len(rest) > 1)}"]

    def _open(self) -> set[int]:
        closed = {number for number, event in self._poll.poll(0) if event & select.POLLNVAL}
        return set(range(CHANNEL, _MOST_FILES)) - closed


def settle(folder: str) -> None:
    """Makes a folder the current one, and the one for temporary files."""
    os.chdir(folder)
    os.environ["HOME"] = os.environ["TMPDIR"] = folder


def _fork() -> int:
    """os.fork, but the generator of `random` goes on where it was; Python seeds it anew in every child."""
    state = _getstate()
    pid = os.fork()
    if pid == 0:
        _setstate(state)
    return pid


_getstate, _setstate = random.getstate, random.setstate  # the model's code may put others in their place


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
        chunk = os.read(CHANNEL, count - len(data))
        if not chunk:
            os._exit(0)  # the host closed the session
        data += chunk
    return data


def write(frame: dict[str, Any]) -> None:
    data = memoryview(frames.encode(frame))
    while data:
        data = data[os.write(CHANNEL, data) :]
