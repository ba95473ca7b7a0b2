"""Before jobs run: what they inherit from the process that a user started, and what would make them fail."""

from __future__ import annotations

import os
from pathlib import Path

from score import fresh
from score.cluster import preflight, queue, site
from score.jsonl import write_text
from score.provenance import git_commit
from score.records import content_key
from score.workflow import Plan


def share(plan: Plan) -> None:
    """Lets jobs import this package, read this config and know the site: they inherit it all from this process,
    on a cluster too, where each job calls this again with the variables that SLURM gave it.

    The config is no input file of any rule: it would be newer than everything at each change. What a rule depends
    on is in its params as a fingerprint. The file is named after its content, so that another invocation with
    another config cannot change it under a running job.
    """
    source = Path(__file__).parents[1]
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part not in ("", str(source))]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(source), *others])
    path = Path(plan.root, "work", "config", f"{content_key(plan.resolved())}.yaml")
    if not path.exists():
        write_text(path, plan.resolved())
    os.environ["SCORE_CONFIG"] = str(path)
    if commit := git_commit():
        os.environ["SCORE_COMMIT"] = commit  # for jobs in images, which have no git
    if plan.site and plan.is_main:
        os.environ.update(site.submission(plan.site, site.path()))
    os.environ.update(site.environment(plan.site, plan.config, os.environ, source=source, job=not plan.is_main))


def start(plan: Plan, executor: str, arrays: str | None = None) -> None:
    """Called when jobs are about to run.

    Args:
        executor: "local", "slurm", ...
        arrays: rules whose SLURM jobs are sent as job arrays, as the profile names them.
    Raises:
        ScoreError: the experiment is running already, an array would give jobs the GPUs of others, or on a cluster
            something would make every job fail.
        InfrastructureError: SLURM does not answer.
    """
    if not plan.is_main:
        return
    if executor == "slurm":
        preflight.before_submission(plan.config, plan.site, arrays=arrays or "", images=plan.images)
    queue.claim(Path(plan.root))
    if executor == "slurm":
        queue.cancel_orphans(Path(plan.root))
    fresh.remember(Path(plan.root), plan.fresh)
