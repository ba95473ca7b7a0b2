"""Pre-trains the base student of the micro-world on generic documents; no task, plan or trajectory is among them.

    OMP_NUM_THREADS=1 python -m score.micro.base --out DIR

The shipped weights in `src/score/micro/weights/` are its output with the default settings (about two CPU minutes).
Copying comes first, everything else after it: the attention pattern that copies a name is what every later skill rests
on, and it forms several times faster with Muon on the block matrices than with AdamW alone.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from score.cli import run
from score.micro.documents import COPYING, EVERYTHING, document
from score.micro.language import make_tokenizer, model_config

WEIGHTS = Path(__file__).parent / "weights"

BATCH = 32
COPYING_SHARE = 1 / 3
MUON_LR, ADAMW_LR = 0.02, 3e-3
WARMUP, FLOOR = 20, 0.1
_POOL = 8
_IGNORED = -100

log = logging.getLogger("score.micro.base")


def batches(tokenizer: PreTrainedTokenizerFast, rng: random.Random, steps: int) -> Iterator[list[list[int]]]:
    """`steps` batches of token ids; documents of like length share a batch, which halves the padding."""
    for start in range(0, steps, _POOL):
        kinds = COPYING if start < steps * COPYING_SHARE else EVERYTHING
        rows = sorted((tokenizer.encode(document(rng, kinds)) for _ in range(_POOL * BATCH)), key=len)
        pool = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        rng.shuffle(pool)
        yield from pool[: steps - start]


def loss_of(model: LlamaForCausalLM, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean next-token loss of a batch, padded on the right: causal attention never looks at the padding."""
    width = max(map(len, rows))
    labels = torch.tensor([[*row, *[_IGNORED] * (width - len(row))] for row in rows])
    return model(input_ids=labels.clamp(min=model.config.pad_token_id), labels=labels).loss


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        # momentum 0.8: at the customary 0.95 the copying pattern takes three times as many steps to form
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.8, weight_decay=0.0),
        torch.optim.AdamW(others, lr=ADAMW_LR, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """The share of the peak learning rate: a short warm-up, then a cosine down to `FLOOR`."""
    return min(1.0, (step + 1) / WARMUP) * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def pretrain(steps: int, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The base student after `steps` optimizer steps."""
    torch.manual_seed(seed)
    tokenizer, model = make_tokenizer(), LlamaForCausalLM(model_config())
    pair = optimizers(model)
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: rate(step, steps)) for each in pair]
    started, smooth = time.monotonic(), math.log(len(tokenizer))
    for step, rows in enumerate(batches(tokenizer, random.Random(seed), steps), start=1):
        loss = loss_of(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(pair, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        smooth += 0.05 * (loss.item() - smooth)
        if step % 50 == 0 or step == steps:
            left = (time.monotonic() - started) / step * (steps - step)
            log.info("step %d of %d: loss %.3f, about %.0f s left", step, steps, smooth, left)
    return model, tokenizer


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the model in half precision; the config names float32, since that is what it is trained and run in."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_length=None
    )
    model.half().save_pretrained(out)
    model.config.dtype = torch.float32
    model.config.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m score.micro.base", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    save(*pretrain(args.steps, args.seed), args.out)


if __name__ == "__main__":
    run(main)
