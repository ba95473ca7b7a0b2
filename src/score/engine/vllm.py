"""vLLM's command line for an entry of `models`, and the interpreter that it runs in. Nothing is started here.

The module is called, not `vllm serve`: the CPU build has another distribution name, which that command trips over.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from score.config.schema import Model
from score.engine.adapter import Adapter, adapter_in

PYTHON_VARIABLE = "SCORE_VLLM_PYTHON"
NAME = "model"
"""Under which the model is served; an adapter of the config is served under its own name, a trained one under this."""

_BELOW = "below"  # the name of the model below an adapter that has taken its name; nobody asks anything of it
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes

_GUARD = Path(__file__).with_name("guard")
KEY_VARIABLE = "VLLM_API_KEY"
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", KEY_VARIABLE: ""}
"""A key in the job's own environment is another server's; one that is shared is given its own."""


def python() -> str:
    """The interpreter of an environment that has vLLM: SCORE_VLLM_PYTHON, or the one that runs this."""
    return os.environ.get(PYTHON_VARIABLE) or sys.executable


def command(model: Model, folder: str, socket: str, *, trained: bool = False) -> list[str]:
    """The command line of a server on a Unix socket.

    Args:
        folder: the model's folder or hub name; a trained LoRA adapter's is served on the model that it names.
        trained: it is a model that was trained from this entry's, which has no hub revision and no adapters.
    """
    return _command(model, folder, ["--uds", socket], NAME, trained=trained)


def shared_command(model: Model, folder: str, host: str, port: str, mark: str) -> list[str]:
    """The same on a TCP port, for others, whose requests call what answers by the entry's `path`.

    Args:
        mark: a name that it lists as well, by which it is told from another server of the same model.
    """
    called, place = model.path, ["--host", host, "--port", port, "--middleware", "score_guard.Guard"]
    if model.adapter is None:
        return _command(model, folder, place, called, mark)
    adapters = {called if name == model.adapter else name: path for name, path in model.adapters.items()}
    return _command(model.model_copy(update={"adapters": adapters}), folder, place, _BELOW, mark)


def shared_environment(key: str | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables of such a server: its key, and where its guard (`score.engine.guard`) is found."""
    path = os.pathsep.join(filter(None, [str(_GUARD), environ.get("PYTHONPATH")]))
    return ENVIRONMENT | {KEY_VARIABLE: key or "", "PYTHONPATH": path}


def _command(model: Model, folder: str, place: list[str], *called: str, trained: bool = False) -> list[str]:
    words = [python(), "-m", "vllm.entrypoints.openai.api_server", *place]
    words += _what(folder, adapter_in(folder) if trained else None, *called)
    words += ["--max-model-len", str(model.context), "--dtype", model.dtype]
    # Else the model's own generation_config.json silently fills in what a request does not say: top_k, penalties.
    words += ["--generation-config", "vllm"]
    words += ["--enable-prompt-tokens-details"]
    words += ["--enable-prefix-caching" if model.prefix_caching else "--no-enable-prefix-caching"]
    if model.gpus > 1:
        words += ["--tensor-parallel-size", str(model.gpus)]
    if model.memory_fraction is not None:
        words += ["--gpu-memory-utilization", str(model.memory_fraction)]
    if model.revision and not trained and not Path(folder).is_dir():
        words += ["--revision", model.revision, "--tokenizer-revision", model.revision]
    if model.adapters and not trained:
        words += ["--enable-lora", "--lora-modules", *(f"{name}={path}" for name, path in model.adapters.items())]
    return [*words, *model.arguments]


def _what(folder: str, adapter: Adapter | None, *called: str) -> list[str]:
    if adapter is None:
        return ["--model", folder, "--served-model-name", *called]
    rank = next((rank for rank in _RANKS if rank >= adapter.rank), _RANKS[-1])
    words = ["--model", adapter.base, "--served-model-name", _BELOW]
    words += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{called[0]}={folder}"]
    if adapter.revision:
        words += ["--revision", adapter.revision, "--tokenizer-revision", adapter.revision]
    return words


def name(model: Model, *, trained: bool = False) -> str:
    """What a request calls the model."""
    return model.adapter if model.adapter is not None and not trained else NAME
