"""Gets one published data file from the pinned public commit, or from a local mirror of it, and checks every byte.

    python -m score.data.fetch --path inference/inference_data/aime24.jsonl --out data/raw/aime24.jsonl
    python -m score.data.fetch --source /mirror/of/projects/SCoRe --path ... --out ...

`published.csv` beside this file lists each file's git blob id and, where the file has been seen, its sha256 and size.
Not here: what is in the files (`score.data.questions`, `score.data.published`).
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from score import cli
from score.errors import ScoreError
from score.jsonl import replaced_file

log = logging.getLogger("fetch")

COMMIT = "52c46acd018e608ce1bb91ab751008e27fdba4a2"
PUBLISHED = f"https://raw.githubusercontent.com/modelscope/easydistill/{COMMIT}/projects/SCoRe"
TABLE = Path(__file__).with_name("published.csv")

RETRIES = 4


@dataclass(frozen=True)
class PublishedFile:
    """What is known of a published file; `sha256` and `bytes` are empty where only its git blob id is."""

    path: str
    git_blob: str
    sha256: str
    bytes: str

    def check(self, content: bytes, place: str) -> None:
        """Raises `ScoreError`, naming the place, unless `content` is the published file."""
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        sha256 = hashlib.sha256(content).hexdigest()
        for name, expected, found in [("sha256", self.sha256, sha256), ("git blob id", self.git_blob, blob)]:
            if expected and expected != found:
                size = f"{len(content)} bytes" + (f" instead of {self.bytes}" if self.bytes else "")
                raise ScoreError(f"{place}: not the published file: {name} {found}, expected {expected} ({size})")


def published_file(path: str) -> PublishedFile:
    """The row of `published.csv` for `path`. Raises `ScoreError` with the nearest path."""
    with open(TABLE, newline="") as file:
        table = {row["path"]: PublishedFile(**row) for row in csv.DictReader(file)}
    if path in table:
        return table[path]
    near = difflib.get_close_matches(path, table, n=1, cutoff=0)
    raise ScoreError(f"{path!r} is not a published file; the nearest is {near[0]!r}")


def fetch(source: str, path: str, *, pause_s: float = 2.0) -> bytes:
    """The verified content of published file `path` below `source`, a folder or an http(s) address.

    Raises `ScoreError` when it cannot be had or when a byte of it is wrong. `pause_s` doubles with each retry.
    """
    known = published_file(path)
    if source.startswith(("http://", "https://")):
        place = f"{source.rstrip('/')}/{path}"
        content = _download(place, pause_s)
    else:
        place = str(Path(source) / path)
        content = _read(Path(place))
    known.check(content, place)
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ScoreError(f"{path}: cannot be read ({error.strerror}); is the mirror complete?") from None


def _download(url: str, pause_s: float) -> bytes:
    for retry in range(RETRIES + 1):
        if retry:
            time.sleep(pause_s * 2 ** (retry - 1))
        try:
            response = httpx.get(url, timeout=60, follow_redirects=True)
        except httpx.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            if response.is_success:
                return response.content
            reason = f"HTTP {response.status_code}"
            if response.is_client_error and response.status_code not in (408, 429):
                break
        log.warning("%s: %s", url, reason)
    raise ScoreError(f"{url}: {reason}; without a way out, put the file into a folder and give that as the source")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Get and verify one published data file.")
    parser.add_argument("--source", default=PUBLISHED, help="mirror folder or address (default: the pinned commit)")
    parser.add_argument("--path", required=True, help="path below the published project folder")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    content = fetch(args.source, args.path)
    with replaced_file(args.out) as file:
        file.write(content)
    log.info("%s: %d bytes, verified", args.out, len(content))


if __name__ == "__main__":
    cli.run(main)
