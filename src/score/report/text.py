"""A table's text as Markdown and as LaTeX. Knows nothing of what is in the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from tabulate import tabulate

_BOLD = ("\ue000", "\ue001")  # private characters, until it is known whether Markdown or LaTeX is written
_MARKDOWN = str.maketrans(dict.fromkeys(_BOLD, "**"))
_LATEX = str.maketrans({"−": "$-$", "–": "--", _BOLD[0]: "\\textbf{", _BOLD[1]: "}"})
"""Characters that not every LaTeX knows, in the finished text: tabulate escapes all others, and would escape these."""


@dataclass(frozen=True)
class Grid:
    """A table's text, cell by cell: columns of words first, then numbers."""

    header: list[str]
    lines: list[list[str]]
    words: int = 2


def marked(text: str, bold: bool) -> str:
    """A cell's text, in bold or as it is."""
    return text.join(_BOLD) if bold else text


def markdown(grid: Grid) -> str:
    """A Markdown table with padded columns: words to the left, numbers to the right."""
    table = [[text.translate(_MARKDOWN) for text in line] for line in (grid.header, *grid.lines)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def render(line: list[str]) -> str:
        padded = [
            text.ljust(w) if i < grid.words else text.rjust(w)
            for i, (text, w) in enumerate(zip(line, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * w if i < grid.words else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([render(table[0]), render(rule), *map(render, table[1:])])


def latex(grid: Grid, sentences: Sequence[str]) -> str:
    """A `tabular` of the package booktabs, below the sentences as comments."""
    lines = [line for sentence in ("Needs \\usepackage{booktabs}.", *sentences) for line in wrap(sentence, 118)]
    align = ["left"] * grid.words + ["right"] * (len(grid.header) - grid.words)
    rows = grid.lines or [[""] * len(grid.header)]  # without any, tabulate forgets the columns
    body = tabulate(rows, grid.header, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)
    return "".join(f"% {line}\n" for line in lines) + body.translate(_LATEX) + "\n"
