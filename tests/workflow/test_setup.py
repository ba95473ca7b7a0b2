"""The set-up names what a machine lacks, in one line, before it installs anything."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "git", "make")


def setup(tmp_path, without: str = "", python: str | None = None) -> subprocess.CompletedProcess:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        if tool != without and (found := shutil.which(tool)):
            (tools / tool).symlink_to(found)
    if python is not None:
        (tools / "python3").write_text(f"#!{shutil.which('bash')}\n{python}\n")
        (tools / "python3").chmod(0o755)
    command = [shutil.which("bash"), str(ROOT / "envs/setup.sh"), "python3", str(tmp_path / "venv")]
    return subprocess.run(command, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("tool", ["git", "make"])
def test_a_missing_tool_is_named(tmp_path, tool):
    done = setup(tmp_path, without=tool, python="exit 0")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tool} is not installed")
    assert done.stderr.count("\n") == 1


def test_missing_python_is_named(tmp_path):
    assert "error: python3 is not installed" in setup(tmp_path).stderr


def test_an_old_python_is_named(tmp_path):
    old = 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi'
    assert "error: Python 3.9.2 is too old" in setup(tmp_path, python=old).stderr


def test_a_python_without_venv_is_named(tmp_path):
    bare = 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac'
    done = setup(tmp_path, python=bare)
    assert "error: python3 has no venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def installed(tmp_path, *locks: str, has_cpu_build: bool, torch_loads: bool) -> list[str]:
    """The locks that a fake pip is told to install, in order."""
    programs = tmp_path / "venv/bin"
    programs.mkdir(parents=True)
    refusal = "" if has_cpu_build else 'case "$*" in *torch-cpu.lock) exit 1;; esac'
    (programs / "pip").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n{refusal}\n')
    (programs / "python").write_text(f"#!/bin/sh\nexit {int(not torch_loads)}\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    command = [shutil.which("bash"), str(ROOT / "envs/install.sh"), str(tmp_path / "venv")]
    subprocess.run([*command, *(str(ROOT / "envs" / lock) for lock in locks)], check=True, timeout=60)
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("install")]
    assert all("--require-hashes" in words and "--no-deps" in words for words in asked)
    return [Path(words[-1]).name for words in asked]


def test_the_cpu_build_of_torch_is_taken_where_pip_finds_it(tmp_path):
    locks = installed(tmp_path, "core.lock", "train.lock", has_cpu_build=True, torch_loads=True)
    assert locks == ["core.lock", "torch-cpu.lock", "train.lock"]


def test_the_other_build_of_torch_gets_its_libraries(tmp_path):
    locks = installed(tmp_path, "train.lock", has_cpu_build=False, torch_loads=False)
    assert locks == ["torch-cpu.lock", "train.lock", "torch-cuda.lock"]


def test_a_lock_for_gpus_never_takes_the_cpu_build(tmp_path):
    assert installed(tmp_path, "serve-cuda.lock", has_cpu_build=True, torch_loads=True) == ["serve-cuda.lock"]
