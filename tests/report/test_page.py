"""The page of all tables and figures."""

import base64
from html.parser import HTMLParser

import pytest

from score.errors import ScoreError
from score.report import page

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.words, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def shown(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    parts = [str(tmp_path / name.replace("__", ".")) for name in files if name != "figure3a__md"]
    page.main(["--title", "Micro & <small>", "--parts", *parts, "--out", str(tmp_path / "report/index.html")])
    seen = Seen()
    seen.feed((tmp_path / "report/index.html").read_text())
    return seen


def test_tables_and_pictures_are_all_in_the_page(tmp_path):
    table = "| method | math |\n| --- | ---: |\n| BC **all** | 12.5 |\n\nMicro-world. n = 30 questions."
    seen = shown(tmp_path, table1__md=table, figure3a__png=PIXEL, figure3a__md="| tasks |\n| --- |\n| 7 |")
    text = " ".join(seen.words)
    assert "Micro & <small>" in text
    assert seen.tags.count("table") == 2
    assert [word in text for word in ("BC", "12.5", "n = 30 questions", "Table 1", "Figure 3a")] == [True] * 5
    assert "#table1" in seen.sources
    pictures = [source for source in seen.sources if not source.startswith("#")]
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in pictures] == [PIXEL]


def test_html_in_a_table_is_text(tmp_path):
    seen = shown(tmp_path, headline__md="An answer <script>alert(1)</script>")
    assert "script" not in seen.tags
    assert "<script>" in " ".join(seen.words)


def test_a_part_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ScoreError, match=r"gone\.md: cannot be shown"):
        page.read_part(tmp_path / "gone.md")
