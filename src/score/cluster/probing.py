"""Sends one small job per kind of partition and waits for its report. Leaves no job and no file behind."""

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

from score.cluster.finding import Finding, bad
from score.cluster.probe import ORDER, REPORT, Order
from score.cluster.queue import Slurm
from score.cluster.report import Ask, findings
from score.errors import InfrastructureError
from score.jsonl import write_json
from score.signals import put_off

_ENDING_S = 15.0  # for a cancelled job to end, and for a network file system to show a report

_ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


@dataclass(frozen=True)
class _Sent:
    ask: Ask
    job: str
    folder: Path


def run(
    asks: Sequence[Ask], order: Mapping[str, Any], results: Path, ask: Slurm, *, timeout_s: float
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
                with put_off():  # no job is sent unseen
                    sent.append(_send(one, Order(gpus=one.gpus, **order), shared / one.kind, ask))
            except InfrastructureError as error:
                yield bad(f"{one.kind} job", f"SLURM refused it: {error}", "mend the line above that says why")
        deadline = time.monotonic() + timeout_s
        for probe in sent:
            seen, missing = _wait(probe, ask, deadline)
            yield from [missing] if missing else findings(probe.ask, seen)
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
        if (file := probe.folder / REPORT).exists():
            return json.loads(file.read_text(encoding="utf-8")), None
        now = time.monotonic()
        state = _state(probe.job, ask)
        gone = not state.startswith(_ACTIVE)
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
    label, log, partition = f"{probe.ask.kind} job", probe.folder / "slurm.log", probe.ask.partition
    if state.startswith("PENDING"):
        mend = f"on a busy cluster give --timeout 1800, else see sinfo --partition={partition}"
        return bad(label, f"it stayed in the queue of {partition}: {state}", mend)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    said = f"; it said: {lines[-1]}" if lines else ""
    if not gone:
        return bad(label, f"it runs, but has not reported in time ({state}){said}", "give a longer --timeout")
    mend = f"its node must see {probe.folder.parents[1]} and {sys.executable}"
    return bad(label, f"it ended ({state or 'unknown'}) without a report{said}", mend)


def _end(sent: Sequence[_Sent], ask: Slurm) -> None:
    """Cancels what still waits or runs, and waits until it is gone, so that it writes no more files."""
    deadline = time.monotonic() + _ENDING_S
    with contextlib.suppress(InfrastructureError):  # a SLURM that has stopped to answer is another line's matter
        for probe in sent:
            ask(["scancel", "--quiet", probe.job])
        while any(_state(probe.job, ask).startswith(_ACTIVE) for probe in sent) and time.monotonic() < deadline:
            time.sleep(0.2)
