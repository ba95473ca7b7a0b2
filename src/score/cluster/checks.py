"""Does SLURM agree with the site file and the profile? Pure checks of what `score.cluster.slurm` has read.

Not here: folders and keys (`places`), and what only a job can tell (`probe`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from score.cluster import jobs, slurm
from score.cluster.finding import Finding, bad, good, unchecked
from score.cluster.jobs import Need, Stage
from score.cluster.profile import Profile
from score.cluster.queue import Slurm
from score.cluster.site import Site
from score.config import Config
from score.config.mistakes import nearest
from score.engine.gpus import told
from score.errors import InfrastructureError

_LEAST_JOB_AGE = 3
"""The executor plugin wants finished jobs to stay visible for this many first waits."""


def locked(lock: str) -> dict[str, str]:
    """Package -> version of a lock file."""
    lines = (line.split("#")[0].split(";")[0].strip() for line in lock.splitlines())
    return dict(line.rstrip(" \\").split("==", 1) for line in lines if "==" in line and not line.startswith("-"))


def versions(lock: str, installed: Mapping[str, str | None]) -> Finding:
    """Snakemake and its plugins are the versions that all this was tested with."""
    pinned = locked(lock)
    wrong = [f"{name} {found or 'missing'}" for name, found in installed.items() if found != pinned.get(name)]
    if wrong:
        wanted = ", ".join(f"{name}=={pinned.get(name)}" for name in installed)
        return bad("versions", f"found {', '.join(wrong)}", f"install {wanted} (pip install -r envs/core.lock)")
    return good("versions", ", ".join(f"{name} {found}" for name, found in installed.items()))


def division(stages: Iterable[Stage], config: Config) -> Iterator[Finding]:
    """Which of its GPUs, numbered from 0, a job of several servers gives to whom: one line per kind of job."""
    for stage in stages:
        if shares := stage.shares(config):
            yield good(f"GPUs of {stage.rule}", f"{', '.join(stage.models)}: {told(shares)}")


def there(name: str, known: Mapping[str, slurm.Partition]) -> Finding | None:
    """None if SLURM has this partition."""
    if name in known:
        return None
    return bad(f"partition {name}", f"SLURM has no partition {name!r}", f"{nearest(name, known)} (site file)")


def partition(name: str, site: Site, known: Mapping[str, slurm.Partition]) -> Finding:
    """A partition of the site file exists, takes jobs, and promises no more than SLURM gives."""
    from snakemake_executor_plugin_slurm.partitions import PartitionLimits

    label, limits = f"partition {name}", {k: v for k, v in site.partitions[name].items() if k != "cluster"}
    if "cluster" in site.partitions[name]:
        return unchecked(label, "belongs to another cluster; no job of ours names one, so none goes there")
    if missing := there(name, known):
        return missing
    found, promised = known[name], PartitionLimits(**limits)
    usable = [part for part in found.nodes if part.usable]
    lost = ", ".join(f"{p.count} {p.state}{f' ({p.reason})' if p.reason else ''}" for p in found.nodes if not p.usable)
    if not found.up:
        return bad(label, "it is not up, jobs would wait", "take another one (site file), or ask when it is back")
    if not usable:
        return bad(label, f"no node of it takes jobs: {lost or 'it has none'}", "take another one, or ask the admins")
    if promised.max_runtime != math.inf and promised.max_runtime > found.minutes:
        says = f"max_runtime is {promised.max_runtime:.0f} minutes, SLURM ends its jobs after {found.minutes:.0f}"
        return bad(label, says, f"site file: max_runtime: {found.minutes:.0f}")
    nodes = limits.get("max_nodes", 1)
    if promised.max_gpu > found.gpus() * nodes:
        says = f"max_gpu is {promised.max_gpu}, its largest node has {found.gpus()}"
        where = "a job runs on one node" if nodes == 1 else f"max_nodes: {nodes}"
        return bad(label, says, f"site file: max_gpu: {found.gpus() * nodes} ({where})")
    if promised.max_gpu and site.gpu_model and not found.gpus(site.gpu_model):
        mend = nearest(site.gpu_model, found.gpu_models) if found.gpu_models else "gpu_model: null"
        return bad(label, f"it has no GPU of type {site.gpu_model!r}", f"{mend} (site file)")
    gpus = f", {found.gpus()} GPUs a node" if found.gpus() else ""
    count = sum(part.count for part in usable)
    return good(label, f"up, {count} nodes take jobs{gpus}{f'; not usable: {lost}' if lost else ''}")


def account(site: Site | None, settings: Mapping[str, str], accounts: slurm.Accounts | None) -> Finding:
    """The account and quality of service are ones that this user has, where SLURM keeps account."""
    named, qos = (site.account, site.qos) if site else (None, None)
    if settings.get("AccountingStorageType", "").endswith(("none", "(null)")):
        return unchecked("account", f"this SLURM keeps no accounts{f'; {named!r} is ignored' if named else ''}")
    enforced = "associations" in settings.get("AccountingStorageEnforce", "").lower()
    if accounts is None:
        return unchecked("account", "sacctmgr does not answer here")
    if not accounts.names:
        if enforced:
            return bad("account", "SLURM knows no account of yours", "ask the admins for one")
        return unchecked("account", "SLURM lists no account of yours and asks for none")
    if named and named.lower() not in map(str.lower, accounts.names):
        return bad("account", f"{named!r} is no account of yours", f"{nearest(named, accounts.names)} (site file)")
    if qos and accounts.qos and qos not in accounts.qos:
        return bad("account", f"no quality of service {qos!r} for you", f"{nearest(qos, accounts.qos)} (site file)")
    return good("account", named or f"SLURM's default for you (you have {', '.join(accounts.names)})")


def status(profile: Profile, settings: Mapping[str, str]) -> Finding:
    """The command by which Snakemake learns that a job has ended can tell it."""
    accounting = not settings.get("AccountingStorageType", "").endswith(("none", "(null)"))
    if profile.status_command != "squeue":
        if accounting:
            return good("status command", profile.status_command)
        says = f"slurm-status-command is {profile.status_command!r}, but SLURM keeps no accounts: jobs would never end"
        return bad("status command", says, f"{profile.file}: slurm-status-command: squeue")
    age = int("".join(filter(str.isdigit, settings.get("MinJobAge", ""))) or 0)
    least = _LEAST_JOB_AGE * profile.init_s
    if age >= least:
        return good("status command", f"squeue; SLURM shows ended jobs for {age} s, {least} s are needed")
    says = f"SLURM forgets ended jobs after {age} s, squeue needs {least} s"
    if accounting:
        return bad("status command", says, f"{profile.file}: slurm-status-command: sacct")
    mend = f"slurm-init-seconds-before-status-checks: {age // _LEAST_JOB_AGE}"
    return bad("status command", says, f"{profile.file}: {mend}")


def arrays(rules: str, stages: Iterable[Stage], config: Config) -> Finding:
    """All jobs of a job array get what its first one asks for, so they must ask for the same."""
    named = re.findall(r"\w+", rules)
    counts: dict[str, set[int]] = {}
    for stage in stages:
        counts.setdefault(stage.rule, set()).add(stage.gpus(config))
    for rule in counts if "all" in named else named:
        if len(asked := counts.get(rule, ())) > 1:
            needed = " or ".join(map(str, sorted(asked)))
            says = f"jobs of {rule!r} need {needed} GPUs, and a job array gives all the first one's"
            return bad("job arrays", says, f"leave {rule!r} out of slurm-array-jobs")
    return good("job arrays", ", ".join(named) or "none")


def fit(
    needs: Iterable[Need], site: Site, known: Mapping[str, slurm.Partition], broken: Iterable[str], ask: Slurm
) -> list[Finding]:
    """Every job has a partition, and SLURM would take it there; one finding per rule that has not, or one for all.

    Args:
        broken: partitions that failed their own check; nothing is tried there.
    """
    wrong: dict[str, Finding] = {}
    chosen: dict[str, set[str]] = {}
    for need in needs:
        label = f"jobs of {need.rule}"
        if need.rule in wrong:
            continue
        name = jobs.partition(need, site)
        if name is None:
            wrong[need.rule] = bad(label, f"{need} fits no partition of the site file", _room(need, site))
        elif name in broken:
            wrong[need.rule] = unchecked(label, f"go to partition {name}, see above")
        elif missing := there(name, known):
            wrong[need.rule] = bad(label, missing.says, f"{nearest(name, known)} (slurm_partition in the profile)")
        else:
            chosen.setdefault(name, set()).add(need.rule)
            if problem := _refused(need, name, known[name], ask):
                mend = f"lower it for {need.rule} in the profile, or fewer gpus in the config's models"
                wrong[need.rule] = bad(label, f"{need} is not for partition {name}: {problem}", mend)
    places = "; ".join(f"{', '.join(sorted(rules - wrong.keys()))} in {name}" for name, rules in chosen.items())
    return list(wrong.values()) or [good("jobs", f"SLURM would take every one: {places}")]


def _refused(need: Need, name: str, known: slurm.Partition, ask: Slurm) -> str:
    """Why SLURM would not run it; it is asked without queueing anything."""
    if need.minutes > known.minutes:
        return f"SLURM ends its jobs after {known.minutes:.0f} minutes"
    gpus = f"{need.gpu_model}:{need.gpus}" if need.gpu_model else str(need.gpus)
    asked = {"time": need.minutes, "mem": need.mem_mb, "cpus-per-task": need.cpus, "gpus": gpus if need.gpus else 0}
    command = ["sbatch", "--test-only", f"--partition={name}", f"--nodes={need.nodes}", f"--ntasks={need.nodes}"]
    command += [f"--{word}={value}" for word, value in asked.items() if value]
    try:
        ask([*command, "--wrap=true"])
    except InfrastructureError as error:
        return str(error)
    return ""


def _room(need: Need, site: Site) -> str:
    """What the site file would have to say."""
    limits = [limits for limits in site.partitions.values() if "cluster" not in limits]
    most = max((limit.get("max_gpu", 0) for limit in limits), default=0)
    if need.gpus > most:
        return f"at most {most} GPUs are given (max_gpu); raise it, or lower `gpus` of the config's models"
    return "raise max_runtime or max_mem_mb there, or lower `runtime`, `mem_mb` or `retries` in the profile"
