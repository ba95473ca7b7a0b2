"""The probe job of `score doctor`: what is asked, what its report means, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.fake_slurm import (
    ROOT,
    FakeSlurm,
    config_of,
    profile_of,
    says,
    site_of,
)  # fmt: skip
from score.cluster import doctor, jobs, preflight, probe, probing, report
from score.cluster.finding import Finding
from search.server import Server

SEEN = {
    "host": "n1", "image": "/c/serve.sif", "offline": "1", "cache": None, "reach": {},
    "gpus": {"named": ["0", "1"], "driver": 2, "torch": 2},
    "scratch": {"folder": "/scratch", "error": "", "free": 10**11},
    "sandbox": {"layers": ["limits"], "error": ""},
}  # fmt: skip
ASKED = report.Ask("gpu", "gpu", 2)


def test_a_report_without_fault():
    found = report.findings(ASKED, SEEN)
    assert all(finding.ok for finding in found)
    says(found[0], True, "ran on n1 in gpu, inside serve.sif")


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("gpu job: GPUs", {"gpus": {"named": ["0"], "driver": 8, "torch": 1}}, "asked for 2 GPUs and sees 1 (0)"),
        ("gpu job: GPUs", {"gpus": {"named": None, "driver": 8, "torch": None}}, "asked for 2 GPUs and sees 8"),
        ("gpu job: GPUs", {"gpus": {"named": ["0", "1"], "driver": 2, "torch": -1}}, "torch can use 0; apptainer-args"),
        (
            "gpu job: scratch",
            {"scratch": {"folder": "/s", "error": "Read-only", "free": 0}},
            "(Read-only); correct scr",
        ),
        ("gpu job: scratch", {"scratch": {"folder": "/s", "error": "", "free": 10**8}}, "0.1 GB free"),
        ("gpu job: sandbox", {"sandbox": {"layers": [], "error": "sandbox: no no_network"}}, "no no_network"),
        ("gpu job: offline", {"offline": "0"}, "HF_HUB_OFFLINE is '0' in the job; unset it"),
        ("gpu job: search (serper)", {"reach": {"search (serper)": "no route"}}, "(no route); behind a proxy"),
        ("gpu job: search cache", {"cache": {"folder": "/c", "error": "full", "free": 0}}, "correct search.cache"),
    ],
)
def test_each_fault_in_a_report_has_its_line(name, changed, words):
    found = {finding.name: finding for finding in report.findings(ASKED, SEEN | changed)}
    says(found.pop(name), False, words)
    assert all(finding.ok for finding in found.values())


def test_a_probe_that_could_not_start():
    found = report.findings(ASKED, {"host": "n1", "error": "FATAL: no image", "mend": "build it"})
    assert len(found) == 1
    says(found[0], False, "on n1 it could not start: FATAL: no image; build it")


def probe_once(tmp_path, ask, timeout_s: float = 0.1) -> list[Finding]:
    order = {"cuda": False, "models": [], "image": None, "apptainer_args": ""}
    return list(probing.run([ASKED], order, tmp_path, ask, timeout_s=timeout_s))


class Queue(FakeSlurm):
    """A SLURM with the probe in one state until it is cancelled."""

    def __init__(self, state: str, log: str = "") -> None:
        super().__init__()
        self.state, self.log = state, log

    def __call__(self, command, timeout_s: float = 60) -> str:
        answer = super().__call__(command, timeout_s)
        if command[0] == "sbatch" and self.log:
            Path(next(word for word in command if word.startswith("--output="))[9:]).write_text(self.log)
        if command[0] == "scancel":
            self.state = ""
        return f"{self.state}\n" if command[0] == "squeue" else answer


def test_a_probe_that_stays_in_the_queue_is_cancelled(tmp_path):
    ask = Queue("PENDING (Resources)")
    says(probe_once(tmp_path, ask)[0], False, "stayed in the queue of gpu: PENDING (Resources)", "--timeout 1800")
    assert ["scancel", "--quiet", "17"] in ask.calls
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_runs_too_long_or_ends_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "_ENDING_S", 0.0)
    says(
        probe_once(tmp_path, Queue("RUNNING (None)", "a\nlast words\n"))[0], False, "not reported in time", "last words"
    )
    says(probe_once(tmp_path, Queue("FAILED (NonZeroExitCode)"), 30)[0], False, "ended (FAILED", "its node must see")
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_slurm_refuses(tmp_path):
    found = probe_once(tmp_path, FakeSlurm(refuses="Invalid account"))
    says(found[0], False, "SLURM refused it: sbatch: Invalid account")


def test_a_probe_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    ask = Queue("PENDING (Priority)")
    monkeypatch.setattr(probing.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        probe_once(tmp_path, ask, 60)
    assert ["scancel", "--quiet", "17"] in ask.calls
    assert list(tmp_path.iterdir()) == []


def test_one_probe_for_each_kind_of_partition():
    config = config_of("configs/micro.yaml", {"models": {"student": {"gpus": 4}}})
    needs = jobs.needs(config, profile_of(), site_of())
    assert doctor.probes(needs, site_of()) == [report.Ask("gpu", "gpu", 2), report.Ask("cpu", "cpu", 0)]
    assert [ask.kind for ask in doctor.probes(jobs.needs(config_of(), profile_of(), site_of()), site_of())] == ["gpu"]


def test_whom_the_probe_calls():
    endpoint = {"engine": "endpoint", "url": "https://api.example:8443/v1"}
    config = config_of({"models": {"qwen2.5_72b": endpoint}})
    used = jobs.models(config, jobs.stages(config))
    assert list(probe.targets(config, used)) == ["search (serper)", "endpoint qwen2.5_72b"]
    several = config_of({"models": {"qwen2.5_72b": endpoint | {"url": ["http://a/v1", "http://b/v1"]}}})
    assert list(probe.targets(several, used).items())[1:] == [
        ("endpoint qwen2.5_72b", "http://a/v1"), ("endpoint qwen2.5_72b, 2", "http://b/v1"),
    ]  # fmt: skip
    secret = "https://me:pw@api.example:8443/v1?key=abc"
    assert probe.origin(secret) == "https://api.example:8443", "no password, no path, no query"
    replay = config_of({"search": {"mode": "replay", "cache": "c"}})
    assert probe.targets(replay, used) == {}


def test_a_server_is_reached_without_a_query():
    with contextlib.closing(Server()) as server:
        assert probe.reach(f"{server.url}/search?q=x") == ""
        assert [(request.method, request.path) for request in server.requests] == [("HEAD", "/")]
        url = server.url
    assert probe.reach(url) != ""
    assert "$NOWHERE is not set in the job" in probe.reach("http://$NOWHERE/x")


def test_a_signal_while_a_probe_is_sent_cancels_it_all_the_same(tmp_path):
    asked = []

    def ask(command):
        asked.append(command)
        if command[0] == "sbatch":
            signal.raise_signal(signal.SIGINT)
        return "17\n" if command[0] == "sbatch" else ""

    order = {"cuda": False, "models": [], "image": None, "apptainer_args": ""}
    with pytest.raises(KeyboardInterrupt):
        list(probing.run([ASKED], order, tmp_path, ask, timeout_s=3))
    assert ["scancel", "--quiet", "17"] in asked
    assert list(tmp_path.iterdir()) == []


# On a real SLURM.


@pytest.fixture
def real(clone, cluster, monkeypatch):
    """The clone on the test cluster."""
    monkeypatch.setenv("SCORE_SITE", str(ROOT / "tests/cluster/site.yaml"))
    (clone / "gpus.yaml").write_text("models: {student: {gpus: 2}}")
    (clone / ".sandbox").symlink_to(ROOT / ".sandbox")
    return cluster


def really(*overlays: str, timeout_s: float = 90, **options) -> dict[str, Finding]:
    overlays = ["configs/micro.yaml", *overlays]
    found = doctor.examine("plain", overlays, preflight.ask_slurm, timeout_s=timeout_s, **options)
    return {finding.name: finding for finding in found}


@pytest.mark.slurm
def test_a_healthy_cluster_passes_and_a_job_sees_its_gpus(real, clone):
    found = really("gpus.yaml")
    assert [finding.line() for finding in found.values() if finding.ok is False] == []
    says(found["gpu job: GPUs"], True, "asked for 2, sees 2")
    says(found["cpu job: GPUs"], True, "asked for 0, sees 0")
    says(found["cpu job: offline"], True, "HF_HUB_OFFLINE=1")
    assert list((clone / "results/micro").glob(".doctor*")) == []


@pytest.mark.slurm
def test_a_real_partition_that_is_not_there(real, clone, monkeypatch):
    (clone / "other.yaml").write_text("partitions: {gpuu: {max_gpu: 8}, cpu: {}}\nvariant: cpu")
    monkeypatch.setenv("SCORE_SITE", str(clone / "other.yaml"))
    found = really()
    says(found["partition gpuu"], False, "SLURM has no partition 'gpuu'; did you mean 'gpu'?")
    says(found["probe"], None, "needs SLURM, its partitions")


@pytest.mark.slurm
def test_more_gpus_than_a_real_node_has(real, clone):
    (clone / "many.yaml").write_text("models: {student: {gpus: 9}}")
    found = really("many.yaml", probe=False)
    says(found["jobs of evaluate"], False, "9 GPUs", "at most 8 GPUs are given")


@pytest.mark.slurm
def test_a_drained_node_is_told(real):
    real.drain(reason="broken fan")
    try:
        found = really(probe=False)
        order = {"cuda": False, "models": [], "image": None, "apptainer_args": ""}
        waiting = list(probing.run([ASKED], order, Path("results"), preflight.ask_slurm, timeout_s=3))
    finally:
        real.resume()
    assert "broken fan" in found["partition cpu"].says
    says(waiting[0], False, "stayed in the queue of gpu: PENDING")
    assert list(Path("results").iterdir()) == []


@pytest.mark.slurm
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_doctor_that_is_stopped_leaves_no_job_and_no_file(real, clone, number):
    full = real.submit("sleep 120", "--partition=cpu", "--exclusive", "--chdir=/")
    real.wait_state(full, "RUNNING")
    command = [sys.executable, "-m", "score", "doctor", "--profile", "plain", "--configfile", "configs/micro.yaml"]
    stopped = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        real.wait_for(lambda: queue_of(clone), 60, "the probe to be queued")
        stopped.send_signal(number)
        said = stopped.communicate(timeout=60)[1]
    finally:
        stopped.kill()
    assert stopped.returncode == (1 if number == signal.SIGINT else 143)
    assert "Traceback" not in said
    assert queue_of(clone) == []
    assert list((clone / "results/micro").glob(".doctor*")) == []


def queue_of(folder: Path) -> list[str]:
    """Jobs that were sent from a folder."""
    listing = preflight.ask_slurm(["squeue", "--noheader", "--format=%i|%Z"])
    return [job for job, where in (line.split("|") for line in listing.split()) if where == str(folder)]


@pytest.mark.slurm
def test_a_workflow_stops_before_it_submits(real, clone, monkeypatch):
    (clone / "other.yaml").write_text("partitions: {gpuu: {max_gpu: 8}, cpu: {}}\nvariant: cpu")
    environ = os.environ | {"SCORE_SITE": str(clone / "other.yaml")}
    command = ["snakemake", "--profile", "plain", "--configfile", "configs/micro.yaml"]
    done = subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "error: partition gpuu: SLURM has no partition 'gpuu'" in done.stderr
    assert "Traceback" not in done.stderr
    assert queue_of(clone) == []
    preflight.before_submission(config_of(), site_of("partitions: {gpu: {}}"), arrays="", images=False)
