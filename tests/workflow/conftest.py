"""A micro-world as small as it can be while every rule still runs (tiny.yaml), run once for all tests that need it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "tiny"
COMMAND = [
    "snakemake",
    "--profile",
    "demo",
    "--configfile",
    "configs/micro.yaml",
    "tests/workflow/tiny.yaml",
]


def run(*args: str, timeout: float = 500, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *args], cwd=folder, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="session")
def killed_run() -> set[str]:
    """Starts from nothing and is killed with -9 as soon as the correction has kept its first attempts: their keys."""
    subprocess.run(["rm", "-rf", str(RESULTS)], check=True)
    workflow = subprocess.Popen([*COMMAND], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and workflow.poll() is None:
        kept = [path for path in RESULTS.glob("work/correct/*/attempts.1-of-1.jsonl") if path.stat().st_size > 0]
        if kept:
            break
        time.sleep(0.2)
    os.kill(workflow.pid, signal.SIGKILL)
    said = workflow.communicate()[0].decode()
    assert kept, said[-3000:]
    return {json.loads(line)["key"] for line in kept[0].read_bytes().split(b"\n")[:-1]}


@pytest.fixture(scope="session")
def finished(killed_run) -> subprocess.CompletedProcess:
    """The run that continues the killed one to its end."""
    time.sleep(3)  # the orphaned jobs notice that their workflow is gone
    done = run()
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done
