"""Task files: one question a line, as `score.data` writes them and every later stage reads them."""

from __future__ import annotations

from pathlib import Path

from score.errors import ScoreError
from score.jsonl import numbered_rows
from score.records import Task


def read_tasks(*paths: Path, repeated: bool = False) -> list[Task]:
    """The tasks of some files, in order; `repeated` where a question may stand in them more than once.

    Raises `ScoreError` with file and line on a row that is no task or has no answer, and on an id that was used before.
    """
    tasks: list[Task] = []
    seen: dict[str, str] = {}
    for path in paths:
        for number, row in numbered_rows(path):
            place = f"{path}:{number}"
            try:
                task = Task.from_json(row)
            except (KeyError, TypeError, ValueError) as error:
                raise ScoreError(f"{place}: not a task ({type(error).__name__}: {error})") from None
            if not task.answers:
                raise ScoreError(f"{place}: task {task.id!r} has no answer")
            first = seen.setdefault(task.id, place)
            if first != place and not repeated:
                raise ScoreError(f"{place}: id {task.id!r} was already used in {first}")
            tasks.append(task)
    return tasks
