"""Runs that are asked to be computed anew (`--config fresh=[NAME]`): how often so far, kept beside the results.

The count enters the fingerprint of every stage of the run. So its rules run again, and in work folders of their own:
what it left in `work/` before is set aside, not deleted and not continued. Each call that asks starts anew; to continue
a killed one, leave `fresh` out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from score.jsonl import write_json

_FILE = "fresh.json"


def counts(root: Path, again: Sequence[str]) -> dict[str, int]:
    """How often each run has been started afresh, one more for those that are to be now."""
    path = root / _FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known | {name: known.get(name, 0) + 1 for name in again}


def remember(root: Path, now: dict[str, int]) -> None:
    """Records the counts of a run that starts, so that its jobs, and runs after it, mean the same work folders."""
    if now:
        write_json(root / _FILE, now)
