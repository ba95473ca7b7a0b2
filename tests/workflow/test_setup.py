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
