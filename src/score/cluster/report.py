"""What a probe job's report means: one line per thing that it looked at. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score.cluster.finding import Finding, bad, good

SCRATCH_BYTES = 2 * 10**9
"""Rough need of temporary files: sandboxes' working folders, compiled kernels."""


@dataclass(frozen=True)
class Ask:
    """One probe: the kind of job it stands for, and what it asks SLURM for."""

    kind: str
    partition: str
    gpus: int
    gpu_model: str = ""


def findings(ask: Ask, seen: Mapping[str, Any]) -> list[Finding]:
    """Of a report of `score.cluster.probe`."""
    kind = f"{ask.kind} job"
    if "error" in seen:
        says = f"on {seen['host']} it could not start: {seen['error']}"
        return [bad(kind, says, seen["mend"])]
    inside = f", inside {Path(seen['image']).name}" if seen["image"] else ""
    found = [
        good(kind, f"ran on {seen['host']} in {ask.partition}{inside}; it shares the results folder"),
        _gpus(f"{kind}: GPUs", ask, seen["gpus"]),
        _scratch(f"{kind}: scratch", seen["scratch"]),
    ]
    if seen["cache"]:
        found.append(_written(f"{kind}: search cache", seen["cache"], "correct search.cache in the config"))
    found += [_sandbox(f"{kind}: sandbox", seen["sandbox"]), _offline(f"{kind}: offline", seen["offline"])]
    return found + [_reached(f"{kind}: {name}", why) for name, why in seen["reach"].items()]


def _gpus(label: str, ask: Ask, seen: Mapping[str, Any]) -> Finding:
    """SLURM's word (CUDA_VISIBLE_DEVICES) counts; without it, the driver's. What torch can use must agree."""
    named = seen["named"]
    count = len(named) if named is not None else (seen["driver"] or 0 if ask.gpus else 0)
    which = f" ({','.join(named)})" if named else ""
    if count != ask.gpus:
        says = f"it asked for {ask.gpus} GPUs and sees {count}{which}"
        return bad(label, says, "ask the admins whether the GRES of its nodes is set up")
    if seen["torch"] is not None and seen["torch"] != ask.gpus:
        says = f"SLURM gives {count} GPUs{which}, torch can use {max(0, seen['torch'])}"
        return bad(label, says, "apptainer-args needs --nv, and the node's driver must fit the image's CUDA")
    return good(label, f"asked for {ask.gpus}, sees {count}{which}")


def _scratch(label: str, seen: Mapping[str, Any]) -> Finding:
    written = _written(label, seen, "correct scratch in the site file")
    if written.ok and seen["free"] < SCRATCH_BYTES:
        says = f"{seen['folder']}: {seen['free'] / 1e9:.1f} GB free, roughly {SCRATCH_BYTES / 1e9:.0f} GB needed"
        return bad(label, says, "name a larger folder (site file: scratch)")
    return written


def _written(label: str, seen: Mapping[str, Any], mend: str) -> Finding:
    if seen["error"]:
        return bad(label, f"{seen['folder']}: cannot be written there ({seen['error']})", mend)
    return good(label, f"{seen['folder']}: writable, {seen['free'] / 1e9:.0f} GB free")


def _sandbox(label: str, seen: Mapping[str, Any]) -> Finding:
    if seen["error"]:
        return bad(label, seen["error"].removeprefix("sandbox: "), "docs/SANDBOX.md; the config's sandbox.require")
    return good(label, f"layers: {', '.join(seen['layers'])}")


def _offline(label: str, value: str) -> Finding:
    if value == "1":
        return good(label, "HF_HUB_OFFLINE=1, models come from the cache alone")
    says = f"HF_HUB_OFFLINE is {value!r} in the job"
    return bad(label, says, "unset it in your shell; only rules on the login node download")


def _reached(label: str, why: str) -> Finding:
    if not why:
        return good(label, "the node reaches it")
    instead = (
        "record and replay searches (docs/SEARCH.md)" if "search" in label else "serve the model in the job (vllm)"
    )
    mend = f"behind a proxy name HTTPS_PROXY in the site file's environment; without a route {instead}"
    return bad(label, f"the node does not reach it ({why})", mend)
