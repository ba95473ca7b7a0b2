"""What a cluster calls its things: one short file per site, and the environment that jobs get from it.

The file is `site.yaml` beside the Snakefile (`$SCORE_SITE` names another); `profiles/slurm/site.example.yaml` is one to
copy. Everything else about SLURM is in `profiles/slurm/profile.yaml`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from score.config.mistakes import nearest, one_line
from score.config.schema import Config
from score.config.section import Section
from score.errors import ScoreError
from score.models import access

FILE = "site.yaml"
EXAMPLE = "profiles/slurm/site.example.yaml"
_ALWAYS = (
    "SCORE_CONFIG",
    "SCORE_COMMIT",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "TMPDIR",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "SLURM_JOB_ID",
    "PYTHONUTF8",
)
_TIME = r"\d+(\.\d+)?|(\d+-)?\d+(:\d\d?){0,2}|(\d+[dhms])+"  # minutes, SLURM's words, Snakemake's words
_LOGIN = (*access.VARIABLES, "HF_ENDPOINT", "http_proxy", "https_proxy", "no_proxy")
"""For downloads, which are rules of the login node; no job gets them."""
_BACKEND_KEYS = {"serper": ("SERPER_API_KEY",), "tavily": ("TAVILY_API_KEY",)}


class Site(Section):
    account: str | None = Field(None, description="SLURM account; null where there are none")
    qos: str | None = Field(None, description="quality of service, where a site wants one named")
    partitions: dict[str, dict[str, Any]] = Field(
        min_length=1, description="partition -> its limits, in the words of the SLURM executor plugin"
    )
    gpu_model: str | None = Field(None, description="GPU type as SLURM calls it, where a partition has several")
    gpu_memory_gb: float | None = Field(None, gt=0, description="memory of one GPU (10^9 bytes), for `score doctor`")
    scratch: str | None = Field(None, description="node-local folder for temporary files; may name $VARIABLES")
    models: str | None = Field(None, description="shared folder of downloaded models (HF_HOME); may name $VARIABLES")
    variant: Literal["cuda", "cpu"] = Field("cuda", description="which images are built and used")
    binds: list[str] = Field(default_factory=list, description="further folders that jobs see")
    environment: list[str] = Field(default_factory=list, description="further variables that jobs get, by name")


def path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the site file is, whether it exists or not."""
    return Path(environ.get("SCORE_SITE") or FILE)


def read(file: Path | None = None) -> Site | None:
    """The site, or None where there is no site file. Raises `ScoreError` with one line that names the first mistake."""
    file = path() if file is None else file
    if not file.exists():
        if os.environ.get("SCORE_SITE"):
            raise ScoreError(f"SCORE_SITE: {file}: no such file; copy {EXAMPLE}")
        return None
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScoreError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    except OSError as error:
        raise ScoreError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        site = Site.model_validate(raw or {})
    except ValidationError as error:
        raise ScoreError(one_line(error, Site, str(file))) from None
    for name, limits in site.partitions.items():
        for key, value in limits.items():
            _check_limit(f"{file}: partitions.{name}.{key}", key, value)
    return site


def _check_limit(where: str, key: str, value: Any) -> None:
    """The executor plugin would stumble over a wrong limit in the middle of the run, or take it for none."""
    from snakemake_executor_plugin_slurm.partitions import PartitionLimits

    kinds = {field.name: field.type for field in dataclasses.fields(PartitionLimits)} | {"cluster": str}
    if key not in kinds:
        raise ScoreError(f"{where}: unknown limit; {nearest(key, kinds)}")
    if key == "max_runtime" and isinstance(value, str):
        if not re.fullmatch(_TIME, value.strip()):  # the plugin takes any word that begins like a unit
            raise ScoreError(f'{where}: {value!r} is no time; minutes or "2-00:00:00"')
        return
    try:
        TypeAdapter(kinds[key]).validate_python(value, strict=True)
    except ValidationError as error:
        raise ScoreError(f"{where}: {error.errors()[0]['msg'].lower()}, not {value!r}") from None


def submission(site: Site, file: Path) -> dict[str, str]:
    """Variables that sbatch and the executor plugin read: account, quality of service, and how to choose a
    partition."""
    named = {"SBATCH_ACCOUNT": site.account, "SBATCH_QOS": site.qos, "SNAKEMAKE_SLURM_PARTITIONS": str(file.resolve())}
    return {name: value for name, value in named.items() if value}


def environment(
    site: Site | None, config: Config, environ: Mapping[str, str], *, source: Path, job: bool
) -> dict[str, str]:
    """Variables that reach the models: folders, offline mode, and what a container lets through.

    Args:
        environ: the process's own variables, `SCORE_CONFIG` and `PYTHONPATH` among them.
        source: the folder that holds this package.
        job: on a compute node (its scratch folder exists there alone).
    Raises:
        ScoreError: the scratch folder names a variable that the node does not have.
    """
    home = hub(site, environ)
    # Both: a user's own HF_HUB_CACHE would send downloads where no check looks.
    ours = {
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": environ.get("HF_HUB_OFFLINE", "1"),
    }
    if site and site.scratch and job:
        ours["TMPDIR"] = _expand(site.scratch, environ, "scratch")
    seen = {**environ, **ours}
    # The login node's own folder for temporary files need not exist on the compute nodes, which inherit this.
    mine = ("HF_HOME", "TMPDIR") if job else ("HF_HOME",)
    folders = [source, *_behind_links(source), *(seen[name] for name in mine if name in seen), *_folders(config, seen)]
    folders += [os.path.expandvars(folder) for folder in (site.binds if site else ())]
    there = dict.fromkeys(os.path.abspath(folder) for folder in map(str, folders) if os.path.isdir(folder))
    ours["APPTAINER_BIND"] = ",".join([*_given(environ, there), *there])
    passed = [*_ALWAYS, *keys(config), *(site.environment if site else ())]
    passing = {name: seen[name] for name in passed if name in seen} | {"PYTHONPATH": str(source)}
    login = {name: "" if job else seen[name] for name in _LOGIN if name in seen}
    return ours | {f"APPTAINERENV_{name}": value for name, value in (login | passing).items()}


def _behind_links(source: Path) -> list[Path]:
    """Where images really lie that `containers/` only links to: a job reads its own one to record its sha256."""
    folder = source.parent / "containers"
    return sorted({path.resolve().parent for path in folder.glob("*.sif")} - {folder})


def hub(site: Site | None, environ: Mapping[str, str]) -> Path:
    """The cache of downloaded models. An image has another home folder, so its path is always written out."""
    named = _expand(site.models, environ, "models") if site and site.models else environ.get("HF_HOME")
    return Path(os.path.abspath(named)) if named else Path.home() / ".cache" / "huggingface"


def _given(environ: Mapping[str, str], ours: Mapping[str, None]) -> list[str]:
    """Binds that the user asked for; a folder that this node does not have would keep Apptainer from starting."""
    parts = [part for part in environ.get("APPTAINER_BIND", "").split(",") if part and part not in ours]
    return [part for part in parts if ":" in part or os.path.exists(part)]


def keys(config: Config) -> list[str]:
    """Environment variables that the config's models, search and judges read."""
    search = config.search
    endpoints = [
        model.api_key_env for model in config.models.values() if model.engine == "endpoint" and model.api_key_env
    ]
    named = [name for text in (search.url, search.cache) if text for name in re.findall(r"\$\{?(\w+)", text)]
    return list(dict.fromkeys([*endpoints, *_BACKEND_KEYS.get(search.backend, ()), *named]))


def _folders(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """Folders outside the working directory that the config names."""
    for text in (config.search.cache, config.search.corpus and os.path.dirname(config.search.corpus)):
        if text:
            yield os.path.expandvars(text)
    if config.data.source and "://" not in config.data.source:
        yield config.data.source
    for model in config.models.values():
        yield from filter(os.path.isabs, [model.path or "", *model.adapters.values()])


def _expand(text: str, environ: Mapping[str, str], key: str) -> str:
    """`text` with $VARIABLES replaced."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in environ:
            raise ScoreError(f"{path()}: {key}: ${name} is not set here")
        return environ[name]

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, text)
