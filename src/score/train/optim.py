"""What SFT, RL and DPO share of the trainer's settings, and the optimiser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME

from score.config.training import Optim
from score.errors import ScoreError
from score.train import ranks


def trainer_arguments(settings: Optim, work: Path, seed: int) -> dict[str, Any]:
    """Keyword arguments common to TRL's SFTConfig, GRPOConfig and DPOConfig."""
    cuda, forward = torch.cuda.is_available(), settings.micro_batch * ranks.count()
    if settings.batch % forward:
        raise ScoreError(
            f"batch {settings.batch} is not a multiple of micro_batch x {ranks.count()} processes ({forward})"
        )
    return {
        "output_dir": str(work / "checkpoints"),
        "learning_rate": settings.lr,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch // forward,
        "weight_decay": settings.weight_decay,
        "warmup_steps": settings.warmup,  # below 1 it is a share of all updates
        "lr_scheduler_type": settings.schedule,
        "max_grad_norm": settings.grad_clip,
        "save_steps": settings.save_every,
        # With looks at least two: of one, the trainer keeps the best alone at its end; what follows needs the last.
        "save_total_limit": max(settings.keep, 2 if settings.eval_every else 1),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # which would log the last good loss in place of one that is no number
        "report_to": "tensorboard",  # event files in `runs/` beside the checkpoints; log.csv comes at the end
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not cuda,
        "ddp_timeout": int(ranks.PATIENCE.total_seconds()),
        "bf16": cuda,
        "activation_checkpointing": cuda if settings.checkpointing is None else settings.checkpointing,
    }


def last_checkpoint(work: Path) -> str | None:
    """The newest complete checkpoint that a killed job left, or None. One that it was writing is not complete."""
    found = sorted((work / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return next((str(path) for path in reversed(found) if _complete(path)), None)


def _complete(checkpoint: Path) -> bool:
    """Does it have what a trainer writes last, its state?"""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def optimizers(model: PreTrainedModel, settings: Optim) -> tuple[torch.optim.Optimizer | None, None]:
    """The `optimizers` argument of a Trainer: (None, None) leaves AdamW and the schedule to it."""
    if settings.optimizer == "adamw":
        return None, None
    return MuonWithAdamW(model, settings.lr, settings.weight_decay), None


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside the blocks, AdamW at a fifth of the rate for embeddings and vectors.

    Tiny models learn to copy from their context several times sooner with it than with AdamW alone.
    """

    ADAMW_SHARE = 0.2

    def __init__(self, model: torch.nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        embedding = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
        trainable = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trainable if p.ndim == 2 and id(p) not in embedding]
        chosen = {id(p) for p in matrices}
        others = [p for p in trainable if id(p) not in chosen]
        self._parts = (
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay),
            torch.optim.AdamW(others, lr=lr * self.ADAMW_SHARE, weight_decay=weight_decay),
        )
        super().__init__([*matrices, *others], {"lr": lr})
        # One view over both parts, so that schedules, state dicts and zero_grad reach them.
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure=None):
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, inner in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(inner)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
