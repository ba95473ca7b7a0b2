"""The test cluster is what it claims to be: scheduling, limits and recovery are SLURM's; only the GPUs are numbers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.slurm


def test_jobs_share_no_gpu(cluster, tmp_path):
    script = f'echo "$CUDA_VISIBLE_DEVICES" >{tmp_path}/$SLURM_JOB_ID; until [ -e {tmp_path}/go ]; do sleep 0.2; done'
    jobs = [cluster.submit(script, "--partition=gpu", "--gpus=2") for _ in range(2)]
    cluster.wait_for(lambda: all((tmp_path / job).exists() for job in jobs), 60, "two jobs at once")
    assert {cluster.state(job) for job in jobs} == {"RUNNING"}
    (tmp_path / "go").touch()
    seen = [set((tmp_path / job).read_text().strip().split(",")) for job in jobs]
    assert [len(gpus) for gpus in seen] == [2, 2]
    assert not seen[0] & seen[1]
    assert {cluster.wait_end(job) for job in jobs} == {"COMPLETED"}


def test_more_gpus_than_there_are_wait(cluster):
    first = cluster.submit("sleep 600", "--partition=gpu", "--gpus=6")
    cluster.wait_state(first, "RUNNING")
    second = cluster.submit("sleep 600", "--partition=gpu", "--gpus=6")
    cluster.wait_for(lambda: cluster.job(second)["Reason"] == "Resources", 30, "the second job to wait for GPUs")
    with pytest.raises(RuntimeError, match="not available"):
        cluster.submit("true", "--partition=gpu", "--gpus=9")


def test_time_limit_ends_a_job(cluster, tmp_path):
    log = tmp_path / "log"
    job = cluster.submit("trap 'echo asked to end' TERM; for _ in $(seq 3000); do sleep 0.1; done", "--time=1", log=log)
    # A limit is whole minutes and looked at every 30 s; this job ignores the TERM, so the KILL comes after KillWait.
    assert cluster.wait_end(job, timeout=150) == "TIMEOUT"
    assert "asked to end" in log.read_text()


def test_requeue_starts_a_job_again(cluster, tmp_path):
    starts = tmp_path / "starts"
    job = cluster.submit(f'echo "${{SLURM_RESTART_COUNT:-0}}" >>{starts}; sleep 600', "--requeue")
    cluster.wait_for(starts.exists, 60, "the first start")
    cluster.scontrol("requeue", job)
    cluster.wait_for(lambda: starts.read_text().split() == ["0", "1"], 90, "the second start")
    assert cluster.state(job) == "RUNNING"


def test_a_partition_of_higher_tier_preempts(cluster, tmp_path):
    starts = tmp_path / "starts"
    cluster.scontrol("update", "PartitionName=gpu", "PriorityTier=10")
    try:
        cluster.submit(f"echo x >>{starts}; sleep 600", "--partition=cpu", "--cpus-per-task=16", "--requeue")
        cluster.wait_for(starts.exists, 60, "the job of the lower tier")
        high = cluster.submit("true", "--partition=gpu", "--cpus-per-task=16")
        assert cluster.wait_end(high) == "COMPLETED"
        cluster.wait_for(lambda: len(starts.read_text().split()) == 2, 90, "the preempted job to start again")
    finally:
        cluster.scontrol("update", "PartitionName=gpu", "PriorityTier=1")


def test_a_drained_node_takes_no_job_until_resumed(cluster):
    running = cluster.submit("sleep 8")
    cluster.wait_state(running, "RUNNING")
    cluster.drain()
    waiting = cluster.submit("true")
    assert cluster.wait_end(running) == "COMPLETED"  # draining ends nothing that runs
    assert cluster.state(waiting) == "PENDING"
    assert "drain" in cluster.node_state()
    cluster.resume()
    assert cluster.wait_end(waiting) == "COMPLETED"


def test_controller_restart_keeps_jobs(cluster, tmp_path):
    log = tmp_path / "log"
    job = cluster.submit("for i in $(seq 30); do echo $i; sleep 0.5; done", log=log)
    queued = cluster.submit("true", f"--dependency=afterok:{job}")
    cluster.wait_for(lambda: log.exists() and log.read_text(), 60, "the job's first line")
    cluster.restart_controller()
    assert cluster.squeue()[job] == "RUNNING"
    assert cluster.wait_end(queued) == "COMPLETED"
    assert log.read_text().split() == [str(i) for i in range(1, 31)]  # never interrupted, never started anew
    assert cluster.job(job)["Restarts"] == "0"


def test_a_job_ends_while_the_controller_is_away(cluster, tmp_path):
    job = cluster.submit(f"sleep 3; touch {tmp_path}/done")
    cluster.wait_state(job, "RUNNING")
    cluster.stop_controller()
    cluster.wait_for((tmp_path / "done").exists, 30, "the job to end by itself")
    cluster.start_controller()
    assert cluster.wait_end(job) == "COMPLETED"


def test_snakemake_runs_a_dag_on_slurm(cluster, tmp_path):
    """No accounting and squeue as status command: the plugin sees both jobs end, and the second sees its GPUs."""
    (tmp_path / "Snakefile").write_text("""
rule b:
    input: "a.txt"
    output: "b.txt"
    resources: gpu=2, slurm_partition="gpu"
    shell: "echo $SLURM_JOB_ID $CUDA_VISIBLE_DEVICES | cat {input} - >{output}"
rule a:
    output: "a.txt"
    resources: slurm_partition="cpu"
    shell: "echo $SLURM_JOB_ID $SLURM_JOB_PARTITION >{output}"
""")
    options = """--executor slurm --slurm-no-account --slurm-status-command squeue --jobs 4 --latency-wait 10
        --slurm-init-seconds-before-status-checks 3 --seconds-between-status-checks 2
        --default-resources mem_mb=500 runtime=5"""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *options.split()], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (first, partition), (second, gpus) = (line.split() for line in (tmp_path / "b.txt").read_text().splitlines())
    assert first != second
    assert partition == "cpu"
    assert len(set(gpus.split(","))) == 2


@pytest.mark.skipif(not shutil.which("apptainer"), reason="Apptainer is not installed (tests/cluster/install.sh)")
def test_an_ordinary_user_builds_an_image_and_a_job_runs_it(cluster, tmp_path):
    """Fakeroot, %post, mounting and SLURM's environment inside, with an image of one shell: no download, no minutes."""
    folder = Path(tempfile.mkdtemp(prefix="score-image-", dir="/tmp"))
    try:
        libraries = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
        files = ["/bin/sh", *(word for word in libraries.split() if word.startswith("/"))]
        copies = "\n".join(f"  {os.path.realpath(file)} {file}" for file in files)
        (folder / "x.def").write_text(f"Bootstrap: scratch\n\n%files\n{copies}\n\n%post\n  echo built >/built\n")
        shutil.chown(folder, "score-build")
        build = ["runuser", "-u", "score-build", "--", "apptainer", "build", "--fakeroot", "x.sif", "x.def"]
        done = subprocess.run(build, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        inside = "read word </built; echo $word $CUDA_VISIBLE_DEVICES"
        run = f"APPTAINER_USERNS=1 apptainer exec {folder}/x.sif /bin/sh -c '{inside}' >{tmp_path}/out"
        job = cluster.submit(run, "--partition=gpu", "--gpus=2", log=tmp_path / "log")
        assert cluster.wait_end(job) == "COMPLETED", (tmp_path / "log").read_text()
        word, gpus = (tmp_path / "out").read_text().split()
        assert word == "built"
        assert len(set(gpus.split(","))) == 2
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="starting a second cluster needs root")
@pytest.mark.parametrize("crashed", [False, True])
def test_stop_leaves_nothing(cluster, crashed):
    """A cluster of its own, beside the one the tests run on: two folders do not meet."""
    folder = Path(tempfile.mkdtemp(prefix="score-cluster-stop-", dir="/tmp"))
    env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def script(name: str, *args: str) -> subprocess.CompletedProcess:
        plain = {k: v for k, v in os.environ.items() if k != "SLURM_CONF"}
        return subprocess.run(["bash", HERE / name, *args], capture_output=True, text=True, timeout=120, env=plain)

    def processes() -> list[str]:
        """Commands of all processes that carry this cluster's SLURM_CONF."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"SLURM_CONF={folder}/slurm.conf".encode() in (entry / "environ").read_bytes():
                    found.append((entry / "comm").read_text().strip())
            except OSError:
                continue
        return found

    try:
        done = script("start.sh", str(folder))
        assert done.returncode == 0, done.stderr
        again = script("start.sh", str(folder))
        assert again.returncode != 0
        assert "runs already" in again.stderr
        # A job that ignores the TERM and has a child is gone as well.
        text = f"#!/bin/bash\ntrap '' TERM\nsleep 1000 & echo $! >{folder}/child; wait; sleep 1000\n"
        subprocess.run(["sbatch", "--output=/dev/null"], input=text, text=True, env=env, check=True, timeout=30)
        cluster.wait_for(lambda: (folder / "child").exists(), 30, "the job's child")
        expected = {"slurmctld", "slurmd", "slurmstepd", "munged", "sleep"}
        cluster.wait_for(lambda: expected <= set(processes()), 30, "all of them")
        if crashed:
            for name in ("slurmctld", "slurmd"):
                os.kill(int((folder / f"run/{name}.pid").read_text()), signal.SIGKILL)
        done = script("stop.sh", str(folder))
        assert done.returncode == 0, done.stderr
        assert processes() == []
        assert sorted(path.name for path in folder.iterdir()) == ["child", "lock", "log"]
    finally:
        script("stop.sh", str(folder))
        shutil.rmtree(folder)
    assert cluster.node_state()  # the tests' own cluster is still there
