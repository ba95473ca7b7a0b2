"""What a table says of the training questions that are test questions."""

from __future__ import annotations

import json
from pathlib import Path

from score.errors import ScoreError


def sentence(path: Path) -> str:
    """The counts of `data/contamination.json` in words. Raises `ScoreError` if the file is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        counts, total = found["counts"], sum(one["questions"] for one in found["benchmarks"].values())
        near = counts["nearly_found"]
        nearly = "nearly equal ones not looked for" if near is None else f"{near} more nearly so"
        return (
            f"{counts['test_questions_found']} of the {total} test questions of all benchmarks stood in the "
            f"{counts['distinct']} training questions ({nearly}); what held them was dropped ({counts['dropped']})."
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoreError(f"{path}: not a list of contamination ({type(error).__name__}: {error})") from None
