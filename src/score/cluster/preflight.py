"""What would make every job of a workflow fail, found before the first is submitted: seconds, nothing queued.

`score doctor` looks at more, and longer.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable

from score.cluster import checks, jobs, slurm
from score.cluster.finding import Finding, bad, good
from score.cluster.queue import Slurm
from score.cluster.queue import slurm as ask_slurm
from score.cluster.site import Site
from score.config import Config
from score.errors import ScoreError


def before_submission(config: Config, site: Site | None, *, arrays: str, images: bool, ask: Slurm = ask_slurm) -> None:
    """Called when the workflow is about to send jobs.

    Args:
        arrays: names of the rules whose jobs are sent as job arrays.
        images: each rule runs in its image.
    Raises:
        ScoreError: one line; an image is missing or was made by another recipe, the site file names a partition or an
            account that is none, an array would give jobs the GPUs of others.
        InfrastructureError: SLURM does not answer.
    """
    found = [checks.arrays(arrays, jobs.stages(config), config), *(image_findings(config, site) if images else [])]
    known = slurm.partitions(ask)
    found += [missing for name in _own(site) if (missing := checks.there(name, known))]
    found.append(account_finding(site, ask))
    for finding in found:
        if finding.ok is False:
            raise ScoreError(f"{finding.name}: {finding.words}")


def account_finding(site: Site | None, ask: Slurm) -> Finding:
    """Asks SLURM for its settings and for what this user may name."""
    return checks.account(site, slurm.settings(ask), slurm.accounts(ask, getpass.getuser()))


def image_findings(config: Config, site: Site | None) -> list[Finding]:
    """Apptainer is there, and each image that the config's rules run in is there and of the present recipe."""
    from score.cluster import apptainer, images

    if not (program := apptainer.find()):
        return [bad("apptainer", "neither apptainer nor singularity is on the PATH", "load or install it")]
    variant = site.variant if site else "cuda"
    found = [good("apptainer", program)]
    for name in jobs.images(config):
        problem = images.check(jobs.image(name), name, variant)
        right = good(f"image {name}", f"{jobs.image(name)}: {variant}, of the present recipe")
        found.append(bad(f"image {name}", problem) if problem else right)
    return found


def _own(site: Site | None) -> Iterable[str]:
    """The partitions that jobs may be sent to."""
    return [name for name, limits in site.partitions.items() if "cluster" not in limits] if site else []
