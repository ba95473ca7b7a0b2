"""How every figure looks and how it is written: one theme, one look per agent, four files.

A look is a colour, a marker, a dash pattern and a hatch together, so that no figure needs its colours to be read.
Not here: what the figures show.
"""

from __future__ import annotations

import argparse
import logging
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from score.jsonl import replaced_file, write_text
from score.report.figures import values

if TYPE_CHECKING:  # drawing libraries take seconds to import, which `--help` need not wait for
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.5
"""Inches: the text width of a paper's page."""

# seaborn's "colorblind" palette without its two palest colours, which vanish in print.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494")
MARKERS = ("o", "s", "^", "D", "v", "X", "<")
DASHES = ("", (4, 1.5), (1, 1), (5, 1, 1, 1), (2, 1))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "oo", "++++")


@dataclass(frozen=True)
class Look:
    """What tells one agent or group from another; `dashes` is seaborn's pattern, "" for a solid line."""

    colour: str
    marker: str
    dashes: str | tuple[float, ...]
    hatch: str


def looks(names: Iterable[str], drawn: Iterable[str]) -> dict[str, Look]:
    """The looks of those `names` that are drawn, by their places among all: an agent looks the same in every figure.

    The cycles differ in length, so that two names do not share a whole look.
    """
    places = zip(names, cycle(COLOURS), cycle(MARKERS), cycle(DASHES), cycle(HATCHES), strict=False)
    drawn = set(drawn)
    return {name: Look(*look) for name, *look in places if name in drawn}


def theme() -> None:
    """Sets seaborn's theme for print. Needs no display."""
    import matplotlib
    import seaborn as sns

    matplotlib.use("Agg")
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every glyph that it puts into a PDF
    sns.set_theme(
        context="paper",
        style="whitegrid",
        font="DejaVu Sans",  # comes with matplotlib, so the files are the same on every machine
        rc={
            "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "font.size": 8,
            "axes.edgecolor": "0.3", "axes.linewidth": 0.8, "grid.color": "0.9", "hatch.linewidth": 0.6,
            "lines.markersize": 5, "pdf.fonttype": 42,
        },
    )  # fmt: skip


def canvas(note: str, *, panels: int = 1, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A themed figure with its panels side by side, and the note below them."""
    theme()
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, panels, figsize=(WIDTH, height), layout="constrained", squeeze=False)
    # Below the canvas, where nothing is drawn; `save` makes room for it.
    figure.text(0.01, -0.02, textwrap.fill(note, 130), va="top", fontsize=7, color="0.3")
    return figure, list(axes[0])


def seaborn_looks(looks: Mapping[str, Look]) -> dict[str, dict]:
    """The looks as the arguments of `seaborn.lineplot`."""
    return {
        "hue_order": list(looks),
        "style_order": list(looks),
        "palette": {name: look.colour for name, look in looks.items()},
        "markers": {name: look.marker for name, look in looks.items()},
        "dashes": {name: look.dashes for name, look in looks.items()},
        "markeredgewidth": 0.3,
    }


def lines(axes: Axes, data: pd.DataFrame, x: str, looks: Mapping[str, Look], *, spread: float, **options) -> None:
    """Draws `mean` with its interval over `x`, one line per `label`.

    The lines stand side by side around each x, over a width of `spread`, so that no interval hides another.
    """
    import seaborn as sns

    offsets = {name: spread * ((i + 0.5) / len(looks) - 0.5) for i, name in enumerate(looks)}
    moved = data.assign(**{x: data[x] + data["label"].map(offsets)})
    sns.lineplot(
        moved, x=x, y="mean", hue="label", style="label", ax=axes, errorbar=None, **seaborn_looks(looks) | options
    )
    for name, of_name in moved.groupby("label"):
        intervals(axes, of_name[x], of_name, looks[name].colour)


def intervals(axes: Axes, x: Sequence[float], data: pd.DataFrame, colour: str, *, horizontal: bool = False) -> None:
    """Error bars from `low` to `high` around `mean`."""
    # Rounding can put a mean of 0 or 1 just outside of its interval, and matplotlib takes no negative length.
    error = [(data["mean"] - data["low"]).clip(lower=0), (data["high"] - data["mean"]).clip(lower=0)]
    place = {"x": data["mean"], "y": x, "xerr": error} if horizontal else {"x": x, "y": data["mean"], "yerr": error}
    axes.errorbar(**place, fmt="none", ecolor=colour, elinewidth=1, capsize=2)


def counted_ticks(axes: Axes, data: pd.DataFrame, x: str) -> None:
    """One tick per value of `x`, with the n behind it."""
    counts = values.counts(data, x)
    axes.set_xticks(list(counts), [f"{value}\nn = {n}" for value, n in counts.items()])


def legend_above(figure: Figure, *panels: Axes) -> None:
    """Puts one legend for some panels above the figure, outside of its canvas, in as many columns as fit."""
    entries = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if axes.get_legend():
            axes.get_legend().remove()
    labels, handles = list(entries), list(entries.values())
    columns = max(1, min(len(labels), 110 // (max(map(len, labels)) + 8)))
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, handlelength=3
    )


def say(axes: Axes, text: str) -> None:
    """A sentence in the place of data that are not there."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center")
    axes.set(xticks=[], yticks=[])


def arguments(parser: argparse.ArgumentParser) -> None:
    """What every figure's command takes."""
    parser.add_argument("--note", default="", help="what a reader must know of this experiment, set below the figure")
    parser.add_argument("--out-dir", required=True, type=Path)


def caption(title: str, *sentences: str) -> str:
    """A figure's caption in Markdown; empty sentences are left out."""
    return " ".join(filter(None, [f"**{title}.**", *sentences]))


def save(figure: Figure, data: pd.DataFrame, table: pd.DataFrame, caption: str, out_dir: Path, name: str) -> None:
    """Writes NAME.pdf, NAME.png (200 dpi), `data` as NAME.csv, and NAME.md: the caption, then `table`.

    The same input gives the same bytes.
    """
    import matplotlib.pyplot as plt

    for suffix, options in {"pdf": {"metadata": {"CreationDate": None}}, "png": {"dpi": 200}}.items():
        with replaced_file(out_dir / f"{name}.{suffix}") as file:
            figure.savefig(file, format=suffix, bbox_inches="tight", **options)
    plt.close(figure)
    write_text(out_dir / f"{name}.csv", data.to_csv(index=False, lineterminator="\n"))
    write_text(out_dir / f"{name}.md", f"{caption}\n\n{table.to_markdown(index=False, disable_numparse=True)}\n")
