"""Where the time of an RL update goes: `score.train.grpo` on micro-world tasks, with and without the short horizon, at
equal numbers of rollouts. Each part is timed on its own, so that they add up. `benchmarks.train` runs and prints it."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch

from score.attempts import open_tools
from score.config import Config, lineage
from score.config.training import Grpo
from score.correct.sets import KeyStep
from score.engine.transformers import load_model
from score.records import Step, Trajectory
from score.train import grpo, rows
from score.usage import Usage

WRONG = Step("A guess.", "print(0)", "0")


def wait() -> None:
    """Until the GPU has done what it was given, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def key_steps(trajectories: Sequence[Trajectory]) -> list[KeyStep]:
    """Each cut after half of its steps, where an error is made up."""
    from score.agent.protocol import plan_message

    cut = [(t, len(t.steps) // 2) for t in trajectories]
    return [KeyStep(t.task, k + 1, plan_message(t), t.steps[:k], WRONG, t.steps[k]) for t, k in cut]


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
        wait()
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
