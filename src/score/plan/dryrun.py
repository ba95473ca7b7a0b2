"""The jobs that Snakemake would run now, read from its dry run: what is finished is not among them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from score.errors import ScoreError


@dataclass(frozen=True)
class Job:
    """A job of a dry run. `minutes`: how long the profile lets it run; None where it says nothing."""

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    minutes: int | None = None
    needs: tuple[str, ...] = ()
    """Input files."""
    makes: tuple[str, ...] = ()
    """Output files."""

    def __str__(self) -> str:
        words = [self.wildcards[name] for name in ("agent", "benchmark", "part") if name in self.wildcards]
        return " ".join([self.rule, *words])


def jobs(profile: str, arguments: Sequence[str]) -> list[Job]:
    """
    Args:
        arguments: further words of Snakemake's command line, targets first.
    Raises:
        ScoreError: Snakemake cannot plan this; its own one line says why.
    """
    command = [sys.executable, "-m", "snakemake", "--profile", profile, "-n", *arguments, "--quiet", "host"]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode:
        lines = [line for line in said.splitlines() if line.strip()]
        named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise ScoreError(named[-1] if named else f"snakemake -n ends with: {' '.join(lines[-3:])[:500]}")
    return parse(said)


def parse(said: str) -> list[Job]:
    """The jobs in what a dry run prints. Raises `ScoreError` if they are not as many as it counts itself."""
    blocks = re.split(r"^(?:local)?rule (\w+):$", said, flags=re.MULTILINE)[1:]
    found = [_job(rule, text) for rule, text in zip(blocks[::2], blocks[1::2], strict=True)]
    counted = re.search(r"^total +(\d+)$", said, flags=re.MULTILINE)
    if counted and int(counted[1]) != len(found):  # another version, or a profile that silences it
        raise ScoreError(
            f"snakemake -n counts {counted[1]} jobs but shows {len(found)}; leave `quiet` out of the profile"
        )
    return found


def _job(rule: str, text: str) -> Job:
    facts = dict(re.findall(r"^ {4}(\w+): (.*)$", text, flags=re.MULTILINE))
    wildcards = dict(word.split("=", 1) for word in _words(facts, "wildcards") if "=" in word)
    resources = dict(word.split("=", 1) for word in _words(facts, "resources") if "=" in word)
    minutes = resources.get("runtime", "")
    return Job(
        *(rule, wildcards, int(resources.get("gpu") or 0), int(minutes) if minutes.isdigit() else None),
        *(_words(facts, "input"), _words(facts, "output")),
    )


def _words(facts: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(word for word in facts.get(name, "").split(", ") if word)
