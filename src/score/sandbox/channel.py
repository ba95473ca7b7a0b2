"""Frames to and from one sandboxed process, and the host's record of the process behind them."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from score.sandbox import frames, scratch

_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_CREDENTIALS_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)


class TimedOut(Exception):
    """The deadline passed."""


class Lost(Exception):
    """The interpreter is gone, or sent something that is no frame."""


class Channel:
    """Frames to and from one child, each operation up to a deadline (of time.monotonic)."""

    def __init__(self, pid: int, ours: socket.socket, max_bytes: int) -> None:
        self.pid = pid
        self.sender: int | None = None
        """Our number of the process that wrote the latest frame, as the kernel says; `pid` is the parent's number."""
        self._socket = ours
        self._max_bytes = max_bytes
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._arrival = select.poll()
        self._arrival.register(ours, select.POLLIN)

    def send(self, frame: dict[str, Any], deadline: float) -> None:
        data = frames.encode(frame)
        with self._until(deadline):
            self._socket.sendall(data)

    def wait(self, seconds: float) -> bool:
        """Whether something to receive, or the end, arrives within so many seconds."""
        return bool(self._arrival.poll(1000 * seconds))

    def receive(self, deadline: float) -> Any:
        with self._until(deadline):
            return frames.read(lambda count: self._read_exactly(count, deadline), self._max_bytes)

    def send_channels(self, channels: Sequence[socket.socket], deadline: float) -> None:
        """Hands over the other ends of new channels, behind the request that they are for."""
        with self._until(deadline):
            socket.send_fds(self._socket, [b"+"], [channel.fileno() for channel in channels])

    def _read_exactly(self, count: int, deadline: float) -> bytes:
        data = b""
        while len(data) < count:
            chunk, said, *_ = self._socket.recvmsg(count - len(data), _CREDENTIALS_SPACE)
            if not chunk:
                raise EOFError("the channel ended")
            if said:
                self.sender = _CREDENTIALS.unpack(said[0][2])[0]
            data += chunk
            self._socket.settimeout(_left(deadline))
        return data

    @contextlib.contextmanager
    def _until(self, deadline: float) -> Iterator[None]:
        try:
            self._socket.settimeout(_left(deadline))
            yield
        except TimeoutError as problem:
            raise TimedOut from problem
        except (EOFError, OSError, ValueError) as problem:
            raise Lost(str(problem)) from problem

    def close(self) -> None:
        self._socket.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@dataclass
class Process:
    """A session's interpreter: its process group, its working folder, whether it can be forked."""

    channel: Channel
    group: int
    folder: str
    gated: bool
    branched: bool = False  # forked from one that has run the model's code: its greeting proves nothing
    layers: tuple[str, ...] | None = None  # once it has said that it is ready
    paused: bool = False
    snapshots: dict[int, tuple[Channel, tuple[scratch.Entry, ...]]] = field(default_factory=dict)  # by step
