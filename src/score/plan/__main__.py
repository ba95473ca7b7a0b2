"""What an experiment will cost, before anything is submitted.

    python -m score plan --profile slurm [TARGET ...] [--configfile FILE ...] [--config KEY=VALUE ...] [--gpus N]
        [--assume NAME=VALUE ...] [--calibrate results/PILOT/ledger.csv]
    python -m score plan --against results/EXPERIMENT/ledger.csv

Prints, of the jobs that Snakemake would run now: GPU-hours by rule, tokens by role, search calls, disk and wall time,
then the formulas and every assumption in them; no rate among them has been measured on hardware. --calibrate
multiplies tokens by the ratios of a finished run, whose config.resolved.yaml lies beside its ledger; --against shows
these ratios.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from score import cli
from score.cluster import jobs as cluster_jobs
from score.cluster import profile, site
from score.config import Config
from score.config.load import merge, merged_files
from score.errors import ScoreError
from score.plan import dryrun, estimate, ledger, progress, questions, show, sizes
from score.plan.assumptions import Assumptions, changed
from score.plan.loads import Setting
from score.workflow import Plan, seed_name


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    if not Path("Snakefile").exists():
        raise ScoreError("no Snakefile here; run this in the folder that holds it")
    if args.against:
        _compare(args)
        return
    chosen = profile.find(args.profile)
    raw = _raw(args.configfile or chosen.configfiles, args.config)
    plan = Plan(raw, images=chosen.apptainer)
    assumed = changed(Assumptions(), args.assume, _names(plan.config))
    setting = _setting(plan, Path(plan.root), assumed)
    if args.calibrate:
        setting = _calibrated(setting, args.calibrate)
    found = dryrun.jobs(args.profile, _words(args))
    costs = estimate.costs(found, setting, progress.done(plan, found))
    needed = [cluster_jobs.image(name) for name in cluster_jobs.images(plan.config)] if chosen.apptainer else []
    unbuilt = any(not path.exists() for path in needed)
    whole = estimate.estimate(costs, setting, args.gpus, images=unbuilt)
    _say("\n\n".join(show.paragraphs(whole, setting, args.calibrate)))


def _compare(args: argparse.Namespace) -> None:
    """Expected and actual of a finished run."""
    plan = _finished(args.against)
    assumed = changed(Assumptions(), args.assume, _names(plan.config))
    setting = _setting(plan, args.against.parent, assumed)
    if args.calibrate:
        setting = _calibrated(setting, args.calibrate)
    found = ledger.pairs(ledger.expected(ledger.pieces(plan), setting), ledger.read(args.against))
    _say(show.comparison(found))


def _say(text: str) -> None:
    """On stdout, whose reader may have seen enough (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own flush at the end fails again


def _calibrated(setting: Setting, file: Path) -> Setting:
    """With the ratios of a finished run."""
    plan = _finished(file)
    theirs = _setting(plan, file.parent, setting.assumed)
    pairs = ledger.pairs(ledger.expected(ledger.pieces(plan), theirs), ledger.read(file))
    return replace(setting, factors=ledger.factors(pairs))


def _finished(file: Path) -> Plan:
    """The plan of the run that wrote a ledger."""
    ledger.read(file)  # whatever is wrong with it is told first
    config = file.parent / "config.resolved.yaml"
    if not config.exists():
        raise ScoreError(f"{config}: no such file; a ledger is read with the config of its run beside it")
    return Plan(merged_files([config]), main=False)


def _setting(plan: Plan, root: Path, assumed: Assumptions) -> Setting:
    """
    Args:
        root: the results folder whose questions are counted.
    """
    config, home = plan.config, site.hub(plan.site, os.environ)
    return Setting(
        *(config, questions.count(config, root, assumed), assumed, sizes.parameters(config, home, assumed)),
        judged_rows=ledger.judged_rows(plan),
    )


def _names(config: Config) -> dict[str, list[str]]:
    """What single things there are to assume something of."""
    models = list(config.models)
    return {"parameters": models, "rate": models, "questions": [seed_name(path) for path in config.data.seeds]}


def _raw(files: Sequence[str], entries: Sequence[str]) -> Mapping[str, Any]:
    """The config as Snakemake merges it."""
    from snakemake.cli import parse_config

    raw = merged_files([Path("config.yaml"), *map(Path, files)])
    try:
        return merge(raw, parse_config(entries))
    except ValueError as error:
        raise ScoreError(f"--config: {error}") from None


def _words(args: argparse.Namespace) -> list[str]:
    """The same choice on Snakemake's command line."""
    words = [*args.targets, *(["--forceall"] if args.forceall else [])]
    for option in ("configfile", "config", "set_scatter"):
        if values := getattr(args, option):
            words += [f"--{option.replace('_', '-')}", *values]
    return words


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="score plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="as for snakemake; before other options")
    parser.add_argument("--profile", default="slurm")
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays, as for snakemake")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake")
    parser.add_argument("--set-scatter", nargs="+", default=[], metavar="STAGE=N", help="shards, as for snakemake")
    parser.add_argument("--forceall", action="store_true", help="as if nothing were finished")
    parser.add_argument("--gpus", type=int, metavar="N", help="for the wall time; default: those of the widest job")
    parser.add_argument("--assume", nargs="+", default=[], metavar="NAME=VALUE", help="another value of an assumption")
    parser.add_argument("--calibrate", type=Path, metavar="LEDGER", help="ledger.csv of a finished run")
    parser.add_argument("--against", type=Path, metavar="LEDGER", help="compare what was expected with this ledger.csv")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
