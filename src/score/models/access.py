"""May this user download a model? What is known without asking the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_HUB = "https://huggingface.co"


VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""What the hub's library takes for the user's token, the first before the second."""


def has_token(home: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """HF_TOKEN is set, or `hf auth login` has stored one in the hub's folder (HF_HOME): both reach the download."""
    try:
        given = any(environ.get(name, "").strip() for name in VARIABLES)
        return given or bool((home / "token").read_text(encoding="utf-8").strip())
    except OSError:
        return False


def gated(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """What is to be done about a gated model."""
    hub = urlsplit((environ.get("HF_ENDPOINT") or _HUB).rstrip("/"))
    page = f"{hub._replace(netloc=hub.netloc.rpartition('@')[2]).geturl()}/{name}"  # no password of a mirror's
    return f"{name} is gated: accept its licence at {page} and set HF_TOKEN"
