"""All tables and figures of an experiment on one page that needs no other file: report/index.html.

    python -m score.report.page --title "Micro-world." --parts tables/headline.md figures/figure3a.png ... \
        --out report/index.html

A part is a table's or a caption's Markdown, or a picture; they come in the order given. A picture whose Markdown stands
beside it (the figure's numbers) shows it folded up below.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from markdown_it import MarkdownIt

from score import cli
from score.errors import ScoreError
from score.jsonl import write_text

HEADINGS = {
    "headline": "All agents",
    "table1": "Table 1: mathematics and facts",
    "table2": "Table 2: deep search",
    "table3": "Table 3: ablation",
    "baselines": "Baselines",
    "figure3a": "Figure 3a: corrections needed",
    "figure3b": "Figure 3b: hard tasks",
    "learning_curves": "Learning curves",
    "teacher_tokens": "What the teacher wrote, and what it bought",
    "horizon": "Accuracy over the horizon",
    "gradient_variance": "Variance of the gradient over the prefix",
}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
  nav a { margin-right: 1rem; white-space: nowrap; }
  section { margin-top: 3rem; overflow-x: auto; }
  p { max-width: 60rem; }
  img { max-width: 100%; height: auto; }
  table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
  thead { border-bottom: 2px solid; }
  th, td { padding: 0.2rem 0.7rem; white-space: nowrap; }
  tbody tr:nth-child(even) { background: #f3f3f3; }
  summary { cursor: pointer; }
</style>
<h1>{{ title }}</h1>
<nav>{% for part in parts %}<a href="#{{ part.name }}">{{ part.heading }}</a> {% endfor %}</nav>
{% for part in parts %}
<section id="{{ part.name }}">
<h2>{{ part.heading }}</h2>
{% if part.picture %}
<img src="data:image/png;base64,{{ part.picture }}" alt="{{ part.heading }}">
{% if part.text %}<details><summary>Numbers and caption</summary>{{ part.text | safe }}</details>{% endif %}
{% else %}
{{ part.text | safe }}
{% endif %}
</section>
{% endfor %}
</html>
"""


@dataclass(frozen=True)
class Part:
    """A section of the page: HTML text, and a PNG in base64 if it is a figure."""

    name: str
    text: str
    picture: str = ""

    @property
    def heading(self) -> str:
        return HEADINGS.get(self.name, self.name.replace("_", " "))


def read_part(path: Path) -> Part:
    """A section from a file. Raises `ScoreError` if it cannot be read."""
    try:
        if path.suffix != ".png":
            return Part(path.stem, _html(path.read_text(encoding="utf-8")))
        numbers = path.with_suffix(".md")
        text = _html(numbers.read_text(encoding="utf-8")) if numbers.exists() else ""
        return Part(path.stem, text, base64.b64encode(path.read_bytes()).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise ScoreError(f"{path}: cannot be shown ({error})") from None


def page(title: str, parts: Sequence[Part]) -> str:
    """The page's HTML. What the parts' Markdown holds of HTML is shown as text."""
    return Environment(autoescape=True).from_string(PAGE).render(title=title, parts=parts)


def _html(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--title", required=True)
    parser.add_argument("--parts", type=Path, nargs="+", required=True, help="Markdown and PNG files")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    write_text(args.out, page(args.title, [read_part(path) for path in args.parts]))


if __name__ == "__main__":
    cli.run(main)
