"""What killed jobs left finished in their work folders: it will not be done again, so it is not counted again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from score.config import lineage
from score.plan.dryrun import Job
from score.plan.estimate import TRAINING
from score.workflow import Plan


def done(plan: Plan, jobs: Sequence[Job]) -> dict[int, float]:
    """Place in `jobs` -> finished attempts or updates. Only what was made with the settings and code of now counts."""
    found = {place: _units(plan, job) for place, job in enumerate(jobs) if "agent" in job.wildcards}
    return {place: units for place, units in found.items() if units}


def _units(plan: Plan, job: Job) -> float:
    w, work = job.wildcards, Path(plan.root, "work")
    seed = w.get("seed")
    run = lineage.run(w["agent"], seed) if seed is not None else w["agent"]
    if job.rule == "rollout":
        return _rows(work / "rollout" / f"{run}-{plan.stage('rollout', w['agent'])}", w["part"], w["scatteritem"])
    if job.rule == "correct":
        return _rows(
            work / "correct" / f"{run}-{plan.stage('correct', w['agent'], seed)}", "attempts", w["scatteritem"]
        )
    if job.rule == "evaluate":
        folder = work / "eval" / f"{run}-{plan.stage('evaluate', w['agent'], seed)}" / w["part"]
        return _rows(folder, "attempts", w["scatteritem"])
    if job.rule in TRAINING:
        folder = work / "train" / f"{run}-{plan.stage(job.rule, w['agent'], seed)}"
        states = folder.glob("*/checkpoints/checkpoint-*/trainer_state.json")  # which a trainer writes last
        numbers = [state.parent.name.rpartition("-")[2] for state in states]
        return max((float(number) for number in numbers if number.isdigit()), default=0.0)
    return 0.0


def _rows(folder: Path, name: str, shard: str) -> float:
    """Lines of a job's own work file; what other numbers of shards left would be used too, but whose it is, is open."""
    try:
        with open(folder / f"{name}.{shard}.jsonl", "rb") as file:
            return float(sum(1 for _ in file))
    except OSError:
        return 0.0
