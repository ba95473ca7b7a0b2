"""What training costs beside the bare model: SFT against a plain PyTorch loop, and where an RL update's time goes.

    python -m benchmarks.train                                    # the micro student and the long micro-world, minutes
    python -m benchmarks.train --model Qwen/Qwen2.5-0.5B-Instruct --out benchmarks/results/gpu.md  # a GPU

SFT: `score.train.sft` against forward, backward and optimiser step over the same padded batches of the same model, in
turns; tokens count padding. Time runs from the end of the first update to the end of the last; what comes before it,
loading the model included, is shown apart. MFU is 6 x parameters x tokens over the device's peak, which is measured by
a matrix product. RL, after that SFT: `benchmarks.rl_update`. Bars: SFT at 0.9 of the bare loop; of an RL update, what
is neither generation, tools, log-probabilities, forward, backward nor optimiser at most 10 %.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from benchmarks.rl_update import compare_rl, key_steps, wait
from torch.nn.utils import clip_grad_norm_
from transformers import DataCollatorForSeq2Seq

from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.attempts import open_tools, sandbox
from score.config import Config, load
from score.config.load import merge
from score.config.training import Grpo, Sft
from score.engine import resolve_path
from score.engine.base import Completion, Request
from score.engine.transformers import load_model
from score.jsonl import write_text
from score.micro.oracle import Oracle
from score.micro.server import reply
from score.micro.tasks import LONG, all_tasks
from score.micro.world import make_world
from score.records import StopReason, Trajectory
from score.train import rows, sft

ROOT = Path(__file__).parents[1]
OVERLAYS = ("config.yaml", "configs/micro.yaml", "configs/micro_long.yaml")
SFT_BAR, OVERHEAD_BAR = 0.9, 0.10


class OracleEngine:
    """The micro-world's teacher in this process."""

    batch = 64

    def __init__(self) -> None:
        self.oracle = Oracle(make_world(), leap=0.0)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion(reply(self.oracle, [m.chat() for m in request.messages])) for request in requests]


def demonstrations(config: Config, tasks: int) -> list[Trajectory]:
    """Right episodes of the oracle on questions of the long world."""
    asked = list(all_tasks("train", max(1, tasks // len(LONG)), benchmarks=LONG))
    episodes = [Episode(task, config.protocol, seed=0) for task in asked]
    with sandbox(config) as pool, open_tools(config, "train") as tools:
        run_episodes(episodes, OracleEngine(), config.sampling.student, pool, tools)
    return [t for episode in episodes if (t := episode.trajectory()).stop is StopReason.ANSWERED]


@dataclass(frozen=True)
class Device:
    """Where it runs, and at how many floating-point operations a second at best."""

    name: str
    peak: float

    @classmethod
    def here(cls) -> Device:
        cuda = torch.cuda.is_available()
        size, kind = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
        left = torch.randn(size, size, dtype=kind, device="cuda" if cuda else "cpu")
        best = min(_seconds(lambda: left @ left) for _ in range(10))
        return cls(
            torch.cuda.get_device_name() if cuda else f"{platform.processor() or 'CPU'}, 1 thread", 2 * size**3 / best
        )


def _seconds(run: Callable[[], object]) -> float:
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


@dataclass
class Pace:
    """When updates ended, in seconds since the run began; tokens of all of them, padding included."""

    began: float = field(default_factory=time.perf_counter)
    ends: list[float] = field(default_factory=list)
    tokens: int = 0

    def note(self) -> None:
        wait()
        self.ends.append(time.perf_counter() - self.began)

    @property
    def update_s(self) -> float:
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)

    @property
    def start_s(self) -> float:
        return max(0.0, self.ends[0] - self.update_s)


def bare(path: str, data: Sequence[dict], settings: Sft) -> Pace:
    """One epoch of nothing but the model."""
    device, pace = "cuda" if torch.cuda.is_available() else "cpu", Pace()
    model, codec = load_model(path, "float32")
    model.to(device).train()
    collate = DataCollatorForSeq2Seq(codec.tokenizer, padding=True, label_pad_token_id=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    for step in range(0, len(data) - settings.batch + 1, settings.batch):
        for start in range(step, step + settings.batch, settings.micro_batch):
            batch = collate([dict(row) for row in data[start : start + settings.micro_batch]]).to(device)
            pace.tokens += batch["input_ids"].numel()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = model(**batch).loss
            (loss * settings.micro_batch / settings.batch).backward()
        clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        pace.note()
    return pace


def ours(path: str, data: rows.TrainingSet, settings: Sft) -> Pace:
    """The same epoch by the stage. The trainer draws rows in another order, so its padding differs a little."""
    from accelerate.optimizer import AcceleratedOptimizer

    pace, step = Pace(), AcceleratedOptimizer.step

    def noted(*args, **kwargs):
        step(*args, **kwargs)
        pace.note()

    AcceleratedOptimizer.step = noted
    try:
        with tempfile.TemporaryDirectory() as work:
            sft.train(*load_model(path, "float32"), data, settings, Path(work), 0, "sft")
    finally:
        AcceleratedOptimizer.step = step
    return pace


def compare_sft(
    path: str, data: rows.TrainingSet, settings: Sft, rounds: int, device: Device
) -> tuple[list[str], float]:
    """Lines of the report, and the ratio of tokens a second."""
    parameters = sum(p.numel() for p in load_model(path, "float32")[0].parameters())
    pairs = [(bare(path, data.rows, settings), ours(path, data, settings)) for _ in range(rounds)]
    plain, stage = (min(paces, key=lambda pace: pace.update_s) for paces in zip(*pairs, strict=True))
    update = plain.tokens / len(plain.ends)
    lines = ["| SFT | tokens/s | MFU | of the bare loop | start, s |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, pace in (("bare loop", plain), ("score.train.sft", stage)):
        speed = update / pace.update_s
        share, mfu = plain.update_s / pace.update_s, 6 * parameters * speed / device.peak
        lines.append(f"| {name} | {speed:,.0f} | {mfu:.1%} | {share:.2f} | {pace.start_s:.1f} |")
    return lines, plain.update_s / stage.update_s


def micro_config(context: int) -> Config:
    config = functools.reduce(merge, (yaml.safe_load((ROOT / name).read_text()) for name in OVERLAYS))
    config["models"]["student"] = config["models"]["student"] | {"context": context}
    return load(config)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="micro", help="folder or hub name of the student")
    parser.add_argument("--rows", type=int, default=480, help="demonstrations")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the report there")
    args = parser.parse_args(argv)
    torch.set_num_threads(1 if not torch.cuda.is_available() else torch.get_num_threads())
    config, path, device = micro_config(2048), resolve_path(args.model), Device.here()
    shown = demonstrations(config, args.rows)
    _, codec = load_model(path, "float32")
    data = rows.training_set(shown, codec, 2048)
    random.Random(0).shuffle(data.rows)
    if len(data.rows) < 2 * args.batch:
        parser.error(f"{len(data.rows)} rows are fewer than two updates of --batch {args.batch}; raise --rows")
    del data.rows[len(data.rows) // args.batch * args.batch :]  # so that all updates are of one size
    once = Sft(
        lr=1e-3,
        epochs=1,
        batch=args.batch,
        micro_batch=args.micro_batch,
        max_length=2048,
        save_every=10_000,
        checkpointing=False,
    )
    report = [f"`python -m benchmarks.train {' '.join(argv or sys.argv[1:])}`", ""]
    report += [f"{device.name}, {device.peak / 1e9:,.0f} GFLOP/s at best, load at the start {os.getloadavg()[0]:.1f};"]
    report += [f"model {args.model}, {data.counts['rows']} rows, {data.counts['tokens']:,} tokens.", ""]
    lines, ratio = compare_sft(path, data, once, args.rounds, device)
    report += [*lines, ""]
    with tempfile.TemporaryDirectory() as taught:
        model, _ = sft.train(
            load_model(path, "float32")[0],
            codec,
            data,
            once.model_copy(update={"epochs": 4}),
            Path(taught) / "w",
            0,
            "sft",
        )
        model.save_pretrained(taught)
        codec.tokenizer.save_pretrained(taught)
        base = config.training.grpo["score_rl"].model_dump()
        settings = Grpo.model_validate(
            base | {"updates": args.updates, "eval_every": 0, "max_completion": 1024, "max_prompt": 1024}
        )
        lines, overhead = compare_rl(taught, key_steps(shown), config, settings)
    report += [*lines, ""]
    bars = (
        (ratio >= SFT_BAR, f"SFT at {ratio:.2f} of the bare loop, bar {SFT_BAR}"),
        (overhead <= OVERHEAD_BAR, f"overhead {overhead:.1%} of an RL update, bar {OVERHEAD_BAR:.0%}"),
    )
    report += [f"- {what}: {'met' if met else 'NOT MET'}" for met, what in bars]
    print("\n".join(report))
    if args.out:
        write_text(args.out, "\n".join(report) + "\n")
    sys.exit(not all(met for met, _ in bars))


if __name__ == "__main__":
    main()
