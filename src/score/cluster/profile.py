"""What a Snakemake profile says of jobs: deployment, status command, and what a rule asks for on each attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from score.errors import ScoreError

_PLUGIN_INIT_S = 40  # the plugin's own default


@dataclass(frozen=True)
class Profile:
    file: Path
    raw: Mapping[str, Any]

    @property
    def is_slurm(self) -> bool:
        """Does it send jobs to SLURM?"""
        return self.raw.get("executor") == "slurm"

    @property
    def apptainer(self) -> bool:
        """Does each rule run in its image?"""
        methods = self.raw.get("software-deployment-method") or ()
        return "apptainer" in ([methods] if isinstance(methods, str) else methods)

    @property
    def apptainer_args(self) -> str:
        return str(self.raw.get("apptainer-args") or "")

    @property
    def attempts(self) -> int:
        return 1 + int(self.raw.get("retries") or 0)

    @property
    def status_command(self) -> str:
        return str(self.raw.get("slurm-status-command") or "auto")

    @property
    def init_s(self) -> int:
        return int(self.raw.get("slurm-init-seconds-before-status-checks") or _PLUGIN_INIT_S)

    @property
    def array_jobs(self) -> str:
        """Names of the rules whose jobs are sent as job arrays, with commas."""
        return str(self.raw.get("slurm-array-jobs") or "")

    @property
    def configfiles(self) -> list[str]:
        files = self.raw.get("configfile") or []
        return [files] if isinstance(files, str) else list(files)

    def amount(self, rule: str, name: str, attempt: int) -> int:
        """What a rule asks of a resource (minutes, MB) on an attempt; 0 if the profile does not say.

        Raises `ScoreError` for what Snakemake could not evaluate.
        """
        from snakemake.resources import Resource

        value = self._value(rule, name, 0)
        try:
            resource = Resource.from_cli_expression(name, str(value))
            found = resource.evaluate(None, input=[], attempt=attempt, threads=1, rulename=rule, async_run=None)
            return int(found.value)
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            raise ScoreError(f"{self.file}: {name} of {rule}: {value!r} is no amount ({reason})") from None

    def partition(self, rule: str) -> str:
        """The partition that the profile gives to a rule's jobs; "" where the executor plugin chooses."""
        return str(self._value(rule, "slurm_partition", ""))

    def _value(self, rule: str, name: str, otherwise: Any) -> Any:
        own = (self.raw.get("set-resources") or {}).get(rule) or {}
        return own.get(name, (self.raw.get("default-resources") or {}).get(name, otherwise))


def find(name: str) -> Profile:
    """The profile that `snakemake --profile NAME` would take, for whatever executor. Raises `ScoreError` if there is
    none."""
    from snakemake.cli import get_profile_dir

    found = get_profile_dir(name)
    if found is None:
        raise ScoreError(f"--profile {name}: no profile.yaml in ./{name}; run this beside the Snakefile")
    file = found[1]
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScoreError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    return Profile(file, raw)
