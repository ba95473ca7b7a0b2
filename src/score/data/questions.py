"""Published question files as `Task`s, and what makes two questions the same.

Benchmarks and training questions share one form, `{"id", "question", "true_answer", ...}` per line. Every defect is an
error with file and line: a question that is silently skipped would change a denominator.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from score.errors import ScoreError
from score.jsonl import numbered_rows
from score.records import Task, content_key


def normalise(question: str) -> str:
    """The question as compared for contamination: NFKC, lower case, letters and digits only."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", question).lower()))


def question_id(question: str) -> str:
    """An id from content: the same question has it in every file, whatever its published id or place."""
    return content_key("question", normalise(question))


def read_questions(paths: Iterable[Path | str], dataset: str) -> list[Task]:
    """The tasks of one or more published files, in file order; other fields go to `meta`.

    Raises `ScoreError` with file and line on a duplicate id, a missing question or a missing answer.
    """
    return [task for _, task in questions_by_file(paths, dataset)]


def subset(tasks: Sequence[Task], limit: int | None, seed: int) -> list[Task]:
    """At most `limit` tasks, drawn by the seed and each task's id, in their original order."""
    if limit is None:
        return list(tasks)
    drawn = {task.id for task in sorted(tasks, key=lambda task: content_key("subset", seed, task.id))[:limit]}
    return [task for task in tasks if task.id in drawn]


def questions_by_file(
    paths: Iterable[Path | str], dataset: str, *, aliases: bool = True
) -> Iterator[tuple[Path, Task]]:
    """Yields (the file it stands in, task); errors as in `read_questions`, and on a list where there are no aliases."""
    seen: dict[str, str] = {}
    for path in map(Path, paths):
        for number, row in numbered_rows(path):
            place = f"{path}:{number}"
            if not aliases and isinstance(row.get("true_answer"), list):
                raise ScoreError(f'{place}: "true_answer" is a list; questions of {dataset} have one answer, a string')
            task = _task(row, dataset, place)
            if task.id in seen:
                raise ScoreError(f"{place}: id {task.id!r} was already used in {seen[task.id]}")
            seen[task.id] = place
            yield path, task


def _task(row: dict[str, Any], dataset: str, place: str) -> Task:
    meta = {name: value for name, value in row.items() if name not in ("id", "question", "true_answer")}
    if row.get("id") in (None, ""):
        raise ScoreError(f'{place}: the row has no "id"')
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ScoreError(f'{place}: the row has no "question"')
    return Task(str(row["id"]), question, _answers(row.get("true_answer"), place), dataset, meta)


def _answers(value: Any, place: str) -> tuple[str, ...]:
    answers = tuple(str(answer) for answer in (value if isinstance(value, list) else [value]) if answer is not None)
    if not answers or not all(answer.strip() for answer in answers):
        raise ScoreError(f'{place}: the row has no "true_answer"')
    return answers
