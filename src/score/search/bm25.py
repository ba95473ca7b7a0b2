"""BM25 over a local corpus: JSON Lines of {"title", "text", "url"?}, indexed in memory when opened.

English stemming and stop words; title and text are indexed together. Results are exactly reproducible: equal scores are
ordered as in the file, and documents without any word of the query are no results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bm25s
import numpy as np
import Stemmer

from score.errors import ScoreError
from score.search.base import Local, Result


class Bm25(Local):
    """Implements `SearchBackend`; thread-safe. Snippets are the first `snippet_chars` characters of a text.

    Raises:
        ScoreError: no such file, a row that is no JSON object with a title and a text, or no row at all.
    """

    name = "bm25"

    def __init__(self, path: str | Path | None = None, *, snippet_chars: int = 1000) -> None:
        if path is None:
            raise ScoreError("search: backend bm25 needs a corpus (config: search.corpus, a JSON Lines file)")
        self._snippet_chars = snippet_chars
        self._rows = list(_rows(Path(path)))
        if not self._rows:
            raise ScoreError(f"{path}: the search corpus is empty")
        self._index = bm25s.BM25()
        self._index.index(self._words([f"{row['title']}\n{row['text']}" for row in self._rows]), show_progress=False)

    def search(self, query: str, k: int) -> list[Result]:
        (words,) = self._words([query])
        known = self._index.get_tokens_ids(words)
        if not known or k < 1:
            return []
        scores = self._index.get_scores_from_ids(known)
        return [self._result(row) for row in _best(scores, k)]

    @staticmethod
    def _words(texts: list[str]) -> list[list[str]]:
        # A stemmer is not thread-safe, so each call makes its own.
        stemmer = Stemmer.Stemmer("english")
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)

    def _result(self, row: int) -> Result:
        page = self._rows[row]
        return Result(page["title"], page["text"][: self._snippet_chars], page.get("url", ""))


def _best(scores: np.ndarray, k: int) -> list[int]:
    """Rows of the k highest positive scores, best first, earlier rows first among equals."""
    k = min(k, len(scores))
    least = np.partition(scores, -k)[-k]
    candidates = np.flatnonzero((scores >= least) & (scores > 0))
    order = np.lexsort((candidates, -scores[candidates]))
    return candidates[order][:k].tolist()


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _row(line, f"{path}:{number}")
    except OSError as problem:
        raise ScoreError(f"{path}: cannot read the search corpus: {problem.strerror}") from problem


def _row(line: str, place: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except ValueError as problem:
        raise ScoreError(f"{place}: no JSON: {problem}") from problem
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("title", "text")):
        raise ScoreError(f"{place}: expected an object with the texts `title` and `text`")
    return row
