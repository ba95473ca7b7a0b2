"""How many parameters the models of a config have: from their files, from their names, or as assumed."""

from __future__ import annotations

import json
from pathlib import Path

from score.cluster import places
from score.config import Config
from score.config.schema import Model
from score.engine import resolve_path
from score.models.folder import cached
from score.plan.assumptions import Assumptions
from score.train.memory import Shape

_REMOTE = ("endpoint", "oracle")


def parameters(config: Config, home: Path, assumed: Assumptions) -> dict[str, float | None]:
    """Key in `models` -> parameters; None where nothing tells, 0 for what no job loads.

    Args:
        home: the hub's cache (HF_HOME).
    """
    return {
        name: 0.0 if entry.engine in _REMOTE else _parameters(name, entry, home, assumed)
        for name, entry in config.models.items()
    }


def _parameters(name: str, entry: Model, home: Path, assumed: Assumptions) -> float | None:
    if (own := assumed.of("parameters", name)) is not None:
        return own
    path = resolve_path(entry.path or "")
    folders = [Path(path)] if Path(path).is_dir() else cached(path, home)
    shape = _shape(folders[0] / "config.json") if folders else None
    return float(shape.parameters) if shape else places.named(path) or places.named(name)


def _shape(file: Path) -> Shape | None:
    try:
        return Shape.of(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return None
