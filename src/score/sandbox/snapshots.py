"""The host's side of forks: asks an interpreter for a snapshot of itself, and a snapshot for branches.

Whoever answers has run the model's code: what is not the answer asked for is `Lost`, and a process number is only a
claim, which the warm parent checks before it acts on it.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from score.sandbox import scratch
from score.sandbox.channel import Lost, Process

if TYPE_CHECKING:
    from score.sandbox.zygote import ZygotePool

MOST_AT_ONCE = 32
"""Branches of one request; a process may have 64 descriptors."""
_ANSWER_S = 10.0
_MOST_PID = 1 << 22  # of any Linux


def take(pool: ZygotePool, process: Process, step: int) -> None:
    """Keeps the state before `step`, if the folder is not too full and the system has room for a fork.

    Raises:
        TimedOut, Lost: what an earlier step has left behind has ended or changed the interpreter.
    """
    kept = sum(len(entry.content) for _, entries in process.snapshots.values() for entry in entries)
    try:
        files = scratch.keep(process.folder, scratch.MOST_KEPT - kept)
    except scratch.TooMuch:
        return
    deadline = time.monotonic() + _ANSWER_S
    try:
        ours, theirs = socket.socketpair()
    except OSError:  # too many are open
        return
    taken = False
    try:
        with theirs:
            pool.let_fork(process.group, 1)
            process.channel.send({"snapshot": True}, deadline)
            process.channel.send_channels([theirs], deadline)
        match process.channel.receive(deadline):
            case {"pid": pid} if _may_be(pid):
                process.snapshots[step] = (pool.channel(pid, ours), files)
                taken = True
            case {"problem": str()}:
                pass
            case _:
                raise Lost("no answer to a request for a snapshot")
    finally:
        if not taken:
            ours.close()
            pool.let_fork(process.group, 0)


def fork(pool: ZygotePool, process: Process, step: int, count: int) -> list[Process]:
    """`count` branches of a snapshot, or none, and then the snapshot is given up: it does not answer as it should.

    Raises:
        TimedOut, Lost: as `take` does; the snapshot is given up, too.
    """
    channel, files = process.snapshots[step]
    folders = pool.let_branch(process.group, count)
    pairs: list[tuple[socket.socket, socket.socket]] = []
    deadline = time.monotonic() + _ANSWER_S
    adopted = False
    try:
        for folder in folders:
            scratch.put_back(folder, files)
            pairs.append(socket.socketpair())
        channel.send({"branch": folders}, deadline)
        channel.send_channels([theirs for _, theirs in pairs], deadline)
        match channel.receive(deadline):
            case {"pids": [*pids]} if len(pids) == count and all(map(_may_be, pids)):
                done = channel.receive(deadline) == {"done": True}
                adopted = done and pool.adopt(process.group, pids, folders)
    except OSError as problem:
        raise Lost(f"no place for branches: {problem}") from problem
    finally:
        for _, theirs in pairs:
            theirs.close()
        if not adopted:
            process.snapshots.pop(step)[0].close()
            for ours, _ in pairs:
                ours.close()
            pool.let_fork(process.group, 0)
    if not adopted:
        return []
    return [
        Process(pool.channel(pid, ours), group=pid, folder=folder, gated=True, branched=True)
        for pid, folder, (ours, _) in zip(pids, folders, pairs, strict=True)
    ]


def _may_be(pid: object) -> bool:
    return type(pid) is int and 0 < pid <= _MOST_PID
