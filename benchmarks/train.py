"""What training costs beside the bare model: SFT against a plain PyTorch loop, and where an RL update's time goes.

    python -m benchmarks.train                                    # the micro student and the long micro-world, minutes
    python -m benchmarks.train --model Qwen/Qwen2.5-0.5B-Instruct --out benchmarks/results/gpu.md  # a GPU

SFT: `score.train.sft` against forward, backward and optimiser step over the same padded batches of the same model, in
turns; tokens count padding. MFU is 6 x parameters x tokens over the device's peak, which is measured by a matrix
product. RL: `score.train.grpo` on micro-world tasks after the SFT, with and without the short horizon, at equal numbers
of rollouts; each part of an update is timed on its own, so that they add up. Bars: SFT at 0.9 of the bare loop; of an
RL update, what is neither generation, tools, log-probabilities, forward, backward nor optimiser at most 10 %.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import yaml
from torch.nn.utils import clip_grad_norm_
from transformers import DataCollatorForSeq2Seq

from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.attempts import open_tools, sandbox
from score.config import Config, lineage, load
from score.config.load import merge
from score.config.training import Grpo, Sft
from score.correct.sets import KeyStep
from score.engine import resolve_path
from score.engine.base import Completion, Request
from score.engine.transformers import load_model
from score.jsonl import write_text
from score.micro.oracle import Oracle
from score.micro.server import reply
from score.micro.tasks import LONG, all_tasks
from score.micro.world import make_world
from score.records import Step, StopReason, Trajectory
from score.train import grpo, rows, sft
from score.usage import Usage

ROOT = Path(__file__).parents[1]
OVERLAYS = ("config.yaml", "configs/micro.yaml", "configs/micro_long.yaml")
SFT_BAR, OVERHEAD_BAR = 0.9, 0.10
WRONG = Step("A guess.", "print(0)", "0")


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


def key_steps(trajectories: Sequence[Trajectory]) -> list[KeyStep]:
    """Each cut after half of its steps, where an error is made up."""
    from score.agent.protocol import plan_message

    cut = [(t, len(t.steps) // 2) for t in trajectories]
    return [KeyStep(t.task, k + 1, plan_message(t), t.steps[:k], WRONG, t.steps[k]) for t, k in cut]


# SFT


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
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bare(model, tokenizer, data: Sequence[dict], settings: Sft) -> int:
    """One epoch of nothing but the model; returns the tokens, padding included."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    tokens = 0
    for step in range(0, len(data) - settings.batch + 1, settings.batch):
        for start in range(step, step + settings.batch, settings.micro_batch):
            batch = collate([dict(row) for row in data[start : start + settings.micro_batch]]).to(device)
            tokens += batch["input_ids"].numel()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = model(**batch).loss
            (loss * settings.micro_batch / settings.batch).backward()
        clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    return tokens


def compare_sft(
    path: str, data: rows.TrainingSet, settings: Sft, rounds: int, device: Device
) -> tuple[list[str], float]:
    """Lines of the report, and the ratio of tokens a second."""
    model, codec = load_model(path, "float32")
    parameters = sum(p.numel() for p in model.parameters())
    ours, plain, tokens = [], [], 0
    for _ in range(rounds):

        def run_plain() -> None:
            nonlocal tokens
            tokens = bare(load_model(path, "float32")[0], codec.tokenizer, data.rows, settings)

        def run_ours(work: str) -> None:
            sft.train(load_model(path, "float32")[0], codec, data, settings, Path(work), 0, "sft")

        plain.append(_seconds(run_plain))
        with tempfile.TemporaryDirectory() as work:
            ours.append(_seconds(functools.partial(run_ours, work)))
    ratio = min(plain) / min(ours)
    lines = ["| SFT | tokens/s | MFU | of the bare loop |", "| --- | ---: | ---: | ---: |"]
    for name, seconds in (("bare loop", min(plain)), ("score.train.sft", min(ours))):
        speed = tokens / seconds
        lines.append(
            f"| {name} | {speed:,.0f} | {6 * parameters * speed / device.peak:.1%} | {min(plain) / seconds:.2f} |"
        )
    return lines, ratio


# RL


class Clock:
    """Seconds of parts that may lie within each other: each has what is not another's."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = time.perf_counter()

    def wrapped(self, name: str | Callable[[], str], method: Callable) -> Callable:
        @functools.wraps(method)
        def timed(*args, **kwargs):
            with self.part(name if isinstance(name, str) else name()):
                return method(*args, **kwargs)

        return timed

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        _wait()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextlib.contextmanager
def clocked() -> Iterator[Clock]:
    """Times the parts of every RL update within the block."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

    from score.agent import drivers, sessions
    from score.engine.transformers import TransformersEngine
    from score.train.samplers import VllmEngine
    from score.train.trainer import AgentGRPO

    clock = Clock()
    forward = lambda: "forward" if torch.is_grad_enabled() else "log-probabilities"  # noqa: E731
    parts = (
        (AgentGRPO, "training_step", "other"),
        (TransformersEngine, "complete", "generation"),
        (VllmEngine, "complete", "generation"),
        (drivers, "advance", "tools"),
        (sessions.Branched, "open", "tools"),
        (sessions.Branched, "close", "tools"),
        (sessions.Branched, "end", "tools"),
        (AgentGRPO, "_get_per_token_logps_and_entropies", forward),
        (Accelerator, "backward", "backward"),
        (Accelerator, "clip_grad_norm_", "optimiser"),
        (AcceleratedOptimizer, "step", "optimiser"),
    )
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]
    try:
        for owner, name, part in parts:
            setattr(owner, name, clock.wrapped(part, getattr(owner, name)))
        yield clock
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)


def run_rl(
    path: str, steps: Sequence[KeyStep], config: Config, settings: Grpo, short: bool
) -> tuple[Counter, list[dict]]:
    """Seconds by part, and the log, of one run."""
    agent = lineage.agent(config, "score_rl").model_copy(update={"short_horizon": short})
    model, codec = load_model(path, "float32")
    with contextlib.ExitStack() as kept:
        work = Path(kept.enter_context(tempfile.TemporaryDirectory()))
        tools, usage = kept.enter_context(open_tools(config, "train")), kept.enter_context(Usage(work, "grpo"))
        clock = kept.enter_context(clocked())
        _, history = grpo.train(
            model, codec, steps, config, agent, settings, work, 0, tools=tools, usage=usage, left_out=rows.LeftOut()
        )
    return clock.seconds, [row for row in history if "loss" in row]


PARTS = ("generation", "tools", "log-probabilities", "forward", "backward", "optimiser", "other")


def compare_rl(path: str, steps: Sequence[KeyStep], config: Config, settings: Grpo) -> tuple[list[str], float]:
    """Lines of the report, and the largest share of an update that belongs to no part."""
    lines = ["| RL update, seconds | short horizon | full horizon |", "| --- | ---: | ---: |"]
    found = [run_rl(path, steps, config, settings, short) for short in (True, False)]
    for part in PARTS:
        lines.append(f"| {part} | " + " | ".join(_cell(clock, part, settings.updates) for clock, _ in found) + " |")
    lines.append("| all | " + " | ".join(f"{clock.total() / settings.updates:.2f}" for clock, _ in found) + " |")
    names = {
        "episode/new_tokens": "new tokens", "episode/steps": "steps of an episode", "reward": "reward",
        "frac_reward_zero_std": "groups without a difference", "grad_norm": "norm of the gradient",
        "sampling/gap": "gap to the sampler, nats",
    }  # fmt: skip
    for name, label in names.items():
        values = [fmean(row[name] for row in log if name in row) for _, log in found]
        lines.append(f"| {label} | " + " | ".join(f"{value:,.4g}" for value in values) + " |")
    return lines, max(clock["other"] / clock.total() for clock, _ in found)


def _cell(clock: Counter, part: str, updates: int) -> str:
    return f"{clock[part] / updates:.2f} ({clock[part] / clock.total():.0%})"


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
