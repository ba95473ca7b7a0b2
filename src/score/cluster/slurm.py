"""What SLURM says of itself: its settings, partitions and nodes, a user's accounts. Read with its clients."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from score.cluster.queue import Slurm
from score.errors import InfrastructureError

_UNUSABLE = ("down", "drain", "fail", "error", "unknown", "maint", "inval", "block", "future", "reboot")


@dataclass(frozen=True)
class Nodes:
    """Some nodes of a partition that are in one state."""

    state: str
    count: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    """GPUs of each node by type, "" where SLURM knows none."""
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Do they take jobs, now or later? `*` is SLURM's mark of a node that does not respond."""
        return not self.state.endswith("*") and not self.state.startswith(_UNUSABLE)


@dataclass(frozen=True)
class Partition:
    name: str
    up: bool
    minutes: float
    nodes: tuple[Nodes, ...]

    def gpus(self, model: str = "") -> int:
        """The most GPUs (of a type) that one of its nodes has."""
        return max((sum(n for kind, n in part.gpus.items() if model in ("", kind)) for part in self.nodes), default=0)

    @property
    def gpu_models(self) -> list[str]:
        return sorted({kind for part in self.nodes for kind in part.gpus if kind})


@dataclass(frozen=True)
class Accounts:
    """Accounts and qualities of service that a user may name."""

    names: tuple[str, ...]
    qos: tuple[str, ...]


def settings(ask: Slurm) -> dict[str, str]:
    """SLURM's own configuration. Raises `InfrastructureError` if the controller does not answer."""
    lines = (line.partition("=") for line in ask(["scontrol", "show", "config"]).splitlines())
    return {name.strip(): value.strip() for name, equals, value in lines if equals}


def partitions(ask: Slurm) -> dict[str, Partition]:
    """All partitions that this user sees, by name."""
    listing = ask(["sinfo", "--noheader", "--format=%R|%a|%l|%D|%T|%G|%E"])
    rows = [line.strip().split("|", 6) for line in listing.splitlines() if line.count("|") >= 6]
    found = {}
    for name, up, limit, *_ in rows:
        nodes = tuple(
            Nodes(state, int(count), _gpus(gres), "" if reason == "none" else reason)
            for other, _, _, count, state, gres, reason in rows
            if other == name and int(count)
        )
        found[name] = Partition(name, up == "up", minutes(limit), nodes)
    return found


def minutes(text: str) -> float:
    """Of SLURM's days-hours:minutes:seconds; infinite for "infinite", "UNLIMITED" and what it does not say."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return math.inf
    days, hours, mins, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + mins + seconds / 60


def accounts(ask: Slurm, user: str) -> Accounts | None:
    """What a user may name, or None where SLURM keeps no list of it."""
    wanted = f"user={user}"
    try:
        listing = ask(["sacctmgr", "--noheader", "--parsable2", "show", "assoc", wanted, "format=account,qos"])
    except InfrastructureError:
        return None
    rows = [line.strip().split("|") for line in listing.splitlines() if "|" in line]
    qos = [word for row in rows for word in row[1].split(",") if word]
    return Accounts(tuple(dict.fromkeys(row[0] for row in rows)), tuple(dict.fromkeys(qos)))


def _gpus(gres: str) -> dict[str, int]:
    """`gpu:a100:4(S:0-1),shard:8` has {"a100": 4}."""
    found: dict[str, int] = {}
    for kind, count in re.findall(r"\bgpu:(?:([\w.-]+):)?(\d+)", gres):
        found[kind] = found.get(kind, 0) + int(count)
    return found
