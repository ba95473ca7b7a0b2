"""envs/smoke.sh with a Snakemake and a vLLM that are made up: what it starts, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import fake_vllm

ROOT = Path(__file__).parents[2]
OVERLAY = Path("results/smoke_server.yaml")

SNAKEMAKE = f"""#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path

def note(what):
    with open("calls", "a") as file:
        print(json.dumps(what), file=file, flush=True)

def interrupted(*_):
    note("interrupted")
    sys.exit(1)

signal.signal(signal.SIGINT, interrupted)
words = sys.argv[1:]
note([words, Path("{OVERLAY}").exists()])
while "--until" not in words and Path("busy").exists():
    time.sleep(0.05)
sys.exit(int(os.environ.get("CODE", 0)))
"""


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """Starts the script in a folder that has what it reads of the repository."""
    for name in ("config.yaml", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/snakemake").write_text(SNAKEMAKE)
    (tmp_path / "bin/snakemake").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    started = []

    def start(*words: str, behaviour: tuple[str, ...] = (), **variables: str) -> subprocess.Popen:
        path = [tmp_path / "bin", Path(sys.executable).parent, os.environ["PATH"]]
        ours = {"PATH": ":".join(map(str, path)), "PYTHONPATH": str(ROOT / "src")}
        ours["SCORE_VLLM_PYTHON"] = fake_vllm.install(tmp_path, *behaviour)
        with open(f"said{len(started)}", "wb") as said:
            started.append(
                subprocess.Popen(["bash", ROOT / "envs/smoke.sh", *words], env=os.environ | ours | variables,
                                 stdout=said, stderr=said)
            )  # fmt: skip
        return started[-1]

    yield start
    Path("busy").unlink(missing_ok=True)  # a workflow that a killed run left ends
    for process in started:
        process.kill()
        process.wait()


def until(found: Callable[[], object], process: subprocess.Popen, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not found():
        assert process.poll() is None, said()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(run: int = 0) -> str:
    return Path(f"said{run}").read_text()


def calls() -> list:
    return [json.loads(line) for line in Path("calls").read_text().splitlines()] if Path("calls").exists() else []


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
        return True
    except ProcessLookupError:
        return False


def served_group() -> int:
    """The process group of the model's server."""
    (log,) = Path("results/smoke/logs/serve").glob("*.log")
    return fake_vllm.said(log)["group"]


def busy(smoke, *words: str, **options) -> subprocess.Popen:
    """A run whose workflow works until it is ended."""
    Path("busy").touch()
    process = smoke(*words, **options)
    until(lambda: len(calls()) == 2, process)
    return process


def test_it_ends_with_the_table(smoke):
    table = Path("results/smoke/tables/headline.md")
    table.parent.mkdir(parents=True)
    table.write_text("| student | all |")
    assert smoke().wait(60) == 0, said()
    assert "| student | all |" in said()


def test_it_serves_the_model_for_the_workflow_and_ends_the_server(smoke):
    process = smoke("--config", "data={source: a folder}", SCORE_SMOKE_CONFIG="configs/smoke_gpu.yaml", CODE="0",
                    CUDA_VISIBLE_DEVICES="0")  # fmt: skip
    assert process.wait(60) == 0, said()
    given = ["--profile", "local", "--config", "data={source: a folder}", "--configfile"]
    given += ["configs/smoke.yaml", "configs/smoke_gpu.yaml"]
    assert calls() == [[[*given, "--until", "smollm2"], False], [[*given, str(OVERLAY)], True]]
    assert "Estimate:" in said()
    assert not is_alive(served_group())


def test_a_workflow_that_fails_is_told_by_the_exit_code(smoke):
    process = smoke(CODE="3")
    assert process.wait(60) == 3
    assert len(calls()) == 1, "nothing is served if the model is not there"


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_workflow_and_server(smoke, sign, code):
    process = busy(smoke)
    process.send_signal(sign)
    assert process.wait(60) == code
    assert calls()[-1] == "interrupted"
    assert not is_alive(served_group())


def test_a_server_that_dies_ends_the_workflow(smoke):
    process = busy(smoke)
    os.killpg(served_group(), signal.SIGKILL)
    assert process.wait(60) == 1
    why = "error: the server has ended; what is done is kept, start again; the last of results/smoke_server.log:"
    assert why in said()
    assert calls()[-1] == "interrupted"


def test_a_server_that_does_not_start_is_told(smoke):
    process = smoke(SCORE_SERVE="env SCORE_VLLM_PYTHON=false")
    assert process.wait(60) == 1
    assert "error: the server did not start; the last of results/smoke_server.log:" in said()
    assert len(calls()) == 1


def test_a_second_run_leaves_the_first_in_peace(smoke):
    first = busy(smoke)
    assert (smoke().wait(60), len(calls())) == (1, 2)
    assert "error: another smoke run is going on in this folder" in said(1)
    assert OVERLAY.exists()
    Path("busy").unlink()
    assert first.wait(60) == 0


def test_a_killed_run_leaves_no_server(smoke):
    process = busy(smoke)
    group = served_group()
    process.kill()
    deadline = time.monotonic() + 30
    while is_alive(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(group)


def test_jobs_of_a_cluster_are_not_sent_to_the_loopback(smoke):
    assert smoke("--profile", "slurm").wait(60) == 1
    assert calls() == []
    assert "error: jobs on other nodes cannot reach 127.0.0.1; set SCORE_SMOKE_HOST=0.0.0.0" in said()
