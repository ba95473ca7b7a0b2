"""Where models come from: a user's folder, the hub, or a package index (small real models that need no account)."""

from __future__ import annotations

from pathlib import Path

from score.config.schema import Model
from score.engine import BASE_STUDENT

MADE = "models/"
"""Model folders below it are made by a rule."""


def made(model: Model) -> str | None:
    """The path by which a rule makes or fetches a model; None for a remote one, a user's folder, a shipped one."""
    path = model.path or ""
    if path.startswith(MADE):
        return path
    if model.engine not in ("vllm", "transformers") or path == BASE_STUDENT or path.startswith((".", "/", "~", "$")):
        return None
    if path.count("/") != 1 or Path(path).is_dir():
        return None
    return f"{MADE}hub/{path}/{model.revision or 'main'}.json"
