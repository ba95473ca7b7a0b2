"""From a plain mapping to a `Config`: types, unknown keys, and references between sections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from score.config.mistakes import nearest, one_line
from score.config.schema import Agent, Config, Search
from score.errors import ScoreError
from score.sandbox.isolate import LAYERS


def load(raw: Mapping[str, Any]) -> Config:
    """Checks a merged config. Raises `ScoreError` with one line per call: the first mistake found."""
    from score.data import benchmarks

    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise ScoreError(one_line(error, Config, "config")) from None
    _check_references(config)
    if config.from_reported and config.data.generated:
        raise ScoreError("config: from_reported: the paper has no numbers of a generated world; leave it out")
    named = {f"benchmarks[{i}]": name for i, name in enumerate(config.benchmarks)}
    named |= {f"data.limits.{name}": name for name in config.data.limits}
    named |= {f"evaluation.n_samples_of.{name}": name for name in config.evaluation.n_samples_of}
    for where, name in named.items():
        if name not in benchmarks.NAMES:
            raise ScoreError(f"config: {where}: unknown benchmark {name!r}; {nearest(name, benchmarks.NAMES)}")
        if benchmarks.get(name).world != config.data.world:
            raise ScoreError(f"config: {where}: {name!r} does not belong to data.world {config.data.world!r}")
    return config


def read(path: Path | str) -> Config:
    """Loads a resolved config file."""
    with open(path, encoding="utf-8") as file:
        return load(yaml.safe_load(file))


def read_merged(paths: Iterable[Path]) -> Config:
    """Loads a config file with overlays on top of it. Raises `ScoreError` where one is missing or no YAML mapping."""
    return load(merged_files(paths))


def merged_files(paths: Iterable[Path]) -> dict[str, Any]:
    """The same before it is checked."""
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            overlay = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError:
            raise ScoreError(f"{path}: no such config file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ScoreError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(overlay, Mapping):
            raise ScoreError(f"{path}: a config is a mapping of keys, not a {type(overlay).__name__}")
        merged = merge(merged, overlay)
    return merged


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """As Snakemake merges config files: mappings key by key, everything else replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


_MODEL_URL = r"https?://[^\s/@?#]+(/[^\s?#]*)?"  # it goes into the provenance, so no secret may be in it
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


def _is_address(url: str) -> bool:
    try:
        urlsplit(url).port  # noqa: B018  it raises for what is no port, and for half an IPv6 address
    except ValueError:
        return False
    return bool(re.fullmatch(_MODEL_URL, url))


def _check_references(config: Config) -> None:
    for role, model in config.roles.model_dump().items():
        if model is not None:
            _known(f"roles.{role}", model, config.models, "model")
            _check_served(f"roles.{role}", model, config)
    for name, model in config.models.items():
        if model.engine == "endpoint" and not all([model.urls, *model.urls]):
            raise ScoreError(f"config: models.{name}.url: an endpoint needs its URL")
        if model.api_key_env and not re.fullmatch(_VARIABLE, model.api_key_env):  # not shown: it may be the key itself
            raise ScoreError(
                f"config: models.{name}.api_key_env: no name of an environment variable; the key goes there"
            )
        if not all(_is_address(url) for url in model.urls):
            raise ScoreError(
                f"config: models.{name}.url: expected http://HOST:PORT/v1; a key or password belongs into the "
                "environment, in the variable that `api_key_env` names"
            )
        if model.engine in ("transformers", "vllm") and not model.path:
            raise ScoreError(f"config: models.{name}.path: engine {model.engine!r} needs a model folder or hub name")
        if model.adapter is not None:
            _known(f"models.{name}.adapter", model.adapter, model.adapters, "adapter")
    names: dict[str, Agent] = {}
    for i, agent in enumerate(config.agents):
        if agent.name in names:
            raise ScoreError(f"config: agents[{i}].name: {agent.name!r} is used twice")
        _check_agent(config, f"agents.{agent.name}", agent, names)
        names[agent.name] = agent
    _check_sizes(config)
    _check_looks(config)
    _check_chosen(config, names)
    _check_ablations(config)
    for layer in config.sandbox.require:
        _known("sandbox.require", layer, LAYERS, "isolation layer")
    if len(set(config.seeds)) < len(config.seeds):
        raise ScoreError(f"config: seeds: {config.seeds} names a seed twice")
    _check_forms(config)
    _check_search(config.search)
    demonstrations = config.data.demonstrations
    actors = {agent.model for agent in config.agents}
    taught = any(agent.data in ("cold_start", "demonstrations") for agent in config.agents)
    if taught and demonstrations.source == "rollout" and config.roles.teacher not in actors:
        raise ScoreError(
            f"config: agents: none has the teacher's model {config.roles.teacher!r}, so nobody demonstrates"
        )
    if demonstrations.source == "published" and not demonstrations.path:
        raise ScoreError("config: data.demonstrations.path: source 'published' needs the path of a trajectory file")
    if demonstrations.source == "published":
        for agent in config.agents:
            if agent.data == "demonstrations":
                raise ScoreError(f"config: agents.{agent.name}.data: published demonstrations are all `cold_start`")


def _check_forms(config: Config) -> None:
    for name, model in config.models.items():
        if model.forms is None:
            continue
        where = f"config: models.{name}.forms"
        if model.engine not in ("vllm", "endpoint"):
            raise ScoreError(f"{where}: only a vLLM holds turns to a form, not engine {model.engine!r}")
        for turn, form in model.forms.model_dump().items():
            try:
                re.compile(form or "")
            except re.error as error:
                raise ScoreError(f"{where}.{turn}: not a regular expression ({error})") from None


def _check_served(where: str, model: str, config: Config) -> None:
    if config.models[model].engine == "transformers":
        raise ScoreError(f"config: {where}: {model!r} must be served over HTTP (vllm, endpoint, oracle)")


def _check_search(search: Search) -> None:
    backend, url = search.backend, search.url
    if backend == "bm25" and not search.corpus:
        raise ScoreError("config: search.corpus: backend 'bm25' needs a JSON Lines corpus")
    if backend in ("searxng", "retrieval") and not url:
        raise ScoreError(f"config: search.url: backend {backend!r} needs the address of its server")
    if url and backend in ("none", "micro", "bm25"):
        raise ScoreError(f"config: search.url: backend {backend!r} asks no server")
    if url and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
        raise ScoreError("config: search.url: expected http://HOST:PORT/...")
    if url and re.match(r"https?://[^/]*:[^/$][^/]*@", url):
        raise ScoreError("config: search.url: a password belongs into the environment; name its variable, $PASSWORD")
    if backend == "tavily" and search.k > 20:
        raise ScoreError(f"config: search.k: tavily gives at most 20 results, not {search.k}")
    if search.mode != "live" and not search.cache:
        raise ScoreError(f"config: search.cache: mode {search.mode!r} needs a folder for the cache")


_ABLATIONS = {
    "initial": {"method": "sft", "data": "cold_start"},
    "sft": {"method": "sft", "data": "corrections"},
    "no_short_horizon": {"method": "grpo", "short_horizon": False, "key_step_reward": True},
    "no_key_step": {"method": "grpo", "short_horizon": True, "key_step_reward": False},
    "neither": {"method": "grpo", "short_horizon": False, "key_step_reward": False},
    "full": {"method": "grpo", "short_horizon": True, "key_step_reward": True},
}
"""Ablation -> what its agent is: rows of table 3 differ by these switches and by nothing else."""


def _check_ablations(config: Config) -> None:
    rows: dict[str, Agent] = {}
    for agent in config.agents:
        if agent.ablation is None or agent.name in config.skip:
            continue
        where = f"config: agents.{agent.name}"
        if agent.ablation in rows:
            other = rows[agent.ablation].name
            raise ScoreError(f"{where}.ablation: {other!r} is {agent.ablation!r} already; table 3 has one row of it")
        for key, value in _ABLATIONS[agent.ablation].items():
            if getattr(agent, key) != value:
                raise ScoreError(
                    f"{where}.{key}: the ablation {agent.ablation!r} has {value!r}, not {getattr(agent, key)!r}"
                )
        rows[agent.ablation] = agent
    trained = [agent for agent in rows.values() if agent.method == "grpo"]
    for agent, first in zip(trained[1:], trained, strict=False):
        for key in ("start", "settings"):
            if getattr(agent, key) != getattr(first, key):
                raise ScoreError(
                    f"config: agents.{agent.name}.{key}: ablations differ by one switch; {first.name!r} has "
                    f"{getattr(first, key)!r}"
                )


def _check_chosen(config: Config, names: Mapping[str, Agent]) -> None:
    targets = [f"ablation_{agent.ablation}" for agent in config.agents if agent.ablation]
    for name in config.skip:
        _known("skip", name, names, "agent")
    for name in config.fresh:
        _known("fresh", name, [*names, *targets], "agent")


def _check_sizes(config: Config) -> None:
    most = max([config.evaluation.n_samples, *config.evaluation.n_samples_of.values()])
    if most > 1 and config.sampling.evaluate.temperature == 0:
        raise ScoreError(f"config: evaluation.n_samples: {most} greedy attempts are all the same; set a temperature")
    for kind in ("sft", "grpo", "dpo"):
        for name, entry in getattr(config.training, kind).items():
            where = f"config: training.{kind}.{name}.batch: {entry.batch} is not a multiple of"
            if entry.batch % entry.micro_batch:
                raise ScoreError(f"{where} micro_batch {entry.micro_batch}")
            if entry.batch % (entry.micro_batch * entry.processes):
                raise ScoreError(f"{where} micro_batch {entry.micro_batch} x {entry.processes} processes")
            if entry.processes > 1 and entry.sharding != "ddp" and entry.optimizer == "muon":
                raise ScoreError(f"config: training.{kind}.{name}.optimizer: muon needs whole matrices; sharding: ddp")
            if kind == "grpo" and entry.batch % entry.generations:
                raise ScoreError(f"{where} generations {entry.generations}")
    judge = config.models.get(config.roles.reward_judge or "")
    for agent in config.agents:
        if agent.method != "grpo":
            continue
        where, settings = f"config: training.grpo.{agent.settings}", config.training.grpo[agent.settings]
        if settings.processes > 1 and settings.sampler != "transformers":
            raise ScoreError(
                f"{where}.sampler: {settings.sampler} serves one process, and {settings.processes} would wait for each "
                "other in it; use transformers, or gpus: 1"
            )
        if settings.nodes > 1 and judge and judge.own_gpus:
            raise ScoreError(
                f"{where}.nodes: on several nodes there is no place for the reward judge's GPUs; "
                "make it an endpoint (roles.reward_judge), or nodes: 1"
            )


def _check_looks(config: Config) -> None:
    """Held-out questions are neither trained on nor missing."""
    for agent in config.agents:
        if agent.method == "prompt" or not config.training.of(agent.method, agent.settings).eval_every:
            continue
        where = f"config: training.{agent.method}.{agent.settings}.eval_every"
        if not config.data.held_out:
            raise ScoreError(f"{where}: no questions are held out; set data.held_out, or 0")
        if config.data.demonstrations.source == "published":
            raise ScoreError(
                f"{where}: published demonstrations may be of held-out questions; set data.demonstrations.source: "
                "rollout, or 0"
            )


def _check_agent(config: Config, where: str, agent: Agent, earlier: Mapping[str, Agent]) -> None:
    if agent.method == "prompt":
        if agent.model is None:
            raise ScoreError(f"config: {where}.model: a prompted agent needs a model")
        _known(f"{where}.model", agent.model, config.models, "model")
        return
    if agent.start is None or agent.settings is None:
        raise ScoreError(f"config: {where}: a trained agent needs `start` and `settings`")
    _known(f"{where}.start", agent.start, earlier, "agent defined above it")
    _known(
        f"{where}.settings", agent.settings, getattr(config.training, agent.method), f"training.{agent.method} entry"
    )
    _check_reference(config, where, agent, earlier[agent.start])
    if agent.method != "sft" and agent.data is not None:
        raise ScoreError(f"config: {where}.data: only sft agents choose a training set; {agent.method} has its own")
    if agent.teacher is not None:
        if agent.data not in ("corrections", "both_halves"):
            raise ScoreError(f"config: {where}.teacher: only agents that train on corrections have one of their own")
        _known(f"{where}.teacher", agent.teacher, config.models, "model")
        _check_served(f"{where}.teacher", agent.teacher, config)
    if agent.method == "sft" and agent.data is None:
        raise ScoreError(
            f"config: {where}.data: an sft agent needs a training set "
            "(cold_start, demonstrations, corrections, both_halves)"
        )
    if agent.method in ("grpo", "dpo") or agent.data in ("corrections", "both_halves"):
        chain = agent
        while chain.data != "cold_start":
            if chain.start is None:
                raise ScoreError(
                    f"config: {where}: none of its ancestors is trained on cold_start, so it has no corrections"
                )
            chain = earlier[chain.start]


def _check_reference(config: Config, where: str, agent: Agent, start: Agent) -> None:
    """What a full fine-tuning with a KL term is held to is loaded once more, by TRL, from a folder with all weights."""
    if agent.method != "grpo" or start.method == "prompt":
        return
    settings, before = config.training.grpo[agent.settings], config.training.of(start.method, start.settings)
    if settings.beta and settings.lora is None and before.lora is not None and not before.lora.merge:
        raise ScoreError(
            f"config: {where}: beta {settings.beta} without lora needs a start with all its weights; set lora.merge of "
            f"training.{start.method}.{start.settings} to true"
        )


def _known(where: str, word: str, valid: Iterable[str], kind: str) -> None:
    if word not in valid:
        raise ScoreError(f"config: {where}: unknown {kind} {word!r}; {nearest(word, valid)}")
