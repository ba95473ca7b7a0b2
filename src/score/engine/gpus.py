"""The GPUs that a job was given, dealt out to the servers that it starts.

A job may start two: a teacher and a student, or a trainer and its judge. Each sees its own GPUs and no others, by
CUDA_VISIBLE_DEVICES, whose entries (indices, UUIDs, MIG names) are passed on as they are. `divide` alone says who gets
which; what is logged, what `score doctor` tells ahead of time and what servers get all come from it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from score.config.schema import Model
from score.errors import ScoreError

log = logging.getLogger("gpus")

VARIABLE = "CUDA_VISIBLE_DEVICES"
_GPU = re.compile(r"\d+|(GPU|MIG)-.+")

Shares = dict[str, tuple[str, ...]]
"""Who gets which GPUs."""


def divide(free: Sequence[str], wanted: Mapping[str, int]) -> Shares:
    """Deals GPUs out from the front, in the order in which those that want some are named.

    Raises `ScoreError` if there are not enough for all of them at once.
    """
    total = sum(wanted.values())
    if total > len(free):
        split = f" ({', '.join(f'{who} {count}' for who, count in wanted.items())})" if len(wanted) > 1 else ""
        raise ScoreError(
            f"models: {total} GPUs{split} are wanted, {len(free)} are there; lower `gpus` in the config or ask for more"
        )
    rest = iter(free)
    return {who: tuple(itertools.islice(rest, count)) for who, count in wanted.items()}


class Gpus:
    """GPUs that are not in use."""

    def __init__(self, visible: Sequence[str]) -> None:
        self.visible, self._free = tuple(visible), list(visible)

    def shares(self, models: Mapping[str, Model]) -> Shares:
        """What each will be lent if they ask in this order; a job looks before it starts any. Raises as `divide`."""
        return divide(self._free, {who: model.own_gpus for who, model in models.items()})

    @contextlib.contextmanager
    def lent(self, model: Model) -> Iterator[tuple[str, ...]]:
        """As many as the model takes, for the time of a `with` block. Raises as `divide` does."""
        (taken,) = self.shares({"server": model}).values()
        del self._free[: len(taken)]
        try:
            yield taken
        finally:
            self._free[:0] = taken

    def device(self, taken: Sequence[str]) -> str:
        """What torch calls the first of these in this process, which sees them all."""
        return f"cuda:{self.visible.index(taken[0])}" if taken else "cuda"

    def keep(self, model: Model, others: Mapping[str, Model]) -> Shares:
        """Takes a model's GPUs for this process itself, for good; to be called before CUDA is first used in it.

        A model that names none gets what the others leave. Raises `ScoreError` if that is nothing, or as `divide` does.
        """
        wanted = {who: other.gpus for who, other in others.items()}
        count = model.gpus or max(len(self._free) - sum(wanted.values()), 0)
        shares = divide(self._free, {"training": count, **wanted})
        if count == 0:
            raise ScoreError(
                f"models: the judge's server takes all {len(self._free)} GPUs, which leaves none to train on; "
                "say how many the trained model takes with its `gpus`, or ask for more"
            )
        del self._free[:count]
        os.environ[VARIABLE] = ",".join(shares["training"])
        return shares

    def tell(self, shares: Shares) -> None:
        """One line in the job's log: who gets which."""
        dealt = {name for taken in shares.values() for name in taken}
        left = [name for name in self.visible if name not in dealt]
        if os.environ.get("RANK", "0") == "0":  # of several processes that train together, one
            log.info("GPUs: %s%s", told(shares), f"; left: {','.join(left)}" if left else "")


def told(shares: Shares) -> str:
    """Who gets which, in one line."""
    return "; ".join(f"{who} {VARIABLE}={','.join(taken)}" for who, taken in shares.items())


@functools.cache
def of_this_job() -> Gpus:
    """The GPUs that this process could use when it first asked."""
    return Gpus(visible(os.environ))


def visible(environ: Mapping[str, str]) -> list[str]:
    """The GPUs of CUDA_VISIBLE_DEVICES, or all of the machine if it is not set.

    As for CUDA, an entry that names none (-1, SLURM's NoDevFiles) hides itself and all that follow.
    """
    if VARIABLE not in environ:
        return _all()
    names = [name.strip() for name in environ[VARIABLE].split(",") if name.strip()]
    return list(itertools.takewhile(_GPU.fullmatch, names))


def environment(taken: Sequence[str]) -> dict[str, str]:
    """What a server's environment says about its GPUs; nothing for a model that takes none."""
    return {VARIABLE: ",".join(taken)} if taken else {}


def _all() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.splitlines() if line.strip()]
