"""Which shards a gathered result rests on, as the planner sees it (the jobs themselves: `score.shards`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def rests_on(made: Sequence[Path], fingerprint: str, now: Sequence[str]) -> list[str]:
    """Names of a result's shards ("1-of-8", ...).

    A result whose settings and code are those of now keeps the shards that it was made of: asked for in another number
    of shards, nothing is made anew.

    Args:
        made: the result's files; the last one is its provenance.
        fingerprint: of the stage's settings and code as they are now.
        now: the shards that it would be split into now.
    """
    record = _json(made[-1]) if all(path.exists() for path in made) else {}
    if record.get("fingerprint") != fingerprint:
        return list(now)
    return [f"{number}-of-{record['shards']}" for number in range(1, record["shards"] + 1)]


def _json(path: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one where a killed job left half of it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
