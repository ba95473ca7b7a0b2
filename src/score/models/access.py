"""May this user download a model? What is known without asking the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_HUB = "https://huggingface.co"


def has_token(home: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """HF_TOKEN is set, or `hf auth login` has stored one in the hub's folder (HF_HOME): both reach the download."""
    try:
        return bool(environ.get("HF_TOKEN", "").strip() or (home / "token").read_text(encoding="utf-8").strip())
    except OSError:
        return False


def gated(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """What is to be done about a gated model."""
    page = f"{(environ.get('HF_ENDPOINT') or _HUB).rstrip('/')}/{name}"
    return f"{name} is gated: accept its licence at {page} and set HF_TOKEN"
