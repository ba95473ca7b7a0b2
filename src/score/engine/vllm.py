"""vLLM's command line for an entry of `models`, and the interpreter that it runs in. Nothing is started here.

The module is called, not `vllm serve`: the CPU build has another distribution name, which that command trips over.
"""

from __future__ import annotations

import os
import sys

from score.config.schema import Model

PYTHON_VARIABLE = "SCORE_VLLM_PYTHON"
NAME = "model"
"""Under which the model is served; an adapter is served under its own name."""

ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1"}


def python() -> str:
    """The interpreter of an environment that has vLLM: SCORE_VLLM_PYTHON, or the one that runs this."""
    return os.environ.get(PYTHON_VARIABLE) or sys.executable


def command(model: Model, folder: str, socket: str, *, trained: bool = False) -> list[str]:
    """The command line of a server on a Unix socket.

    Args:
        folder: the model's folder or hub name.
        trained: it is a model that was trained from this entry's, which has no hub revision and no adapters.
    """
    words = [python(), "-m", "vllm.entrypoints.openai.api_server", "--uds", socket]
    words += ["--model", folder, "--served-model-name", NAME]
    words += ["--max-model-len", str(model.context), "--dtype", model.dtype]
    # Else the model's own generation_config.json silently fills in what a request does not say: top_k, penalties.
    words += ["--generation-config", "vllm"]
    words += ["--enable-prompt-tokens-details"]
    words += ["--enable-prefix-caching" if model.prefix_caching else "--no-enable-prefix-caching"]
    if model.gpus > 1:
        words += ["--tensor-parallel-size", str(model.gpus)]
    if model.memory_fraction is not None:
        words += ["--gpu-memory-utilization", str(model.memory_fraction)]
    if model.revision and not trained:
        words += ["--revision", model.revision, "--tokenizer-revision", model.revision]
    if model.adapters and not trained:
        words += ["--enable-lora", "--lora-modules", *(f"{name}={path}" for name, path in model.adapters.items())]
    return [*words, *model.arguments]


def name(model: Model, *, trained: bool = False) -> str:
    """What a request calls the model."""
    return model.adapter if model.adapter is not None and not trained else NAME
