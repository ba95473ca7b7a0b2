"""Sends one small job per kind of partition, waits for its report, and says what it means. Leaves no job and no file."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from score.cluster.finding import Finding, bad, good
from score.cluster.probe import ORDER, REPORT, Order
from score.cluster.queue import Slurm
from score.config import Config
from score.errors import InfrastructureError
from score.jsonl import write_json

_ENDING_S = 15.0  # for a cancelled job to end, and for a network file system to show a report
_SCRATCH_BYTES = 2 * 10**9
"""Rough need of temporary files: sandboxes' working folders, compiled kernels."""


@dataclass(frozen=True)
class Ask:
    """One probe: the kind of job it stands for, and what it asks SLURM for."""

    kind: str
    partition: str
    gpus: int
    gpu_model: str = ""


@dataclass(frozen=True)
class _Sent:
    ask: Ask
    job: str
    folder: Path


def run(
    asks: Sequence[Ask], order: Mapping[str, Any], results: Path, config: Config, ask: Slurm, *, timeout_s: float
) -> Iterator[Finding]:
    """Yields what each probe found, in order.

    Args:
        order: fields of `Order` besides `gpus`.
        results: a folder that login and compute nodes should both see.
        ask: runs SLURM clients; jobs inherit this process's variables.
    """
    results.mkdir(parents=True, exist_ok=True)
    shared = Path(tempfile.mkdtemp(prefix=".doctor-", dir=results)).resolve()
    sent: list[_Sent] = []
    try:
        for one in asks:
            try:
                sent.append(_send(one, Order(gpus=one.gpus, **order), shared / one.kind, ask))
            except InfrastructureError as error:
                yield bad(f"{one.kind} job", f"SLURM refused it: {error}", "mend the line above that says why")
        deadline = time.monotonic() + timeout_s
        for probe in sent:
            report, waited = _wait(probe, ask, deadline)
            yield from [waited] if waited else findings(probe.ask, report, config)
    finally:
        _end(sent, ask)
        shutil.rmtree(shared, ignore_errors=True)


def _send(one: Ask, order: Order, folder: Path, ask: Slurm) -> _Sent:
    folder.mkdir()
    write_json(folder / ORDER, asdict(order))
    command = ["sbatch", "--parsable", "--job-name=score-doctor", f"--partition={one.partition}", "--export=ALL"]
    command += [f"--output={folder}/slurm.log", f"--chdir={os.getcwd()}", "--time=5", "--mem=2000", "--no-requeue"]
    command += ["--nodes=1", "--ntasks=1", "--cpus-per-task=1"]
    gpus = f"--gpus={f'{one.gpu_model}:' if one.gpu_model else ''}{one.gpus}" if one.gpus else ""
    step = ["srun", "--ntasks=1", *([f"--gpus={one.gpus}"] if one.gpus else [])]  # as the plugin starts a job's step
    program = shlex.join([*step, sys.executable, "-m", "score.cluster.probe", "start", str(folder)])
    answer = ask([*command, *([gpus] if gpus else []), f"--wrap={program}"])
    return _Sent(one, answer.strip().split(";")[0], folder)


def _wait(probe: _Sent, ask: Slurm, deadline: float) -> tuple[dict[str, Any], Finding | None]:
    """(the report, None), or what kept it from coming."""
    state, ended = "", 0.0
    while True:
        if (report := probe.folder / REPORT).exists():
            return json.loads(report.read_text(encoding="utf-8")), None
        now = time.monotonic()
        state = _state(probe.job, ask)
        gone = not state or state.split()[0] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")
        ended = ended or (now if gone else 0.0)
        if (ended and now > ended + _ENDING_S) or now > deadline:
            return {}, _silent(probe, state, gone)
        time.sleep(1)


def _state(job: str, ask: Slurm) -> str:
    """`PENDING (Resources)`; "" when SLURM has forgotten the job."""
    try:
        return ask(["squeue", f"--jobs={job}", "--states=all", "--noheader", "--format=%T (%r)"]).strip()
    except InfrastructureError as error:
        if "Invalid job id" in str(error):
            return ""
        raise


def _silent(probe: _Sent, state: str, gone: bool) -> Finding:
    """Why there is no report."""
    label, log = f"{probe.ask.kind} job", probe.folder / "slurm.log"
    if state.startswith("PENDING"):
        says = f"it stayed in the queue of {probe.ask.partition}: {state}"
        return bad(
            label, says, f"on a busy cluster give --timeout 1800; else see sinfo --partition {probe.ask.partition}"
        )
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    said = f"; it said: {lines[-1]}" if lines else ""
    if not gone:
        return bad(label, f"it runs, but has not reported in time ({state}){said}", "give a longer --timeout")
    says = f"it ended ({state or 'unknown'}) without a report{said}"
    return bad(
        label, says, f"its node must see {probe.folder.parents[1]} and {sys.executable}, on a shared file system"
    )


def _end(sent: Sequence[_Sent], ask: Slurm) -> None:
    """Cancels what still waits or runs, and waits until it is gone, so that it writes no more files."""
    deadline = time.monotonic() + _ENDING_S
    for probe in sent:
        with contextlib.suppress(InfrastructureError):
            ask(["scancel", "--quiet", probe.job])
        while time.monotonic() < deadline:
            try:
                if _state(probe.job, ask).split(" ")[0] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
                    break
            except InfrastructureError:
                break
            time.sleep(0.2)


def findings(one: Ask, report: Mapping[str, Any], config: Config) -> list[Finding]:
    """What a report means, one line per thing that was looked at."""
    kind = f"{one.kind} job"
    if "error" in report:
        return [
            bad(
                kind, f"on {report['host']} it could not start: {report['error']}", "the image or .venv must work there"
            )
        ]
    inside = f", inside {Path(report['image']).name}" if report["image"] else ""
    found = [
        good(kind, f"ran on {report['host']} in {one.partition}{inside}; it shares the results folder"),
        _gpus(f"{kind}: GPUs", one, report["gpus"]),
        _scratch(f"{kind}: scratch", report["scratch"]),
    ]
    if report["cache"]:
        found.append(_written(f"{kind}: search cache", report["cache"], "correct search.cache in the config"))
    found.append(_sandbox(f"{kind}: sandbox", report["sandbox"], config))
    offline = f"{kind}: offline"
    if report["offline"] == "1":
        found.append(good(offline, "HF_HUB_OFFLINE=1, models come from the cache alone"))
    else:
        says = f"HF_HUB_OFFLINE is {report['offline']!r} in the job"
        found.append(bad(offline, says, "unset it in your shell; only rules on the login node download"))
    return found + [_reached(f"{kind}: {name}", to) for name, to in report["reach"].items()]


def _gpus(label: str, one: Ask, seen: Mapping[str, Any]) -> Finding:
    """SLURM's word (CUDA_VISIBLE_DEVICES) counts; without it, the driver's. What torch can use must agree."""
    named = seen["named"]
    count = len(named) if named is not None else (seen["driver"] or 0 if one.gpus else 0)
    which = f" ({','.join(named)})" if named else ""
    if count != one.gpus:
        says = f"it asked for {one.gpus} GPUs and sees {count}{which}"
        return bad(
            label, says, "the GRES of this partition's nodes is set up wrongly (admins), or APPTAINERENV_ is not passed"
        )
    if seen["torch"] is not None and seen["torch"] != one.gpus:
        says = f"SLURM gives {count} GPUs{which}, torch can use {max(0, seen['torch'])}"
        return bad(
            label, says, "apptainer-args needs --nv, and the node's driver must be new enough for the image's CUDA"
        )
    return good(label, f"asked for {one.gpus}, sees {count}{which}")


def _scratch(label: str, seen: Mapping[str, Any]) -> Finding:
    written = _written(label, seen, "correct scratch in the site file")
    if written.ok and seen["free"] < _SCRATCH_BYTES:
        says = f"{seen['folder']}: {seen['free'] / 1e9:.1f} GB free, roughly {_SCRATCH_BYTES / 1e9:.0f} GB needed"
        return bad(label, says, "name a larger folder (site file: scratch)")
    return written


def _written(label: str, seen: Mapping[str, Any], mend: str) -> Finding:
    if seen["error"]:
        return bad(label, f"{seen['folder']}: cannot be written there ({seen['error']})", mend)
    return good(label, f"{seen['folder']}: writable, {seen['free'] / 1e9:.0f} GB free")


def _sandbox(label: str, seen: Mapping[str, Any], config: Config) -> Finding:
    if seen["error"]:
        return bad(label, seen["error"].removeprefix("sandbox: "), "docs/SANDBOX.md; the config's sandbox.require")
    return good(label, f"layers: {', '.join(seen['layers'])}")


def _reached(label: str, seen: Mapping[str, Any]) -> Finding:
    if not seen["error"]:
        return good(label, "the node reaches it")
    mend = (
        "no route: record searches on a login node and replay them (docs/SEARCH.md)"
        if "search" in label
        else ("no route: serve the model in the job (engine: vllm)")
    )
    return bad(
        label,
        f"the node does not reach it ({seen['error']})",
        f"{mend}; through a proxy: HTTPS_PROXY in site file's environment",
    )
