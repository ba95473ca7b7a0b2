"""The gate for forks: a confined process may fork only when its warm parent, asked by the host, lets the fork pass.

A snapshot is a fork of an interpreter that model-written code has run in, so forking cannot simply be allowed there. A
seccomp filter hands every fork to whoever listens on the filter's descriptor, which is the warm parent; the forking
process waits for the answer. The register that holds the call's flags cannot be changed meanwhile, so the answer is
about the fork that was asked for. Needs Linux 5.5; on an older one `install` returns None and nothing is gated.
Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from score.sandbox.isolate import (
    ALLOW,
    ANSWER,
    ARCHITECTURE_AT,
    ARGUMENT0_AT,
    CLONE_THREAD,
    EQUAL,
    HAS_BIT,
    LOAD,
    MACHINES,
    NUMBER_AT,
    Line,
    packed,
)

_ASK = (ANSWER, 0, 0, 0x7FC00000)  # SECCOMP_RET_USER_NOTIF
_CLONE = (56, 220)
_SECCOMP = (317, 277)
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_CONTINUE = 1
_NOTIFICATION, _RESPONSE = struct.Struct("QII64x"), struct.Struct("QqiI")


def program(column: int, architecture: int) -> list[Line]:
    """Asks about every clone that makes a process. Other architectures' calls are the other filter's affair."""
    return [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 0, 5, architecture),
        (LOAD, 0, 0, NUMBER_AT),
        (EQUAL, 0, 3, _CLONE[column]),
        (LOAD, 0, 0, ARGUMENT0_AT),
        (HAS_BIT, 1, 0, CLONE_THREAD),
        _ASK,
        ALLOW,
    ]


def install() -> int | None:
    """Gates this process and its descendants; returns the descriptor to listen on, or None where there is none."""
    if os.uname().machine not in MACHINES:
        return None
    column, architecture = MACHINES[os.uname().machine]
    filter_, _code = packed(program(column, architecture))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SECCOMP[column])
    descriptor = libc.syscall(number, ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_NEW_LISTENER), filter_)
    return descriptor if descriptor >= 0 else None


def waiting(listener: int) -> tuple[int, int] | None:
    """(id, pid) of a fork that waits for an answer; None if its process has died meanwhile."""
    notification = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notification)
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    identity, pid, _flags = _NOTIFICATION.unpack(notification)
    return identity, pid


def answer(listener: int, identity: int, *, allowed: bool) -> None:
    """Lets a fork happen, or fail with EPERM."""
    response = _RESPONSE.pack(identity, 0, 0 if allowed else -errno.EPERM, _CONTINUE if allowed else 0)
    try:
        fcntl.ioctl(listener, _SEND, bytearray(response))
    except OSError as problem:
        if problem.errno != errno.ENOENT:  # its process has died meanwhile
            raise
