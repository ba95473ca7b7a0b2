"""A micro-world as small as it can be while every rule still runs (tiny.yaml), run once for all tests that need it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


def run(*args: str, timeout: float = 1500, folder: Path = ROOT) -> subprocess.CompletedProcess:
    ours = with_apptainer()
    ours.pop("PYTHONPATH", None)  # it may name another copy
    return subprocess.run([*COMMAND, *args], cwd=folder, capture_output=True, text=True, timeout=timeout, env=ours)


def with_apptainer() -> dict[str, str]:
    """The environment, with an Apptainer on PATH that is enough for a dry run."""
    return os.environ | {"PATH": os.pathsep.join([str(ROOT / "tests/workflow/bin"), os.environ["PATH"]])}


@pytest.fixture(scope="session")
def killed_run() -> set[str]:
    """Starts from nothing and is killed with -9 as soon as the correction has kept its first attempts: their keys."""
    subprocess.run(["rm", "-rf", str(RESULTS)], check=True)
    workflow = subprocess.Popen([*COMMAND], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 600
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


@dataclass(frozen=True)
class Job:
    """A job of a dry run, and why it would run."""

    rule: str
    wildcards: dict[str, str]
    reason: str

    @property
    def agent(self) -> str | None:
        return self.wildcards.get("agent")


class Project:
    """A copy of the repository and of the finished results, in which a test changes what it likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def copy(self, folder: Path) -> "Project":
        return Project(_copy(self.folder, folder))

    def run(self, *args: str) -> subprocess.CompletedProcess:
        return run(*args, folder=self.folder)

    def plan(self, *args: str) -> list[Job]:
        """The jobs of a dry run."""
        done = self.run("-n", *args)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        said = done.stdout + done.stderr
        if "Nothing to be done" in said:
            return []
        blocks = re.split(r"^(?:local)?rule (\w+):$", said, flags=re.MULTILINE)[1:]
        return [_job(rule, text) for rule, text in zip(blocks[::2], blocks[1::2], strict=True)]

    @contextlib.contextmanager
    def edited(self, path: str, edit: Callable[[str], str]) -> Iterator[None]:
        """A file with another text, for the time of a `with` block."""
        file = self.folder / path
        before, times = file.read_text(), file.stat()
        after = edit(before)
        assert after != before, "the edit changes nothing"
        file.write_text(after)
        try:
            yield
        finally:
            file.write_text(before)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _job(rule: str, text: str) -> Job:
    facts = dict(re.findall(r"^ {4}(\w+): (.*)$", text, flags=re.MULTILINE))
    wildcards = dict(word.split("=", 1) for word in facts.get("wildcards", "").split(", ") if word)
    return Job(rule, wildcards, facts.get("reason", ""))


@pytest.fixture(scope="session")
def original(finished, tmp_path_factory) -> Project:
    """One copy for all tests that leave it as it was."""
    return Project(_copy(ROOT, tmp_path_factory.mktemp("project")))


@pytest.fixture
def project(original, tmp_path) -> Project:
    """A copy for one test."""
    return original.copy(tmp_path / "project")


def _copy(source: Path, target: Path) -> Path:
    """The files that git knows or would take, the tiny results, and what Snakemake remembers of them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(source / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name, follow_symlinks=False)
    for name in ("results/tiny", ".snakemake/metadata"):
        shutil.copytree(source / name, target / name, symlinks=True)
    for name in (".venv", ".sandbox"):
        if (ROOT / name).exists():
            (target / name).symlink_to(ROOT / name)
    return target
