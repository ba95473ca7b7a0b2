"""Folders, models and keys that jobs will need, looked at from the login node. Nothing is written that stays."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from score.cluster import jobs, site
from score.cluster.finding import Finding, bad, good, unchecked
from score.config import Config, lineage
from score.config.schema import Model
from score.engine import BASE_STUDENT, served
from score.errors import InfrastructureError, ScoreError
from score.models import access, made
from score.models.folder import COMMIT, Record, again, cached, commit_of, fault, weights
from score.train.memory import GB, KINDS, Shape, estimate

MODELS_PER_RUN = 7
"""Disk of a training run, in sizes of its model in bfloat16: itself, and a checkpoint of weights and Adam's moments in
float32 (6)."""
CHECKPOINT, AT_ONCE = 6, 4
"""While it trains, a run keeps one checkpoint more; so many are assumed to train at the same time."""
_ROWS_BYTES = 5 * GB  # trajectories, logs and tables of one experiment
_UNKNOWN_BYTES = 16 * GB  # a model whose size neither its files nor its name tell
_BYTES = 2  # a parameter in bfloat16


def model(name: str, entry: Model, home: Path) -> Finding:
    """The model of a config entry, and its adapters, can be read; or the model will be made or fetched by a rule.

    Args:
        home: the hub's cache (HF_HOME) as jobs see it.
    """
    return _with_adapters(_base(name, entry, home), name, entry, home)


def _with_adapters(found: Finding, name: str, entry: Model, home: Path) -> Finding:
    if found.ok is False or entry.engine != "vllm" or not entry.adapters:
        return found
    adapters = [_adapter(name, *item, home) for item in entry.adapters.items()]
    well = dataclasses.replace(found, says=f"{found.says}; adapters: {', '.join(entry.adapters)}")
    return next((adapter for adapter in adapters if not adapter.ok), well)


def _base(name: str, entry: Model, home: Path) -> Finding:
    label, path, rule = f"model {name}", entry.path or "", made(entry)
    if entry.engine in ("oracle", "endpoint") or path == BASE_STUDENT:
        return good(label, f"{entry.engine}, nothing to load" if path != BASE_STUDENT else "shipped with the code")
    if path.startswith(("~", "$")):
        return bad(label, f"{path}: a model's path is taken as it stands", f"models.{name}.path: write the folder out")
    if rule is None or (os.path.isdir(path) and not rule.endswith(".json")):
        return _folder(label, Path(path), entry)
    if not rule.endswith(".json"):
        return good(label, f"{path}: a rule will make it on the login node")
    return _of_the_hub(label, entry, home, Path(rule))


def _of_the_hub(label: str, entry: Model, home: Path, record: Path) -> Finding:
    if not record.exists():
        return _to_fetch(label, entry, home)
    found = cached(entry.path, home, entry.revision or "main")
    if not found:
        return bad(label, f"{entry.path}: {record} says that it was downloaded, but it is not in {home}", again(record))
    try:
        told = Record.read(record)
    except ScoreError as error:
        return bad(label, f"{entry.path}: {error}")
    now = found[0].name
    if told.commit != now:
        return bad(label, f"{entry.path}: {record} is of commit {told.commit}, and {home} has {now} now", again(record))
    if why := told.changed(found[0]):
        return bad(label, f"{entry.path}: {why}")
    return good(label, f"{entry.path}: in {home}{_licence(entry)}")


def to_fetch(name: str, entry: Model, home: Path) -> Finding:
    """A model that a rule is about to make or fetch: may it?"""
    label = f"model {name}"
    if (made(entry) or "").endswith(".json"):
        found = _to_fetch(label, entry, home)
    else:
        found = good(label, f"{entry.path}: a rule will make it")
    return _with_adapters(found, name, entry, home)


def _to_fetch(label: str, entry: Model, home: Path) -> Finding:
    path, licence = entry.path, _licence(entry)
    found = cached(path, home, entry.revision or "main")
    if found and not fault(found[0]):
        return good(label, f"{path}: in {home}; rule hub_model will check it on the login node{licence}")
    if entry.gated and not access.has_token(home):
        return bad(label, access.gated(path))
    return good(label, f"{path}: rule hub_model will download it to {home} on the login node{licence}")


def _licence(entry: Model) -> str:
    return f" (licence: {entry.licence})" if entry.licence else ""


def _adapter(model: str, name: str, path: str, home: Path) -> Finding:
    label, key = f"model {model}", f"models.{model}.adapters.{name}"
    if path.startswith(("~", "$")):
        return bad(label, f"adapter {name}: {path}: a path is taken as it stands", f"{key}: write the folder out")
    if path.count("/") == 1 and not path.startswith((".", "/")) and not Path(path).is_dir():
        if cached(path, home):
            return good(label, f"adapter {name}: {path}: in {home}")
        says = f"adapter {name}: {path}: no such folder, and not in {home}"
        return bad(label, says, "download it there: no rule does, and jobs are offline")
    if why := fault(Path(path), config="adapter_config.json"):
        says = why.rpartition("; ")[0]
        return bad(label, f"adapter {name}: {says}", f"correct {key}, or copy all of it there")
    return good(label, f"adapter {name}: {path}")


def _folder(label: str, place: Path, entry: Model) -> Finding:
    if why := fault(place):
        return bad(label, why)
    commit, wanted = commit_of(place), entry.revision or ""
    if commit and COMMIT.fullmatch(wanted) and commit != wanted:
        says = f"{place}: it is commit {commit}, not the config's revision {wanted}"
        return bad(label, says, "copy that one there, or correct `revision`")
    if wanted and commit != wanted:
        return unchecked(
            label, f"{place}: whole, but it does not tell whether it is {wanted} (score.models.hub --folder)"
        )
    return good(label, f"{place}: {_size(place) / GB:.1f} GB of weights{_licence(entry)}")


def endpoint(name: str, entry: Model, *, away: bool) -> Finding:
    """A remote model is the one that its entry names, as far as its server tells this machine.

    Args:
        away: jobs run on other machines.
    """
    label = f"model {name}"
    try:
        return good(label, served.check(entry, away=away))
    except ScoreError as error:
        return bad(label, str(error).removeprefix("models: "))
    except InfrastructureError as error:
        return unchecked(label, str(error))


def training(config: Config, agent: str, home: Path, room_gb: float | None) -> Finding:
    """A training run fits into the memory of its GPUs, as `score.train.memory` estimates it."""
    entry, label = config.models[lineage.base_model(config, agent)], f"training {agent}"
    method, settings = (word := lineage.agent(config, agent)).method, word.settings
    folders = [Path(entry.path)] if Path(entry.path or "").is_dir() else cached(entry.path or "", home)
    try:
        about = json.loads((folders[0] / "config.json").read_text(encoding="utf-8"))
    except (IndexError, OSError, ValueError):  # of a file that is not as it should be, the model's own line tells
        return unchecked(label, f"the shape of {entry.path} is known once it is downloaded")
    shape = Shape.of(about)
    if shape is None:
        return unchecked(label, f"{entry.path}: no decoder of a kind that can be estimated ({', '.join(KINDS)})")
    found = estimate(shape, config.training.of(method, settings), weight_bytes=4 if entry.dtype == "float32" else 2)
    if room_gb is None:
        return unchecked(label, f"{found}; site.yaml names no gpu_memory_gb")
    if found.total <= room_gb * GB:
        return good(label, f"{found} of {room_gb:g}")
    mend = f"training.{method}.{settings}: lower micro_batch, raise gpus (sharding: fsdp2), or set lora"
    return bad(label, f"{found}, which has {room_gb:g}", mend)


def keys(config: Config, used: Iterable[str], environ: Mapping[str, str]) -> Finding:
    """Every variable that models in use and search read is set here, so that jobs inherit it. No value is shown."""
    remote = {name: entry for name, entry in config.models.items() if entry.engine == "endpoint"}
    endpoints = {name: entry.api_key_env for name, entry in remote.items() if entry.api_key_env}
    needed = {endpoints[name] for name in used if name in endpoints}
    wanted = [name for name in site.keys(config) if name in needed or name not in endpoints.values()]
    if config.search.mode == "replay":  # the cache answers
        wanted = [name for name in wanted if name in needed or name in _variables(config.search.cache)]
    missing = [name for name in wanted if not environ.get(name)]
    if missing:
        return bad("keys", f"not set: {', '.join(missing)}", "export it in the shell that starts snakemake")
    return good("keys", ", ".join(wanted) + (" set" if wanted else "none needed"))


def _variables(text: str | None) -> list[str]:
    return re.findall(r"\$\{?(\w+)", text or "")


def writable(name: str, folder: Path) -> Finding:
    """A file can be written in the folder, or in the nearest one above it that exists."""
    place = existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return bad(name, f"{place}: cannot be written ({error.strerror})", "mend its rights, or name another folder")
    return good(name, f"{folder}: writable")


def bind(folder: str) -> Finding:
    """A folder that the site wants bound; jobs go without one that their node does not have."""
    if os.path.isdir(os.path.expandvars(folder)):
        return good("binds", f"{folder}: there")
    return bad("binds", f"{folder}: no such folder here", "mend site.yaml; ignore this if compute nodes alone have it")


def search_cache(config: Config, environ: Mapping[str, str]) -> Finding:
    """The folder of recorded answers is there to replay from, or to record into."""
    label, search = "search cache", config.search
    if search.mode == "live":
        return unchecked(label, "search.mode is live: none")
    if any(name not in environ for name in _variables(search.cache)):
        return unchecked(label, f"{search.cache}: a folder of the compute node")
    folder = Path(os.path.expandvars(search.cache))
    if search.mode == "record":
        return writable(label, folder)
    lost = [purpose for purpose in ("train", "test") if not os.access(folder / f"{purpose}.sqlite", os.R_OK)]
    if lost:
        mend = "record them first (search.mode: record), or import them (python -m score.search)"
        return bad(label, f"{folder}: no {', '.join(f'{name}.sqlite' for name in lost)} to replay from", mend)
    return good(label, f"{folder}: readable")


def space(config: Config, results: Path, home: Path) -> list[Finding]:
    """Free space where results and downloaded models go, against a rough need; one finding per file system."""
    used = [config.models[name] for name in jobs.models(config, jobs.stages(config))]
    fetched = [
        entry
        for entry in used
        if (made(entry) or "").endswith(".json") and not cached(entry.path, home, entry.revision)
    ]
    runs = _runs_to_come(config, results)
    sizes = sorted((size(entry, home) for entry, _ in runs), reverse=True)
    best = [size(entry, home) for entry, looks in runs if looks]  # a second checkpoint, the best one
    wanted = {
        "results": (results, _ROWS_BYTES + MODELS_PER_RUN * sum(sizes) + CHECKPOINT * sum([*best, *sizes[:AT_ONCE]])),
        "models": (home, sum(size(entry, home) for entry in fetched)),
    }
    models = f"{MODELS_PER_RUN} x model for each of {len(runs)} training runs, {CHECKPOINT} more for each of "
    models += f"{len(best)} that look at held-out questions, and {CHECKPOINT} for {AT_ONCE} at once"
    formula = f"{_ROWS_BYTES // GB} GB + {models}"
    by_device: dict[int, list[str]] = {}
    for name, (folder, _) in wanted.items():
        by_device.setdefault(os.stat(existing(folder)).st_dev, []).append(name)
    found = []
    for names in by_device.values():
        need = sum(wanted[name][1] for name in names)
        why = ", ".join({"results": formula, "models": f"{len(fetched)} downloads"}[name] for name in names)
        found.append(enough(f"space {' + '.join(names)}", existing(wanted[names[0]][0]), need, why))
    return found


def enough(name: str, folder: Path, need: int, why: str) -> Finding:
    """Is `need` free in a folder's file system? A user's quota is not seen."""
    free = shutil.disk_usage(folder).free
    says = f"{free / GB:.0f} GB free, roughly {need / GB:.0f} GB needed ({why})"
    return good(name, says) if free >= need else bad(name, f"{folder}: {says}", "make room, or use another folder")


def _runs_to_come(config: Config, results: Path) -> list[tuple[Model, bool]]:
    """Of every training run that has no result yet: its model, and whether it looks at held-out questions."""
    shown = [agent.name for agent in config.agents if agent.name not in config.skip and agent.tables]
    wanted = {entry.name: entry for name in shown for entry in lineage.ancestors(config, name)}
    trained = [name for name, entry in wanted.items() if entry.method != "prompt"]
    runs = [(name, lineage.run(name, seed)) for name in trained for seed in config.seeds]
    return [
        (config.models[lineage.base_model(config, name)], lineage.looks(config, name))
        for name, run in runs
        if not (results / "train" / run / "model").is_dir()
    ]


def size(entry: Model, home: Path) -> int:
    """Bytes of a model's weights: of its files, else as its name tells ("7B" in bfloat16), else a guess."""
    path = entry.path or ""
    if path == BASE_STUDENT:
        return GB // 100
    folders = [Path(path)] if Path(path).is_dir() else cached(path, home)
    if folders and weights(folders[0]):
        return _size(folders[0])
    parameters = named(path)
    return _UNKNOWN_BYTES if parameters is None else int(parameters * _BYTES)


def named(name: str) -> float | None:
    """Parameters, as a model's name tells them ("7B")."""
    match = re.search(r"(\d+(?:\.\d+)?)([bm])\b", name.lower())
    return float(match[1]) * {"b": 10**9, "m": 10**6}[match[2]] if match else None


def _size(place: Path) -> int:
    return sum(file.stat().st_size for file in weights(place))


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = Path(os.path.abspath(folder))
    return next(place for place in (folder, *folder.parents) if place.is_dir())
