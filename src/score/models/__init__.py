"""Where models come from: a user's folder, the hub, or a package index (small real models that need no account)."""

from __future__ import annotations

import os

from score.config.schema import Model
from score.engine import BASE_STUDENT

RECORDS = "models/hub"
"""Records of downloads, which rule `hub_model` makes."""
BUILT = ("models/smollm2-135m-instruct",)
"""Model folders that a rule of their own makes."""


def made(model: Model) -> str | None:
    """The path by which a rule makes or fetches a model; None for a remote one, a user's folder, a shipped one."""
    path = model.path or ""
    if path in BUILT:
        return path
    if model.engine not in ("vllm", "transformers") or path == BASE_STUDENT or path.startswith((".", "/", "~", "$")):
        return None
    if path.count("/") != 1 or path.startswith("models/") or os.path.isdir(path):
        return None
    return f"{RECORDS}/{path}/{model.revision or 'main'}.json"
