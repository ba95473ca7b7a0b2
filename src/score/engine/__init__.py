"""Models behind one small protocol. `open_engine` is the one place that knows which kinds there are."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from score.config.schema import Model
from score.engine.base import Engine
from score.errors import ScoreError

BASE_STUDENT = "micro"
"""The `path` of the micro-world's shipped base student."""


def resolve_path(path: str) -> str:
    """A model folder or hub name; the word "micro" stands for the shipped base student."""
    if path == BASE_STUDENT:
        from score import micro

        return str(Path(micro.__file__).parent / "weights")
    return path


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
            raise ScoreError(f"an endpoint at {model.url} cannot serve the trained model {path}")
        yield openai.connect(model, model.url, model.path or "default", key=openai.endpoint_key(model))
    elif model.engine == "oracle":
        options = ["--leap", str(model.leap), "--seed", str(seed), "--accuracy", str(model.accuracy)]
        with serve(
            lambda port: [sys.executable, "-m", "score.micro.server", "--port", str(port), *options], log
        ) as url:
            yield openai.connect(model, f"{url}/v1", "oracle")
    else:
        with serve(lambda port: vllm_command(model, path, port), log, timeout_s=1800) as url:
            yield openai.connect(model, f"{url}/v1", "model")


def vllm_command(model: Model, path: str | None, port: int) -> list[str]:
    """The command line of a vLLM server for a config entry."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", resolve_path(path or model.path)]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", str(model.context), "--dtype", model.dtype, "--enable-prefix-caching"]
    if model.gpus > 1:
        command += ["--tensor-parallel-size", str(model.gpus)]
    return [*command, "--revision", model.revision] if model.revision and path is None else command
