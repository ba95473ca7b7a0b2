"""Are the models there that the jobs of a workflow will load or ask? Looked at once, before the first job runs.

What it knows without the network: folders, records of downloads, whether a gated one can be had. Endpoints are asked
for their list of models; one that does not tell fails nothing, as it may be up later, or be reached from nodes alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from score.cluster import jobs, places
from score.cluster.finding import Finding
from score.config import Config
from score.errors import ScoreError
from score.models import made

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A job that is going to run."""

    rule: str
    wildcards: Mapping[str, str]
    makes: tuple[str, ...] = ()
    """Its output files."""


def check(config: Config, coming: Iterable[Job], home: Path, *, away: bool) -> None:
    """
    Args:
        coming: the jobs that will run now; models that none of them takes are not looked at.
        home: the hub's cache (HF_HOME) as jobs see it.
        away: jobs run on other machines.
    Raises:
        ScoreError: one line; the first model that its jobs could not use.
    """
    coming = list(coming)
    fetched = {path for job in coming for path in job.makes}
    taken = {name: None for job in coming for name in jobs.loaded(config, job.rule, job.wildcards.get("agent"))}
    for name, entry in config.models.items():
        if name not in taken and made(entry) not in fetched:
            continue
        finding = _finding(config, name, home, away=away, is_fetched=made(entry) in fetched)
        if finding.ok is False:
            raise ScoreError(f"models.{name}: {finding.words}")
        if finding.ok is None:
            log.warning("models.%s: not checked: %s", name, finding.words)


def _finding(config: Config, name: str, home: Path, *, away: bool, is_fetched: bool) -> Finding:
    entry = config.models[name]
    if entry.engine == "endpoint":
        return places.endpoint(name, entry, away=away)
    if is_fetched:
        return places.to_fetch(name, entry, home)
    return places.model(name, entry, home)
