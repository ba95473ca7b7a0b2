"""A LoRA adapter as a trained model: a folder with the adapter's weights that names the complete model below it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from score.errors import ScoreError

CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Adapter:
    """What an adapter folder says of itself. `base`: folder or hub name of the complete model that it changes."""

    base: str
    revision: str | None
    rank: int


def adapter_in(folder: str) -> Adapter | None:
    """The adapter that a folder holds; None for a complete model or a hub name.

    Raises `ScoreError` if it names no base.
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        base, rank = config["base_model_name_or_path"], int(config["r"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ScoreError(f"{file}: not the config of a LoRA adapter ({error!r}); train it again") from None
    if not base:
        raise ScoreError(f"{file}: base_model_name_or_path does not say which model it belongs to")
    return Adapter(base, config.get("revision"), rank)
