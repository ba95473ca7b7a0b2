"""SLURM's clients without SLURM, and the configs, sites and profiles that tests of the cluster's code begin with."""

from __future__ import annotations

from pathlib import Path

import yaml

from score.cluster.finding import Finding
from score.cluster.profile import Profile
from score.cluster.site import Site
from score.config import Config, load
from score.config.load import merge
from score.errors import InfrastructureError

ROOT = Path(__file__).parents[2]
SITE = """
partitions:
  gpu: {max_gpu: 8, max_runtime: "3-00:00:00"}
  cpu: {max_runtime: "3-00:00:00"}
variant: cpu
"""
SINFO = """
gpu|up|3-00:00:00|4|idle|gpu:a100:8(S:0-1)|none
cpu|up|infinite|2|mixed|(null)|none
"""
SETTINGS = """
AccountingStorageType   = accounting_storage/none
AccountingStorageEnforce = none
MinJobAge               = 300 sec
SLURM_VERSION           = 23.11.4
"""
ACCOUNTED = SETTINGS.replace("/none", "/slurmdbd").replace("Enforce = none", "Enforce = associations,limits")
ALICE = "physics|normal,long\nbiology|normal\n"


class FakeSlurm:
    """SLURM's clients, by name; `refuses` is what sbatch says of a job instead of taking it."""

    def __init__(self, sinfo: str = SINFO, settings: str = SETTINGS, accounts: str | None = None, refuses: str = ""):
        self.sinfo, self.settings, self.accounts, self.refuses = sinfo, settings, accounts, refuses
        self.calls: list[list[str]] = []

    def __call__(self, command, timeout_s: float = 60) -> str:
        self.calls.append(list(command))
        match command[0]:
            case "sinfo":
                return self.sinfo
            case "scontrol":
                return self.settings
            case "sacctmgr" if self.accounts is not None:
                return self.accounts
            case "sbatch" if not self.refuses:
                return "17\n"
            case "squeue" | "scancel":
                return ""
        raise InfrastructureError(f"{command[0]}: {self.refuses or 'no accounting'}")


def config_of(*overlays: str | dict) -> Config:
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    for overlay in overlays:
        more = overlay if isinstance(overlay, dict) else yaml.safe_load((ROOT / overlay).read_text())
        raw = merge(raw, more)
    return load(raw)


def site_of(text: str = SITE) -> Site:
    return Site.model_validate(yaml.safe_load(text))


def profile_of(**changes) -> Profile:
    raw = yaml.safe_load((ROOT / "slurm/profile.yaml").read_text())
    return Profile(Path("slurm/profile.yaml"), raw | {key.replace("_", "-"): value for key, value in changes.items()})


def replace_partitions(changed: dict) -> Site:
    here = site_of()
    return here.model_copy(update={"partitions": here.partitions | changed})


def says(finding: Finding, ok: bool | None, *words: str) -> None:
    assert finding.ok is ok, finding
    for word in words:
        assert word in finding.line()
    assert "\n" not in finding.line()
