"""The model in training as it decodes: for rollouts and for looks at held-out questions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from transformers import Trainer, TrainerCallback

from score.train import ranks


@contextlib.contextmanager
def decoding(trainer: Trainer) -> Iterator[None]:
    """Without dropout or checkpointing, for the time of a `with` block; a collective operation."""
    from trl.models import unwrap_model_for_generation

    with unwrap_model_for_generation(
        trainer.model_wrapped,
        trainer.accelerator,
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
    ) as model:
        model.eval()
        yield
    model.train()


def ready_to_decode(trainer: Trainer) -> None:
    """What a model that is spread over processes needs once, before the first `decoding`."""
    if ranks.sharding() != "fsdp2" or any(isinstance(c, _FromTheRoot) for c in trainer.callback_handler.callbacks):
        return
    for module in trainer.model.modules():  # so that transformers makes the processes' decoding equally long
        module._is_fsdp_managed_module = True
    trainer.add_callback(_FromTheRoot())


class _FromTheRoot(TrainerCallback):
    """FSDP2 wants its first forward pass to be the whole model's, and generation with adapters begins further in."""

    def on_train_begin(self, args, state, control, model, **kwargs) -> None:
        model.eval()  # dropout would draw random numbers that training has without it
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=args.device))
        model.train()
