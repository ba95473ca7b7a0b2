"""The GPUs that a job was given, dealt out to the servers that it starts.

A job may start two: a teacher and a student, or a trainer and its judge. Each sees its own GPUs and no others, by
CUDA_VISIBLE_DEVICES, whose entries (indices, UUIDs, MIG names) are passed on as they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from score.config.schema import Model
from score.errors import ScoreError

VARIABLE = "CUDA_VISIBLE_DEVICES"


class Gpus:
    """GPUs that are not in use."""

    def __init__(self, visible: Sequence[str]) -> None:
        self.visible, self._free = tuple(visible), list(visible)

    def check(self, *models: Model) -> None:
        """Raises `ScoreError` if there are not enough for all of these at once; a job asks before it starts any."""
        wanted = [model.gpus for model in models]
        if sum(wanted) > len(self._free):
            split = f" ({' + '.join(map(str, wanted))})" if len(wanted) > 1 else ""
            raise ScoreError(
                f"models: {sum(wanted)} GPUs{split} are wanted, {len(self._free)} are there; "
                "lower `gpus` in the config or ask for more"
            )

    @contextlib.contextmanager
    def lent(self, model: Model) -> Iterator[tuple[str, ...]]:
        """As many as the model takes, for the time of a `with` block. Raises as `check` does."""
        self.check(model)
        taken = tuple(self._free[: model.gpus])
        del self._free[: model.gpus]
        try:
            yield taken
        finally:
            self._free[:0] = taken

    def device(self, taken: Sequence[str]) -> str:
        """What torch calls the first of these in this process, which sees them all."""
        return f"cuda:{self.visible.index(taken[0])}" if taken else "cuda"

    def keep(self, model: Model, *others: Model) -> None:
        """Takes a model's GPUs for this process itself, for good; to be called before CUDA is first used in it.

        A model that names none gets what the others leave. Raises `ScoreError` if that is nothing, or as `check` does.
        """
        self.check(model, *others)
        count = model.gpus or len(self._free) - sum(other.gpus for other in others)
        if count == 0:
            raise ScoreError(
                f"models: the judge's server takes all {len(self._free)} GPUs, which leaves none to train on; "
                "say how many the trained model takes with its `gpus`, or ask for more"
            )
        own, self._free = self._free[:count], self._free[count:]
        os.environ[VARIABLE] = ",".join(own)


@functools.cache
def of_this_job() -> Gpus:
    """The GPUs that this process could use when it first asked."""
    return Gpus(visible(os.environ))


def visible(environ: Mapping[str, str]) -> list[str]:
    """The GPUs of CUDA_VISIBLE_DEVICES, or all of the machine if it is not set.

    As for CUDA, an entry of -1 hides itself and all that follow.
    """
    if VARIABLE not in environ:
        return _all()
    names = [name.strip() for name in environ[VARIABLE].split(",") if name.strip()]
    return names[: names.index("-1")] if "-1" in names else names


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
