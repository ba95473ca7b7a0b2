"""Before jobs run: what they inherit from the process that a user started, and what would make them fail."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from score import fresh, watch
from score.cluster import apptainer, jobs, preflight, queue, ready, site
from score.config import lineage
from score.errors import ScoreError
from score.jsonl import write_text
from score.provenance import git_commit
from score.records import content_key
from score.train.launch import IMAGE
from score.workflow import Plan


def share(plan: Plan, apptainer_args: str = "") -> None:
    """Lets jobs import this package, read this config and know the site: they inherit it all from this process,
    on a cluster too, where each job calls this again with the variables that SLURM gave it.

    The config is no input file of any rule: it would be newer than everything at each change. What a rule depends
    on is in its params as a fingerprint. The file is named after its content, so that another invocation with
    another config cannot change it under a running job.

    Args:
        apptainer_args: the profile's, for jobs that start their image themselves.
    """
    source = Path(__file__).parents[1]
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part not in ("", str(source))]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(source), *others])
    path = Path(plan.root, "work", "config", f"{content_key(plan.resolved())}.yaml")
    if not path.exists():
        write_text(path, plan.resolved())
    os.environ["SCORE_CONFIG"] = str(path)
    watch.name_workflow()
    if commit := git_commit():
        os.environ["SCORE_COMMIT"] = commit  # for jobs in images, which have no git
    if plan.images and plan.is_main:
        site.hub(plan.site, os.environ).mkdir(parents=True, exist_ok=True)  # what does not exist cannot be bound
    if plan.images:
        program = apptainer.find()  # a node may lack what the login node has; its job says so if it needs it
        words = [program, "exec", "--home", os.getcwd(), *shlex.split(apptainer_args), str(jobs.image("train"))]
        os.environ[IMAGE] = shlex.join(words) if program else ""
    if plan.site and plan.is_main:
        os.environ.update(site.submission(plan.site, site.path()))
    os.environ.update(site.environment(plan.site, plan.config, os.environ, source=source, job=not plan.is_main))


def start(plan: Plan, executor: str, arrays: str | None = None, coming: Iterable[ready.Job] = ()) -> None:
    """Called when jobs are about to run.

    Args:
        executor: "local", "slurm", ...
        arrays: rules whose SLURM jobs are sent as job arrays, as the profile names them.
        coming: the jobs.
    Raises:
        ScoreError: the experiment is running already, an array would give jobs the GPUs of others, a model is missing,
            torn, gated or another one, or on a cluster something would make every job fail.
        InfrastructureError: SLURM does not answer.
    """
    if not plan.is_main:
        return
    if plan.images and apptainer.find() is None:
        raise ScoreError(
            "neither apptainer nor singularity is on the PATH, and rules run in images; load or install it"
        )
    if executor != "touch":
        ready.check(plan.config, coming, site.hub(plan.site, os.environ), away=executor != "local")
    if executor == "slurm":
        preflight.before_submission(plan.config, plan.site, arrays=arrays or "", images=plan.images)
    alone = queue.claim(Path(plan.root)) is not None  # it stays open, and so held, as long as this process lives
    if executor == "slurm":
        queue.cancel_orphans(Path(plan.root), alone=alone)
    fresh.remember(Path(plan.root), plan.fresh)


def tidy(plan: Plan) -> None:
    """Called when all jobs have ended well: no run needs its checkpoints any more."""
    for agent in plan.config.agents:
        for run, seed in ((lineage.run(agent.name, seed), seed) for seed in plan.config.seeds):
            if agent.method != "prompt" and Path(plan.root, "train", run, "model").is_dir():
                word = plan.stage(agent.method, agent.name, str(seed))
                for folder in Path(plan.root, "work", "train", f"{run}-{word}").glob("*/checkpoints"):
                    shutil.rmtree(folder, ignore_errors=True)
