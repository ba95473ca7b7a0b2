"""The whole workflow on a real SLURM, every rule in its image: undisturbed, and through everything that clusters do.

make cluster-test (all of it), or with a started cluster and built images: python -m pytest -m slurm tests/cluster
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from cluster.conftest import Cluster, call, wait_for

ROOT = Path(__file__).parents[2]
COMMAND = [
    *("snakemake", "--profile", "slurm", "--configfile", "configs/micro.yaml", "tests/cluster/tiny.yaml"),
    *("--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "2"),
    *("--latency-wait", "15"),
]
TARGETS = ("all", "theory", "baselines", "ablation_full")

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]


def absent(reason: str) -> None:
    """A skip, or a failure in a run that was to have all it needs."""
    (pytest.fail if os.environ.get("SCORE_CLUSTER_REQUIRED") else pytest.skip)(reason)


class Workflow:
    """A copy of the repository in which the workflow runs, as a user's clone on a cluster would be."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.decode().split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        for name in (".venv", ".sandbox"):
            (folder / name).symlink_to(ROOT / name)
        for image in (ROOT / "containers").glob("*.sif*"):
            (folder / "containers" / image.name).symlink_to(image)
        self.log, self.started = folder / "workflow.log", []

    def start(self, *args: str) -> subprocess.Popen:
        """The workflow in the background, its output appended to `log`."""
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"SCORE_SITE": "tests/cluster/site.yaml"}
        with open(self.log, "ab") as log:
            self.started.append(
                subprocess.Popen([*COMMAND, *args], cwd=self.folder, stdout=log, stderr=log, env=environ)
            )
        return self.started[-1]

    def end(self) -> None:
        """Leaves nothing behind, whatever a test came to."""
        for process in self.started:
            process.kill()
        if jobs := self.queue():
            call("scancel", *jobs)

    def run(self, *args: str, timeout: float = 900) -> subprocess.CompletedProcess:
        """The workflow to its end; `stdout` is what this call alone printed."""
        before = self.log.stat().st_size if self.log.exists() else 0
        code = self.start(*args).wait(timeout)
        return subprocess.CompletedProcess(args, code, self.said()[before:], "")

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def jobs(self, rule: str) -> list[str]:
        """Numbers of this folder's running jobs of a rule."""
        listing = call("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i|%Z|%k")
        lines = [line.split("|", 2) for line in listing.splitlines()]
        return [job for job, where, note in lines if where == str(self.folder) and note.startswith(f"rule_{rule}_")]

    def waiting_for_the_node(self) -> list[str]:
        """Numbers of this folder's jobs that wait because the node takes none."""
        listing = call("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i|%Z|%r")
        lines = [line.split("|", 2) for line in listing.splitlines()]
        return [job for job, where, why in lines if where == str(self.folder) and "DRAIN" in why.upper()]

    def queue(self) -> list[str]:
        """All of this folder's jobs."""
        listing = call("squeue", "--noheader", "--array", "--format=%i|%Z")
        return [job for job, where in (line.split("|") for line in listing.splitlines()) if where == str(self.folder)]

    def path(self, name: str) -> Path:
        return self.folder / "results/tiny" / name

    def tables(self) -> dict[str, str]:
        """The content of every table, the headline with all agents among them."""
        return {path.name: path.read_text() for path in sorted(self.path("tables").iterdir())}

    def processes(self) -> list[str]:
        """Commands of this folder's processes that are still there."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "cwd").startswith(str(self.folder)):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, slurm: Cluster):
    """Makes copies of the repository by name, and ends what runs in them."""
    made = []

    def make(name: str) -> Workflow:
        made.append(Workflow(tmp_path_factory.mktemp(name), slurm))
        return made[-1]

    yield make
    for workflow in made:
        workflow.end()


@pytest.fixture(scope="module")
def images() -> None:
    checked = subprocess.run(
        ["python", "-m", "score.cluster.images", "check", "--variant", "cpu"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    if checked.returncode:
        absent(f"the images are not built: {(checked.stdout + checked.stderr).strip()}")


@pytest.fixture(scope="module")
def undisturbed(checkout, images) -> Workflow:
    workflow = checkout("undisturbed")
    done = workflow.run(*TARGETS)
    assert done.returncode == 0, done.stdout[-6000:]
    return workflow


def test_every_rule_runs_in_its_image(undisturbed: Workflow):
    for name, image in (
        ("rollout/teacher/cold_start.provenance.json", "serve"),
        ("correct/bc20-s0/provenance.json", "serve"),
        ("eval/score_rl/0/provenance.main.json", "serve"),
        ("train/bc20-s0/provenance.json", "train"),
        ("train/score_rl-s0/provenance.json", "train"),
        ("train/dpo-s0/provenance.json", "train"),
        ("theory/score_sft-s0.provenance.json", "train"),
    ):
        record = json.loads(undisturbed.path(name).read_text())
        assert record["image"]["file"].endswith(f"containers/{image}.sif"), name
        assert len(record["image"]["sha256"]) == 64, name
        assert record["image"]["recipe"], name
    said = undisturbed.said()
    assert "Activating" in said, "local rules too"
    assert "Error in rule" not in said


def test_the_queue_is_empty_and_nothing_is_left_running(undisturbed: Workflow):
    assert undisturbed.queue() == []
    assert undisturbed.processes() == []


def test_a_finished_workflow_has_nothing_to_do(undisturbed: Workflow):
    assert "Nothing to be done" in undisturbed.run(*TARGETS).stdout


class Disturbed:
    """What was done to a workflow, in the order of its stages."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow, self.did, self.done_before_kill, self.waited = workflow, {}, set(), None

    def meet(self, rule: str, process: subprocess.Popen, ready=lambda: True) -> str:
        """The number of a running job of a rule, once `ready`."""

        def found() -> str:
            assert process.poll() is None, self.workflow.said()[-4000:]
            jobs = self.workflow.jobs(rule)
            return jobs[0] if jobs and ready() else ""

        return wait_for(found, 400, f"a running job of {rule}", every=0.2)

    def attempts(self) -> set[str]:
        """Keys of the attempts that the correction has kept."""
        kept = [path.read_bytes() for path in self.workflow.path("work/correct").glob("*/attempts.*.jsonl")]
        return {json.loads(line)["key"] for content in kept for line in content.split(b"\n")[:-1]}

    def checkpoints(self) -> list[Path]:
        return list(self.workflow.path("work/train").glob("score_rl-s0-*/**/checkpoint-*"))


@pytest.fixture(scope="module")
def disturbed(checkout, slurm: Cluster, images, undisturbed) -> Disturbed:
    workflow = checkout("disturbed")
    that = Disturbed(workflow)
    process = workflow.start(*TARGETS)

    preempted = that.meet("rollout", process)
    slurm.scontrol("requeue", preempted)
    that.did["requeue"] = preempted

    overdue = that.meet("sft", process)
    slurm.scontrol("update", f"JobId={overdue}", "TimeLimit=1")
    call("scancel", "--signal=STOP", "--full", overdue)  # it hangs, so that it cannot be done within the minute
    that.did["time limit"] = overdue

    that.meet("correct", process, ready=lambda: len(that.attempts()) > 3)
    for job in workflow.jobs("correct"):  # they hang, or on a busy machine they end before the next workflow looks
        call("scancel", "--signal=STOP", "--full", job)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    that.done_before_kill, that.did["kill"] = that.attempts(), workflow.queue()
    process = workflow.start(*TARGETS)

    cancelled = that.meet("grpo", process, ready=that.checkpoints)
    call("scancel", cancelled)
    that.did["scancel"] = cancelled

    try:
        slurm.drain()
        that.waited = wait_for(
            lambda: workflow.waiting_for_the_node() or process.poll() is not None, 300, "a drained job"
        )
    finally:
        slurm.resume()
    slurm.restart_controller()

    assert process.wait(900) == 0, workflow.said()[-6000:]
    return that


def test_a_disturbed_workflow_ends_with_the_same_tables(undisturbed: Workflow, disturbed: Disturbed):
    assert disturbed.workflow.tables() == undisturbed.tables()


def test_each_disturbance_really_ended_its_job(disturbed: Disturbed):
    state = disturbed.workflow.cluster.state
    assert state(disturbed.did["time limit"]) == "TIMEOUT"
    assert state(disturbed.did["scancel"]) == "CANCELLED"
    assert isinstance(disturbed.waited, list), "a job waited while the node was drained"
    assert int(disturbed.workflow.cluster.job(disturbed.did["requeue"])["Restarts"]) == 1
    assert all(state(job) in ("CANCELLED", "COMPLETED") for job in disturbed.did["kill"])


def test_jobs_of_a_killed_workflow_are_cancelled_and_what_they_did_is_kept(disturbed: Disturbed):
    assert disturbed.did["kill"], "the killed workflow had jobs in the queue"
    assert "SLURM jobs of an earlier, killed workflow" in disturbed.workflow.said()
    assert disturbed.done_before_kill <= disturbed.attempts()
    logs = "".join(path.read_text() for path in disturbed.workflow.path("logs/correct").glob("*-of-*.log"))
    assert "found finished" in logs


def test_no_process_outlives_a_disturbance(disturbed: Disturbed):
    assert disturbed.workflow.queue() == []
    assert disturbed.workflow.processes() == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 kB, and a way to make it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", folder]).returncode:
        absent("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_ends_jobs_with_one_line_and_loses_nothing(checkout, images, small_disk):
    workflow = checkout("full")
    workflow.path("work").mkdir(parents=True)
    workflow.path("work/rollout").symlink_to(small_disk)
    target = "results/tiny/rollout/teacher/mentored.jsonl"
    failed = workflow.run("--retries", "0", target)
    assert failed.returncode != 0
    logs = "".join(path.read_text() for path in workflow.path("logs/rollout").rglob("*.log"))
    assert "no space left on the disk: make room; what is done is kept, start again" in logs
    assert "Traceback" not in logs
    kept = {path: path.read_bytes() for path in small_disk.glob("*/*.jsonl")}
    assert any(kept.values())
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    assert workflow.run(target).returncode == 0, workflow.said()[-3000:]
    for path, content in kept.items():
        assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])


def test_a_model_that_no_job_can_load_is_one_line(tmp_path, checkout, images):
    workflow = checkout("model")
    model = tmp_path / "torn"
    shutil.copytree(ROOT / "src/score/micro/weights", model)
    weights, whole = model / "model.safetensors", (model / "model.safetensors").read_bytes()
    words = ["--retries", "0", "--config", f"models={{student: {{path: {model}}}}}"]
    words += ["--", "results/tiny/eval/untrained/0/math2.jsonl"]

    weights.write_bytes(whole[:1000])
    torn = workflow.run(*words)
    assert torn.returncode != 0
    assert f"error: models.student: {model}: model.safetensors is torn; copy it there again" in torn.stdout
    assert not workflow.path("data").exists(), "no job has run"

    # Whole files of an architecture that only the model library can refuse, so the job's own log tells it.
    weights.write_bytes(whole)
    config = json.loads((model / "config.json").read_text()) | {"model_type": "unheard_of"}
    (model / "config.json").write_text(json.dumps(config))
    unknown = workflow.run(*words)
    assert unknown.returncode != 0
    logs = "".join(path.read_text() for path in workflow.path("logs/eval").rglob("*.log"))
    assert f"error: {model}: not a model that can be loaded here" in logs
    assert "Traceback" not in logs
