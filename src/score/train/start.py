"""Where a training run starts: the model of the agent that it continues, with its codec and digest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from score.attempts import trained_model
from score.config import Agent, Config, lineage
from score.engine import resolve_path
from score.engine.codec import ChatCodec
from score.engine.transformers import load_model
from score.provenance import model_digest
from score.train.memory import Shape, estimate

log = logging.getLogger("train")


@dataclass(frozen=True)
class StartModel:
    """The model, loaded, and where it was loaded from: `path` may be a LoRA adapter's folder. `dtype`: the precision
    that it came in."""

    model: PreTrainedModel
    codec: ChatCodec
    digest: str
    path: str
    revision: str | None
    dtype: torch.dtype


def load_start(config: Config, agent: Agent, seed: int, root: Path) -> StartModel:
    """Loads it. Raises `ScoreError` if the agent before it is not trained.

    Weights that are trained are float32, whatever they were: most steps of fine-tuning are too small for bfloat16,
    which has 8 bits of mantissa, and would be rounded away. Those below LoRA adapters stay as they are.
    """
    entry = config.models[lineage.base_model(config, agent.name)]
    path = start_path(config, agent, seed, root)
    model, codec = load_model(path, entry.dtype, entry.revision)
    revision = None if Path(path).is_dir() else entry.revision
    dtype, settings = model.dtype, config.training.of(agent.method, agent.settings)
    shape = Shape.of(model.config.to_dict())
    if shape and torch.cuda.is_available():
        log.info("%s: %s", agent.name, estimate(shape, settings, weight_bytes=dtype.itemsize))
    if settings.lora is None:
        model = model.float()
    return StartModel(model, codec, model_digest(path, revision), path, revision, dtype)


def start_path(config: Config, agent: Agent, seed: int, root: Path) -> str:
    """The model folder (or hub name) that a trained agent starts from."""
    start = lineage.agent(config, agent.start)
    if start.method == "prompt":
        return resolve_path(config.models[start.model].path)
    return str(trained_model(root, start.name, seed))
