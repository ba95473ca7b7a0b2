"""How host and sandboxed child talk: JSON objects, each behind its length as four bytes.

JSON and not pickle, since one side is untrusted. Standard library only: the sandbox's own interpreter imports this too.
Host to child:  {"code": ...} | {"result": ...} | {"refusal": ...} | {"snapshot": true} | {"branch": folders}
Child to host:  {"layers": [...]} once, also from each branch; then for each step any number of
                {"call": name, "argument": ...} and one {"text": ..., "error": ..., "answer": ...}; for a snapshot
                {"pid": ...} or {"problem": ...}; for branches {"pids": [...]} or {"problem": ...}, then {"done": true}
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

MAX_ARGUMENT_CHARS = 20_000
"""Longest argument of a tool and longest answer; a longer one is a ValueError in the model's code."""

_LENGTH = struct.Struct(">I")


def encode(frame: dict[str, Any]) -> bytes:
    payload = json.dumps(frame).encode("ascii")
    return _LENGTH.pack(len(payload)) + payload


def read(read_exactly: Callable[[int], bytes], max_bytes: int | None = None) -> Any:
    """The next frame. Raises ValueError if it is longer than `max_bytes` or not JSON, and what the reader raises."""
    (length,) = _LENGTH.unpack(read_exactly(_LENGTH.size))
    if max_bytes is not None and length > max_bytes:
        raise ValueError(f"a frame of {length} bytes, at most {max_bytes} are allowed")
    try:
        return json.loads(read_exactly(length))
    except RecursionError:
        raise ValueError("a frame nested too deeply") from None
