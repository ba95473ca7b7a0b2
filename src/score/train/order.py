"""The order of the data, the same for a run in one piece and for one that was killed and goes on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler
from transformers import Trainer

from score.records import derive_seed


class PerEpoch(Sampler[int]):
    """A trainer's shuffling sampler, made to follow from seed and epoch alone.

    By themselves, TRL's and transformers' draw an epoch from where the last one left their generator, which a process
    that goes on in a later epoch does not know.
    """

    def __init__(self, sampler: Sampler[int], trainer: Trainer) -> None:
        self.sampler, self.trainer = sampler, trainer
        if sampler.generator is None:
            sampler.generator = torch.Generator()

    def __iter__(self) -> Iterator[int]:
        epoch = int(self.trainer.state.epoch + 1e-6)  # whole at its end, but for rounding
        self.sampler.generator.manual_seed(derive_seed(self.trainer.args.seed, epoch))
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)
