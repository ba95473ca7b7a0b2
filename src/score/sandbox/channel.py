"""Frames to and from one sandboxed process, and the host's record of the process behind them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from score.sandbox import frames, scratch


class TimedOut(Exception):
    """The deadline passed."""


class Lost(Exception):
    """The interpreter is gone, or sent something that is no frame."""


class Channel:
    """Frames to and from one child, each operation up to a deadline (of time.monotonic)."""

    def __init__(self, pid: int, ours: socket.socket, max_bytes: int) -> None:
        self.pid = pid
        self._socket = ours
        self._max_bytes = max_bytes

    def send(self, frame: dict[str, Any], deadline: float) -> None:
        data = frames.encode(frame)
        with self._until(deadline):
            self._socket.sendall(data)

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
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise EOFError("the channel ended")
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
    layers: tuple[str, ...] | None = None  # once it has said that it is ready
    snapshots: dict[int, tuple[Channel, tuple[scratch.Entry, ...]]] = field(default_factory=dict)  # by step
