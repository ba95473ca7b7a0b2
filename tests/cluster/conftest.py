"""The fixture of the tests on a real SLURM: the cluster that $SLURM_CONF names, or a skip with the reason."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.fake_slurm import ROOT, SITE

TERMINAL = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


def call(*command: object, timeout: float = 30, **kwargs) -> str:
    """What a client command prints. Every call has a time limit: a client waits for ever where nothing answers."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, **kwargs)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def wait_for(predicate: Callable[[], object], timeout: float = 60, what: str = "", every: float = 0.5):
    """The first true value of `predicate()`; after `timeout` seconds the test fails and says what it waited for."""
    end = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout:g} s in vain for {what or predicate.__name__}")
        time.sleep(every)
    return value


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Cluster:
    """One running test cluster: its folder, and what a test does to it."""

    def __init__(self, conf: Path):
        self.conf = conf
        self.folder = conf.parent
        self.node = call("sinfo", "-h", "-o", "%n").splitlines()[0]
        self.submitted: list[str] = []

    wait_for = staticmethod(wait_for)
    running = staticmethod(running)

    def scontrol(self, *args: object) -> str:
        return call("scontrol", *args)

    def submit(self, script: str, *options: str, log: Path | str = "/dev/null") -> str:
        """The number of a batch job that runs this shell script; it is cancelled when the test ends."""
        text = f"#!/bin/bash\n{script}\n"
        job = call("sbatch", "--parsable", "--open-mode=append", f"--output={log}", *options, input=text)
        self.submitted.append(job)
        return job

    def squeue(self, *options: str) -> dict[str, str]:
        """The state of each queued or running job by its number, e.g. {"7": "RUNNING"}."""
        return dict(line.split() for line in call("squeue", "-h", "-o", "%A %T", *options).splitlines())

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says; a finished job is remembered for MinJobAge (two hours)."""
        words = self.scontrol("show", "job", number, "--oneliner").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, number: str) -> str:
        return self.job(number)["JobState"]

    def wait_state(self, number: str, *states: str, timeout: float = 60) -> str:
        def reached() -> str:
            return state if (state := self.state(number)) in states else ""

        return wait_for(reached, timeout, f"job {number} to be {' or '.join(states)}")

    def wait_end(self, number: str, timeout: float = 60) -> str:
        return self.wait_state(number, *TERMINAL, timeout=timeout)

    def node_state(self) -> str:
        return call("sinfo", "-h", "-N", "-o", "%T").splitlines()[0]

    def drain(self, node: str | None = None, reason: str = "test") -> None:
        self.scontrol("update", f"NodeName={node or self.node}", "State=DRAIN", f"Reason={reason}")

    def resume(self, node: str | None = None) -> None:
        if node or "drain" in self.node_state():
            self.scontrol("update", f"NodeName={node or self.node}", "State=RESUME")

    def stop_controller(self) -> None:
        pid = int((self.folder / "run/slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not running(pid), 30, "slurmctld to end")

    def start_controller(self) -> None:
        # Its output goes nowhere: a pipe that a daemon keeps open would never end.
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        subprocess.run(["slurmctld", "-f", self.conf], check=True, timeout=30, **quiet)
        wait_for(answers, 30, "slurmctld to answer")

    def restart_controller(self) -> None:
        """Ends slurmctld and starts it again; jobs are recovered from the state that it saved."""
        self.stop_controller()
        self.start_controller()

    def clean(self) -> None:
        """Cancels this test's jobs and mends the node, so that the next test finds an idle cluster."""
        if not answers():
            self.start_controller()
        left = self.squeue().keys() & set(self.submitted)
        if left:
            call("scancel", *left)
        self.resume()
        wait_for(lambda: not self.squeue().keys() & set(self.submitted), 60, "this test's jobs to end")


def answers() -> bool:
    try:
        return bool(call("sinfo", "-h", timeout=10))
    except (OSError, RuntimeError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="session")
def slurm() -> Cluster:
    conf = os.environ.get("SLURM_CONF")
    # run.sh has just started a cluster: if it is not there now, that is a failure, and a skip would look like success.
    absent = pytest.fail if os.environ.get("SCORE_CLUSTER_REQUIRED") else pytest.skip
    if not conf or not shutil.which("sinfo"):
        absent("no test cluster: tests/cluster/start.sh, then source its env.sh (or make cluster-test)")
    if not answers():
        absent("SLURM does not answer within 10 s (sinfo)")
    return Cluster(Path(conf))


@pytest.fixture
def cluster(slurm: Cluster):
    """The running cluster, mended and without this test's jobs afterwards."""
    slurm.submitted.clear()
    yield slurm
    slurm.clean()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working folder of its own, with the repository's files and a site that fits `FakeSlurm`."""
    for name in ("Snakefile", "config.yaml", "configs", "envs", "profiles", "slurm", "rules", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "plain").mkdir()
    raw = yaml.safe_load((ROOT / "slurm/profile.yaml").read_text())
    del raw["software-deployment-method"]
    (tmp_path / "plain/profile.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "site.yaml").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    for name in ("SCORE_SITE", "SERPER_API_KEY", "HF_HUB_OFFLINE", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path
