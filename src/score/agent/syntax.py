"""When two texts of a turn are the same but for layout: plans by their words, code by its syntax tree."""

from __future__ import annotations

import ast


def squeeze(text: str) -> str:
    return " ".join(text.split())


def tree(code: str) -> str:
    """The syntax tree as text, so that layout and comments do not matter; the text itself if it does not parse."""
    try:
        return ast.dump(ast.parse(code))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return squeeze(code)
