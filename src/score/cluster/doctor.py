"""Will `snakemake --profile slurm` work here? One line per check, before anything is queued; then a probe job.

    python -m score doctor --profile slurm [--configfile configs/micro.yaml] [--no-probe] [--timeout 120]

Of a profile that runs jobs on this machine, only what they need here is looked at: models, keys, folders, space.
Each line begins with ok, FAIL or skip (could not be checked); a FAIL says how to mend it, and makes the exit code 1.
The probe is one small job for each kind of partition in use (GPU, CPU), in the environment and image of a real job.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from score import cli, launch
from score.cluster import checks, jobs, places, preflight, probing, profile, report, site, slurm
from score.cluster.finding import Finding, bad, good, unchecked
from score.cluster.queue import Slurm
from score.cluster.queue import slurm as ask_slurm
from score.config import Config, load
from score.config.load import merge
from score.errors import InfrastructureError, ScoreError
from score.workflow import Plan

PACKAGES = ("snakemake", "snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep")
_PROBE_GPUS = 2  # one would not tell whether a job gets as many as it asks for


@dataclass(frozen=True)
class Setup:
    """What is being checked."""

    profile: profile.Profile
    raw: Mapping[str, Any]
    config: Config
    site: site.Site | None

    @property
    def needs(self) -> list[jobs.Need]:
        return jobs.needs(self.config, self.profile, self.site)

    @property
    def models(self) -> list[str]:
        """Keys of the models in use."""
        return jobs.models(self.config, jobs.stages(self.config))

    @property
    def results(self) -> Path:
        return Path("results", self.config.experiment)


def examine(
    name: str, configfiles: Sequence[str], ask: Slurm, *, probe: bool = True, timeout_s: float = 120
) -> Iterator[Finding]:
    """Yields findings as they are made. What cannot be known without a valid config or site file is left out."""
    lock = Path("envs/core.lock").read_text(encoding="utf-8")
    yield checks.versions(lock, {package: _version(package) for package in PACKAGES})
    chosen = profile.find(name)
    found, setup = _read(chosen, list(configfiles) or chosen.configfiles)
    yield from found
    if chosen.is_slurm:
        answers, known = _slurm(ask)
        yield answers
    else:
        yield unchecked("SLURM", f"{chosen.file} runs jobs on this machine")
    if setup is None:
        return
    if not chosen.is_slurm or setup.site is None:
        yield from _places(setup)
        return
    os.environ.update(site.submission(setup.site, site.path()))
    healthy = answers.ok is True
    if healthy:
        healthy = yield from _agreement(setup, known, ask)
    images = list(_images(setup))
    yield from images
    healthy = healthy and all(finding.ok is not False for finding in images)
    written = False
    for finding in _places(setup):
        written = written or (finding.name == "results" and finding.ok is True)
        yield finding
    if not probe:
        yield unchecked("probe", "left out: --no-probe")
    elif not (healthy and written):
        yield unchecked("probe", "needs SLURM, its partitions, the images and the results folder, see above")
    else:
        yield from _probe(setup, ask, timeout_s)


def _read(chosen: profile.Profile, overlays: Sequence[str]) -> tuple[list[Finding], Setup | None]:
    """The files that say what is to run where."""
    found, raw, config, here = [], {}, None, None
    try:
        for file in ["config.yaml", *overlays]:
            raw = merge(raw, yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {})
        config = load(raw)
        found.append(good("config", f"experiment {config.experiment!r}"))
    except (ScoreError, OSError, yaml.YAMLError) as error:
        found.append(bad("config", str(error)))
    try:
        here = site.read()
        if here:
            found.append(good("site file", f"{site.path()}: partitions {', '.join(here.partitions)}"))
        elif chosen.is_slurm:
            found.append(bad("site file", f"{site.path()}: no such file", f"copy {site.EXAMPLE}"))
    except ScoreError as error:
        found.append(bad("site file", str(error)))
    return found, Setup(chosen, raw, config, here) if config else None


def _slurm(ask: Slurm) -> tuple[Finding, dict[str, slurm.Partition]]:
    try:
        known, settings = slurm.partitions(ask), slurm.settings(ask)
    except InfrastructureError as error:
        return bad("SLURM", str(error), "load its module, or ask when it is back"), {}
    return good("SLURM", f"version {settings.get('SLURM_VERSION', 'unknown')} answers"), known


def _agreement(setup: Setup, known: Mapping[str, slurm.Partition], ask: Slurm) -> Iterator[Finding]:
    """SLURM against site file and profile; returns whether a probe could run."""
    first = [checks.partition(name, setup.site, known) for name in setup.site.partitions]
    first.append(preflight.account_finding(setup.site, ask))
    yield from first
    yield checks.status(setup.profile, slurm.settings(ask))
    yield checks.arrays(setup.profile.array_jobs, jobs.stages(setup.config), setup.config)
    broken = [name for name, finding in zip(setup.site.partitions, first, strict=False) if not finding.ok]
    try:
        yield from checks.fit(setup.needs, setup.site, known, broken, ask)
    except ScoreError as error:
        yield bad("jobs", str(error))
        return False
    return all(finding.ok is not False for finding in first)


def _images(setup: Setup) -> Iterator[Finding]:
    if setup.profile.apptainer:
        yield from preflight.image_findings(setup.config, setup.site)
    else:
        yield unchecked("images", f"{setup.profile.file} uses none: jobs run in {sys.prefix}")


def _places(setup: Setup) -> Iterator[Finding]:
    config, home = setup.config, site.hub(setup.site, os.environ)
    yield from checks.division(jobs.stages(config), config)
    for name in setup.models:
        entry = config.models[name]
        if entry.engine == "endpoint":
            yield places.endpoint(name, entry, away=setup.profile.is_slurm)
        else:
            yield places.model(name, entry, home)
    for agent in jobs.trained_on_gpus(config):
        yield places.training(config, agent, home, setup.site and setup.site.gpu_memory_gb)
    yield places.keys(config, setup.models, os.environ)
    yield places.search_cache(config, os.environ)
    yield from map(places.bind, setup.site.binds if setup.site else ())
    yield places.writable("results", setup.results)
    yield places.writable("models folder", home)
    yield from places.space(config, setup.results, home)


def probes(needs: Sequence[jobs.Need], here: site.Site) -> list[report.Ask]:
    """One probe for each kind of partition in use: where most of its jobs go."""
    found = []
    for kind, some in (("gpu", [n for n in needs if n.gpus]), ("cpu", [n for n in needs if not n.gpus])):
        names = [name for need in some if (name := jobs.partition(need, here))]
        if names:
            gpus = min(_PROBE_GPUS, max(need.gpus for need in some))
            model = (here.gpu_model or "") if gpus else ""
            found.append(report.Ask(kind, max(names, key=names.count), gpus, model))
    return found


def _probe(setup: Setup, ask: Slurm, timeout_s: float) -> Iterator[Finding]:
    """Sends the probes with the variables that snakemake would have."""
    launch.share(Plan(setup.raw))
    apptainer = setup.profile.apptainer
    order = {
        "cuda": setup.site.variant == "cuda",
        "models": setup.models,
        "image": str(jobs.image("serve")) if apptainer else None,
        "apptainer_args": setup.profile.apptainer_args,
    }
    if not (asks := probes(setup.needs, setup.site)):
        yield unchecked("probe", "no job has a partition, see above")
    yield from probing.run(asks, order, setup.results, ask, timeout_s=timeout_s)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="score doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="slurm")
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays, as for snakemake")
    parser.add_argument("--no-probe", action="store_true", help="queue nothing")
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="for the probe jobs together")
    args = parser.parse_args(argv)
    if not Path("Snakefile").exists():
        raise ScoreError("no Snakefile here; run this in the folder that holds it")
    failed = 0
    found = examine(args.profile, args.configfile, ask_slurm, probe=not args.no_probe, timeout_s=args.timeout)
    try:
        with contextlib.closing(found):  # whatever ends this, no probe job is left
            for finding in found:
                print(finding.line(), flush=True)
                failed += finding.ok is False
    except KeyboardInterrupt:
        sys.exit("interrupted; no job is left")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
