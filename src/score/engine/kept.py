"""Keys and values of conversations between their turns, so that a turn reads no more than what is new since the last.

An agent's conversation only grows, and on a CPU reading it anew for every turn takes longer than decoding the turn. The
two parts of a batch, what has been read and what has not, are padded on their left each:

    |   padding, read before   |   padding, to be read   |   decoded   |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

LIMIT = 2**30
"""Bytes of keys and values that one call leaves to the next at most; what is beyond them is read anew."""


@dataclass(frozen=True)
class Prompt:
    """Ids of a conversation. An earlier completion ended after its first `answered` ones, and keys and values of the
    first `read` are at hand."""

    ids: tuple[int, ...]
    answered: int = 0
    read: int = 0


@dataclass(frozen=True)
class Batch:
    """Prompts side by side: `ids` and `mask` [B, old + new], of which `cache` holds the first `old` columns."""

    prompts: Sequence[Prompt]
    ids: torch.Tensor
    mask: torch.Tensor
    old: int
    cache: DynamicCache | None

    @property
    def width(self) -> int:
        return self.ids.shape[1]


class Kept:
    """Of every conversation in the last call of an engine a tensor [2 x layers, heads, tokens, width of a head].

    It holds for the weights it was computed with, and knows nothing of a change of them. A turn that a limit cut is
    not in it, nor anything of a model whose layers keep less than every token.
    """

    @classmethod
    def of(cls, model: PreTrainedModel) -> Kept:
        """What pays for a model and changes nothing: on a CPU, since on a GPU reading is cheap beside decoding and
        memory is not; in float32, where it is rounding; with rotary positions, which padding within a row leaves alone.
        """
        rotary = getattr(model.config.get_text_config(), "rope_parameters", None) is not None
        pays = model.device.type == "cpu" and model.dtype == torch.float32 and rotary
        return cls() if pays else cls(limit=0)

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self._room = limit, limit
        self._last: dict[tuple[int, ...], torch.Tensor] = {}
        self._coming: dict[tuple[int, ...], torch.Tensor] = {}

    def end_call(self) -> None:
        """What this call kept is for the next one; what the one before it kept is not needed any more."""
        self._last, self._coming, self._room = self._coming, {}, self.limit

    def found(self, prompt: Prompt) -> Prompt:
        """The prompt, knowing what of it has been read."""
        return replace(prompt, read=prompt.answered if prompt.ids[: prompt.answered] in self._last else 0)

    def batch(self, prompts: Sequence[Prompt], device: torch.device) -> Batch:
        """Side by side, with what was kept of them. Padding repeats a prompt's own token, so that a penalty on what
        occurs in a row means the same in any batch."""
        old, new = max(p.read for p in prompts), max(len(p.ids) - p.read for p in prompts)
        gaps = [(old - p.read, new - len(p.ids) + p.read) for p in prompts]
        ids = [
            [p.ids[0]] * before + [*p.ids[: p.read]] + [p.ids[0]] * between + [*p.ids[p.read :]]
            for p, (before, between) in zip(prompts, gaps, strict=True)
        ]
        mask = [
            [0] * before + [1] * p.read + [0] * between + [1] * (len(p.ids) - p.read)
            for p, (before, between) in zip(prompts, gaps, strict=True)
        ]
        tensors = torch.tensor(ids, device=device), torch.tensor(mask, device=device)
        return Batch(prompts, *tensors, old, self._cache(prompts, old) if old else None)

    def _cache(self, prompts: Sequence[Prompt], old: int) -> DynamicCache:
        rows = {row: self._last[p.ids[: p.read]] for row, p in enumerate(prompts) if p.read}
        some = next(iter(rows.values()))
        layers, heads, _, width = some.shape
        whole = some.new_zeros(layers, len(prompts), heads, old, width)
        for row, values in rows.items():
            whole[:, row, :, old - values.shape[2] :] = values
        return DynamicCache([(whole[layer], whole[layer + 1]) for layer in range(0, layers, 2)])

    def keep(self, batch: Batch, turns: Sequence[Sequence[int]], cache: Cache | None) -> None:
        """What a completion leaves: `turns` are the sampled ids, without the end token, of the rows that have one;
        those of others are empty."""
        if cache is None or any(type(layer) is not DynamicLayer for layer in cache.layers):
            return
        tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        if len({tensor.shape for tensor in tensors}) > 1:
            return
        for row, (prompt, turn) in enumerate(zip(batch.prompts, turns, strict=True)):
            ids = (*prompt.ids, *turn)
            size = len(tensors) * tensors[0][row, :, 0].nbytes * len(ids)
            if not turn or ids in self._coming or size > self._room:
                continue
            fresh = slice(batch.width - len(prompt.ids) + prompt.read, batch.width + len(turn))
            parts = [
                torch.cat([tensor[row, :, batch.old - prompt.read : batch.old], tensor[row, :, fresh]], dim=1)
                for tensor in tensors
            ]
            self._coming[ids] = torch.stack(parts)
            self._room -= size
