"""No search, for tasks that need none: a query is answered by a plain statement, as one result.

A model that searches nevertheless makes a mistake of its own, so this is neither an error of the infrastructure nor
"No results.", which would tell it to try other words.
"""

from __future__ import annotations

from score.search.base import Local, Result


class NoSearch(Local):
    """Implements `SearchBackend`."""

    name = "none"

    def search(self, query: str, k: int) -> list[Result]:
        return [Result("Search is not available", "This task has to be solved without web_search.")]
