"""Models behind one small protocol. `open_engine` is the one place that knows which kinds there are."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from score.config.schema import Model
from score.engine import gpus, served, vllm
from score.engine.base import Engine
from score.errors import ScoreError
from score.provenance import model_digest
from score.records import content_key

BASE_STUDENT = "micro"
"""The `path` of the micro-world's shipped base student."""


def resolve_path(path: str) -> str:
    """A model folder or hub name; the word "micro" stands for the shipped base student."""
    if path == BASE_STUDENT:
        from score import micro

        return str(Path(micro.__file__).parent / "weights")
    return path


def digest_of(model: Model, path: str | None = None) -> str:
    """What answers for a config entry: a digest of its model's files, with those of the LoRA adapter that is asked.

    Args:
        path: a trained model's folder in place of the entry's own; it is served without adapters.
    """
    own = model_digest(path or resolve_path(model.path or model.engine), model.revision)
    if path is not None or model.adapter is None:
        return own
    return content_key(own, model_digest(model.adapters[model.adapter]))


@contextlib.contextmanager
def open_engine(model: Model, log: Path, *, path: str | None = None, seed: int = 0) -> Iterator[Engine]:
    """The engine of a config entry, started and ended with the `with` block.

    Args:
        log: output of a server that this starts.
        path: a trained model's folder in place of the entry's own.
        seed: the micro-world teacher's random state.
    """
    if model.engine == "transformers":
        from score.engine.transformers import open_transformers

        with open_transformers(model, resolve_path(path or model.path)) as engine:
            yield engine
        return
    from score.engine import openai
    from score.engine.serve import serve

    if model.engine == "endpoint":
        if path is not None:
            raise ScoreError(f"an endpoint at {', '.join(model.urls)} cannot serve the trained model {path}")
        engine = openai.connect(model, model.path or "default")
        served.check_in_job(model)
        yield engine
    elif model.engine == "oracle":
        options = ["--leap", str(model.leap), "--seed", str(seed), "--accuracy", str(model.accuracy)]
        with serve(lambda port: [sys.executable, "-m", "score.micro.server", "--port", port, *options], log) as server:
            yield openai.connect(model, "oracle", server=server)
    else:
        trained, folder = path is not None, resolve_path(path or model.path)
        with (
            gpus.of_this_job().lent(model) as taken,
            serve(
                lambda socket: vllm.command(model, folder, socket, trained=trained), log, unix=True,
                environment=vllm.ENVIRONMENT | gpus.environment(taken), timeout_s=model.start_s,
            ) as server,
        ):  # fmt: skip
            yield openai.connect(model, vllm.name(model, trained=trained), server=server)


def check_gpus(**models: Model) -> None:
    """Raises `ScoreError` if this job lacks GPUs for all these models; else logs who gets which.

    Args:
        models: by role, in the order in which they will be started; called before any is.
    """
    if taking := {who: model for who, model in models.items() if model.own_gpus}:
        job = gpus.of_this_job()
        job.tell(job.shares(taking))


def keep_gpus(own: Model, **others: Model) -> None:
    """Leaves this process the GPUs of the model that it trains, or all but the servers' if that names none.

    To be called before CUDA is first used. Raises and logs as `check_gpus` does, and raises if no GPU is left; without
    a server on GPUs nothing changes.
    """
    if served := {who: model for who, model in others.items() if model.engine == "vllm" and model.gpus}:
        job = gpus.of_this_job()
        job.tell(job.keep(own, served))
