"""From the jobs of a dry run to GPU-hours, tokens, searches and disk. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from score.cluster.places import AT_ONCE, CHECKPOINT
from score.config import lineage
from score.config.training import Grpo
from score.errors import ScoreError
from score.plan import schedule
from score.plan.dryrun import Job
from score.plan.loads import Load, Piece, Setting, load
from score.train.launch import Layout

TRAINING = ("sft", "grpo", "dpo")
COSTED = ("rollout", "correct", *TRAINING, "evaluate", "judge", "variance")
"""Rules whose jobs start or train a model; everything else is short and takes no GPU."""
_REFERENCE, _POWER = 7e9, 0.8  # a server's tokens a second fall with its model's size a little slower than 1 / P
_BYTES = 2  # a parameter in bfloat16


@dataclass(frozen=True)
class Cost:
    """One job's."""

    job: Job
    load: Load
    hours: float

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.job.gpus


@dataclass(frozen=True)
class Disk:
    """Bytes for one purpose, and how they are counted."""

    what: str
    size: float
    formula: str


@dataclass(frozen=True)
class Estimate:
    """Of all jobs. `wall`: hours on `gpus` GPUs; `chain`: on any number; both 0 where no job's hours are estimated."""

    costs: Sequence[Cost]
    disk: Sequence[Disk]
    gpus: int
    wall: float
    chain: float


def piece(job: Job) -> Piece:
    """What a job does."""
    wildcards = job.wildcards
    part = wildcards.get("benchmark" if job.rule == "judge" else "part", "")
    shards = int(wildcards.get("scatteritem", "1-of-1").rpartition("-")[2])
    return Piece(job.rule, wildcards.get("agent", ""), part, 1 / shards)


def costs(jobs: Sequence[Job], setting: Setting, done: Mapping[int, float] | None = None) -> list[Cost]:
    """Every job's, in order.

    Args:
        done: units that killed jobs left finished, by place in `jobs` (attempts, updates).
    Raises:
        ScoreError: nothing tells the size of a model that a job starts.
    """
    found = []
    for place, job in enumerate(jobs):
        if job.rule in TRAINING or job.gpus:
            _refuse_unknown(job, setting)
        whole = load(piece(job), setting)
        left = done.get(place, 0.0) if done else 0.0
        rest = whole.times(max(0.0, 1 - left / whole.units)) if whole.units else whole
        found.append(Cost(job, rest, _hours(job, rest, setting)))
    return found


def _refuse_unknown(job: Job, setting: Setting) -> None:
    config = setting.config
    base = [lineage.base_model(config, job.wildcards["agent"])] if "agent" in job.wildcards else []
    for model in [*base, *(ask.model for ask in load(piece(job), setting).asks)]:
        if setting.parameters[model] is None:
            raise ScoreError(
                f"models.{model}: nothing tells how many parameters it has; --assume parameters.{model}=7e9"
            )


def _hours(job: Job, of: Load, setting: Setting) -> float:
    """Hours of a job. Those that a job's own CPUs take are not estimated: such a job has 0."""
    a, config = setting.assumed, setting.config
    computes = of.sampled or of.flops or any(config.models[ask.model].engine != "endpoint" for ask in of.asks)
    if computes and not job.gpus:
        return 0.0
    seconds = a.start_s if job.gpus else 0.0
    seconds += sum(ask.completion / rate(ask.model, setting) for ask in of.asks if not ask.by_trainer)
    if of.sampled or of.flops:
        agent = lineage.agent(config, job.wildcards["agent"])
        gpus, share = job.gpus, a.own_sampler
        if job.rule in TRAINING:
            gpus = Layout.of(config, agent.name).processes
            settings = config.training.of(agent.method, agent.settings)
            share = 1 if isinstance(settings, Grpo) and settings.sampler != "transformers" else share
        tokens = rate(lineage.base_model(config, agent.name), setting, gpus)
        rollouts = sum(ask.completion for ask in of.asks if ask.by_trainer)
        seconds += (
            of.sampled / (tokens * a.own_sampler) + rollouts / (tokens * share) + of.flops / (a.train_flops * gpus)
        )
    return seconds / 3600


def rate(model: str, setting: Setting, gpus: int | None = None) -> float:
    """Generated tokens a second.

    Args:
        gpus: that its server takes; None: those of the config.
    """
    a, entry = setting.assumed, setting.config.models[model]
    if (own := a.of("rate", model)) is not None:  # of the config's GPUs
        return own * (gpus / max(entry.gpus, 1) if gpus else 1)
    if entry.engine in ("endpoint", "oracle"):
        return a.endpoint_rate
    in_process = a.own_sampler if entry.engine == "transformers" and gpus is None else 1
    size = setting.parameters[model] or _REFERENCE
    return a.server_rate * max(gpus or entry.gpus, 1) * (_REFERENCE / size) ** _POWER * in_process


def estimate(found: Sequence[Cost], setting: Setting, gpus: int | None = None, *, images: bool = False) -> Estimate:
    """
    Args:
        gpus: to run on; None: those of the widest job.
        images: they are still to be built.
    Raises:
        ScoreError: a job takes more GPUs than these.
    """
    widest = max(found, key=lambda cost: cost.job.gpus, default=None)
    least = widest.job.gpus if widest else 0
    if gpus is not None and gpus < max(least, 1):
        raise ScoreError(
            f"--gpus {gpus}: {widest.job if least else 'a job'} takes {max(least, 1)}; give at least as many"
        )
    timed = schedule.timed([cost.job for cost in found], [cost.hours for cost in found])
    chain = max(schedule.chains(timed), default=0.0)
    gpus = gpus or least
    return Estimate(found, disk(found, setting, images=images), gpus, schedule.wall(timed, gpus), chain)


def disk(found: Sequence[Cost], setting: Setting, *, images: bool) -> list[Disk]:
    """What these jobs will add, at most.

    Args:
        images: they are still to be built.
    """
    config = setting.config
    sizes = {name: _BYTES * (p or 0.0) for name, p in setting.parameters.items()}
    paths = {f"{m['org']}/{m['name']}" for m in (c.job.wildcards for c in found if c.job.rule == "hub_model")}
    fetched: dict[str, float] = {}  # an endpoint may name the same path, and is loaded by nobody
    for name, entry in config.models.items():
        if entry.path in paths:
            fetched[entry.path] = max(sizes[name], fetched.get(entry.path, 0.0))
    trained = [_left(cost.job.wildcards["agent"], setting) for cost in found if cost.job.rule in TRAINING]
    left = [size for size, checkpoints in trained for _ in range(checkpoints)]
    first = sorted((size for size, checkpoints in trained if checkpoints), reverse=True)[:AT_ONCE]
    attempts = sum(cost.load.attempts for cost in found)
    listed = [
        Disk("models to download", sum(fetched.values()), f"2 P for each of {len(fetched)}"),
        Disk("trained models", sum(size for size, _ in trained), f"2 P for each of {len(trained)}"),
        Disk("checkpoints, the last and the best", CHECKPOINT * sum(left), f"12 P for each of {len(left)}"),
        Disk("another while training", CHECKPOINT * sum(first), f"12 P for each of {len(first)} at once"),
        Disk("attempts", attempts * setting.assumed.attempt_bytes, f"{attempts:,.0f} x attempt_bytes"),
        Disk("images", setting.assumed.image_bytes if images else 0.0, "image_bytes"),
    ]
    return [entry for entry in listed if entry.size]


def _left(agent: str, setting: Setting) -> tuple[float, int]:
    """Bytes of a trained model in bfloat16, and how many checkpoints of all weights its training leaves until the
    workflow ends: adapters' are small."""
    entry = lineage.agent(setting.config, agent)
    settings = setting.config.training.of(entry.method, entry.settings)
    size = _BYTES * (setting.parameters[lineage.base_model(setting.config, agent)] or 0.0)
    return size, 0 if settings.lora else 2 if settings.eval_every else 1
