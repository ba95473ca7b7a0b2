"""Which SLURM jobs a config sends: their models, GPUs and images, and what each attempt asks for. Pure functions.

The rules say the same in `resources`; a test compares the two over a dry run of the whole grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from score.cluster.profile import Profile
from score.cluster.site import Site
from score.config import Agent, Config, lineage
from score.data import benchmarks
from score.engine import gpus
from score.models import made
from score.train.launch import Layout

_ACTING, _TRAINING = ("rollout", "correct", "evaluate", "variance"), ("sft", "grpo", "dpo")
"""Rules whose jobs run an agent, or train one from the agent before it."""


@dataclass(frozen=True)
class Stage:
    """Jobs of one rule that take the same models (keys of `models`) and the same place."""

    rule: str
    models: tuple[str, ...]
    layout: Layout | None = None
    """Of a training job, whose settings say how many GPUs and nodes it takes."""

    @property
    def nodes(self) -> int:
        return self.layout.nodes if self.layout else 1

    def gpus(self, config: Config) -> int:
        return self.layout.total if self.layout else sum(config.models[name].own_gpus for name in self.models)

    def shares(self, config: Config) -> gpus.Shares:
        """How a job of several servers, or of a trainer and its judge, divides its GPUs, numbered from 0; as the job
        itself does (`check_gpus`, `keep_gpus`). Nothing where one alone takes some."""
        if self.layout:
            wanted = {"training": self.layout.gpus, "reward_judge": self.layout.judge}
        else:
            servers = zip(("student", "teacher"), self.models, strict=False) if self.rule == "correct" else ()
            entries = {role: config.models[name] for role, name in servers}
            wanted = {who: entry.own_gpus for who, entry in reversed(entries.items())}
        wanted = {who: count for who, count in wanted.items() if count}
        return gpus.divide([*map(str, range(sum(wanted.values())))], wanted) if len(wanted) > 1 else {}


@dataclass(frozen=True)
class Need:
    """What SLURM is asked for in one attempt of a stage's jobs."""

    rule: str
    attempt: int
    gpus: int
    gpu_model: str
    minutes: int
    mem_mb: int
    cpus: int
    partition: str = ""
    """Named by the profile; "" where the executor plugin chooses."""
    nodes: int = 1

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPUs, " if self.gpus else ""
        gpus += f"{self.nodes} nodes, " if self.nodes > 1 else ""
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"{self.rule} ({gpus}{self.minutes} minutes, {self.mem_mb} MB, {self.cpus} CPUs{attempt})"


def trained_on_gpus(config: Config) -> list[str]:
    """Names of trained agents that are wanted, one for each model and settings."""
    kinds: dict[tuple, str] = {}
    for agent in _wanted(config):
        if agent.method != "prompt" and Layout.of(config, agent.name).gpus:
            kinds.setdefault((lineage.base_model(config, agent.name), agent.method, agent.settings), agent.name)
    return list(kinds.values())


def _wanted(config: Config) -> list[Agent]:
    """Agents with rows, and those that they start from."""
    shown = [agent for agent in config.agents if agent.name not in config.skip and agent.tables]
    return list({entry.name: entry for agent in shown for entry in lineage.ancestors(config, agent.name)}.values())


def stages(config: Config) -> list[Stage]:
    """What jobs there are besides those on the login node, each kind once."""
    return list(dict.fromkeys(_stages(config)))


def _stages(config: Config) -> Iterator[Stage]:
    roles, base = config.roles, {agent.name: lineage.base_model(config, agent.name) for agent in config.agents}
    shown = [agent for agent in config.agents if agent.name not in config.skip and agent.tables]
    trained = [agent for agent in _wanted(config) if agent.method != "prompt"]
    corrected = [a for a in trained if a.method in ("grpo", "dpo") or a.data in ("corrections", "both_halves")]

    def stage(rule: str, *models: str | None, layout: Layout | None = None) -> Stage:
        return Stage(rule, tuple(model for model in models if model is not None), layout)

    if config.data.demonstrations.source == "rollout" and any(agent.start for agent in trained):
        yield stage("rollout", roles.teacher)
    for agent in corrected:
        yield stage("correct", base[agent.name], lineage.teacher(config, agent.name))
    for agent in trained:
        judge = roles.reward_judge if agent.method == "grpo" else None
        yield stage(agent.method, base[agent.name], judge, layout=Layout.of(config, agent.name))
    for agent in shown:
        yield stage("evaluate", base[agent.name])
    if any(benchmarks.get(name).metric == "judge" for name in config.benchmarks):
        yield stage("judge", roles.evaluation_judge)


def models(config: Config, of: Iterable[Stage]) -> list[str]:
    """Keys of the models that some jobs take, each once."""
    return list(dict.fromkeys(name for stage in of for name in stage.models))


def loaded(config: Config, rule: str, agent: str | None) -> list[str]:
    """Keys of the models that a job of a rule loads or asks as the config has them; what was trained is not among
    them."""
    roles = config.roles
    if rule == "judge":
        return [roles.evaluation_judge] if roles.evaluation_judge else []
    if rule not in (*_ACTING, *_TRAINING) or agent is None:
        return []
    entry = lineage.agent(config, agent)
    own = lineage.agent(config, entry.start) if rule in _TRAINING else entry
    names = [own.model] if own.method == "prompt" else []
    names += [lineage.teacher(config, agent)] if rule == "correct" else []
    names += [roles.reward_judge] if rule == "grpo" and roles.reward_judge else []
    return list(dict.fromkeys(names))


def images(config: Config) -> list[str]:
    """Names of the images that the rules of this config run in."""
    sent = stages(config)
    trains = any(stage.rule in ("sft", "grpo", "dpo") for stage in sent)
    fetches = any(made(config.models[name]) for name in models(config, sent))
    return ["core", *(["train"] if trains or fetches else []), "serve"]


def image(name: str) -> Path:
    """Where the rules look for an image."""
    return Path("containers", f"{name}.sif")


def needs(config: Config, profile: Profile, site: Site) -> list[Need]:
    """What every kind of job asks for, on every attempt that the profile allows."""
    found = []
    for stage in stages(config):
        gpus, own = stage.gpus(config), profile.partition(stage.rule)
        for attempt in range(1, profile.attempts + 1):
            minutes, mem_mb, cpus = (
                profile.amount(stage.rule, name, attempt) for name in ("runtime", "mem_mb", "cpus_per_task")
            )
            model = (site.gpu_model or "") if gpus else ""
            found.append(Need(stage.rule, attempt, gpus, model, minutes, mem_mb, cpus, own, stage.nodes))
    return list(dict.fromkeys(found))


def partition(need: Need, site: Site) -> str | None:
    """The partition that the executor plugin will take, by its own judgement; None if the job fits into none."""
    if need.partition:
        return need.partition
    resources = {"gpu": need.gpus, "runtime": need.minutes, "mem_mb": need.mem_mb, "cpus_per_task": need.cpus}
    resources |= {"gpu_model": need.gpu_model} if need.gpu_model else {}
    resources |= {"nodes": need.nodes}
    resources |= {"mpi": "srun", "tasks": need.nodes} if need.nodes > 1 else {}
    job = SimpleNamespace(resources=resources, threads=1, name=need.rule)
    scores = {p.name: score for p in _partitions(site) if (score := p.score_job_fit(job)) is not None}
    return max(scores, key=scores.get) if scores else None


def _partitions(site: Site) -> list[Any]:
    from snakemake_executor_plugin_slurm.partitions import Partition, PartitionLimits

    return [
        Partition(name, PartitionLimits(**{k: v for k, v in limits.items() if k != "cluster"}), limits.get("cluster"))
        for name, limits in site.partitions.items()
    ]
