"""Several processes that train one model: who writes, what all of them learn, and how their failures become one.

All of this is for a single process too, which is then the main one and has nobody to wait for. `score.train.launch`
starts the others. What they hold of the model depends on the sharding: all of it (ddp), or a part (fsdp2, zero3), in
which case every forward pass needs every process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from score.errors import InfrastructureError, ScoreError
from score.shards import Shard

T = TypeVar("T")

PATIENCE = timedelta(hours=4)
"""How long processes wait for one of them: a judge's server starts, a last episode ends. One that dies ends all."""


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Does this process write, log and ask the judge?"""
    return number() == 0


def shard() -> Shard:
    """This process's share of work that can be dealt out."""
    return Shard(number() + 1, count())


def sharding() -> str:
    """How the model is spread over processes; "" where each has the whole of it."""
    if count() == 1:
        return ""
    words = {"ACCELERATE_USE_FSDP": "fsdp2", "ACCELERATE_USE_DEEPSPEED": "zero3"}
    return next((word for name, word in words.items() if os.environ.get(name, "").lower() == "true"), "")


def facts() -> dict[str, int | str]:
    """For the provenance."""
    return {"processes": count(), "sharding": sharding()}


def start() -> None:
    """Joins the other processes; to be called before a model is loaded, so that one alone reads its weights."""
    if not is_main():
        logging.getLogger().setLevel(logging.WARNING)
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def gathered(rows: Sequence[T]) -> list[T]:
    """The rows of all processes, in their order, on each of them."""
    return [row for part in _from_all(list(rows)) for row in part]


def agreed(make: Callable[[], T]) -> T:
    """What this process makes. A `ScoreError` or `InfrastructureError` of any of them is raised in all."""
    outcome = _outcome(make)
    for theirs in _from_all(outcome if isinstance(outcome, Exception) else None):
        if theirs is not None:
            raise theirs
    return outcome


def from_main(make: Callable[[], T]) -> T:
    """What the main process makes, on each of them; so are its `ScoreError` and `InfrastructureError`."""
    box = [_outcome(make) if is_main() else None]
    if count() > 1:
        dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], ScoreError | InfrastructureError):
        raise box[0]
    return box[0]


class Rounds:
    """Generation by processes that hold parts of one model, though their episodes differ in number and length.

    Each call of `generate` is a round of all: `enter` before it, and leave the `with` block when no episode is left; a
    process that is there first joins the others' rounds with idle calls.
    """

    def __init__(self, idle: Callable[[], object]) -> None:
        self._idle, self._shared = idle, bool(sharding())

    def enter(self) -> None:
        if self._shared:
            _any(True)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, ScoreError | InfrastructureError):
            return  # this process ends, and with it the others
        while self._shared and _any(False):
            self._idle()


def _outcome(make: Callable[[], T]) -> T | Exception:
    try:
        return make()
    except (ScoreError, InfrastructureError) as error:
        return error


def _from_all(value: T) -> list[T]:
    if count() == 1:
        return [value]
    found: list = [None] * count()
    dist.all_gather_object(found, value)
    return found


def _any(value: bool) -> bool:
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    flag = torch.tensor(int(value), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())
