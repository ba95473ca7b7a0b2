"""Published files arrive whole and right, or not at all. A local HTTP server stands for the public address."""

import contextlib
import csv
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from score.data import fetch as module
from score.data.fetch import fetch, main, published_file
from score.errors import ScoreError

CONTENT = b'{"id": 1}\n'
GIT_BLOB = "96a6f3e005bdef7b5a7acf9ad9cdde5d39370857"  # as `git hash-object` says
SHA256 = "82b0cf5da91b6a7e02f031e2da2fa5ed1261dce4c85ae20d63db9d1e84a4c384"  # as `sha256sum` says


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    """One file whose sha256 is known, one of which only the git blob id is."""
    path = tmp_path / "published.csv"
    path.write_text(f"path,git_blob,sha256,bytes\nsub/a.jsonl,{GIT_BLOB},{SHA256},10\nsub/b.jsonl,{GIT_BLOB},,\n")
    monkeypatch.setattr(module, "TABLE", path)


@contextlib.contextmanager
def server(*answers):
    """Serves the given (status, body) pairs in turn, repeating the last; yields its address and the requested paths."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers[min(len(requests), len(answers) - 1)]
            requests.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + (1 if status == 206 else 0)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/root/", requests
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.parametrize("path", ["sub/a.jsonl", "sub/b.jsonl"])
def test_from_an_address(tmp_path, path):
    with server((200, CONTENT)) as (address, requests):
        main(["--source", address, "--path", path, "--out", str(tmp_path / "new" / "x.jsonl")])
    assert (tmp_path / "new" / "x.jsonl").read_bytes() == CONTENT
    assert requests == [f"/root/{path}"]


def test_from_a_mirror(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").write_bytes(CONTENT)
    assert fetch(str(tmp_path), "sub/a.jsonl") == CONTENT
    with pytest.raises(ScoreError, match=r"sub/b\.jsonl: cannot be read \(No such file or directory\)"):
        fetch(str(tmp_path), "sub/b.jsonl")


@pytest.mark.parametrize(("path", "digest"), [("sub/a.jsonl", SHA256), ("sub/b.jsonl", GIT_BLOB)])
def test_one_wrong_byte_is_refused(tmp_path, path, digest):
    message = rf"{path}: not the published file: .*expected {digest} \(10 bytes"
    with server((200, CONTENT.replace(b"1", b"2"))) as (address, requests), pytest.raises(ScoreError, match=message):
        main(["--source", address, "--path", path, "--out", str(tmp_path / "x.jsonl")])
    assert not (tmp_path / "x.jsonl").exists()
    assert len(requests) == 1


def test_passing_trouble_is_retried():
    answers = [(503, b""), (429, b""), (206, b"cut short"), (200, CONTENT)]
    with server(*answers) as (address, requests):
        assert fetch(address, "sub/a.jsonl", pause_s=0.001) == CONTENT
    assert len(requests) == 4


def test_lasting_trouble_is_named():
    with server((500, b"")) as (address, requests):
        with pytest.raises(ScoreError, match=r"sub/a\.jsonl: HTTP 500; .*put the file into a folder"):
            fetch(address, "sub/a.jsonl", pause_s=0.001)
        assert len(requests) == module.RETRIES + 1
    with pytest.raises(ScoreError, match="ConnectError"):
        fetch(address, "sub/a.jsonl", pause_s=0.001)
    with server((404, b"")) as (address, requests):
        with pytest.raises(ScoreError, match="HTTP 404"):
            fetch(address, "sub/a.jsonl")
        assert len(requests) == 1


def test_unknown_path_names_the_nearest():
    with pytest.raises(ScoreError, match=r"'sub/aa\.jsonl' is not a published file; the nearest is 'sub/a\.jsonl'"):
        published_file("sub/aa.jsonl")


def test_the_shipped_table_knows_the_published_files(official, monkeypatch):
    monkeypatch.undo()
    with open(module.TABLE, newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    present = [path for path in paths if (official / path).is_file()]
    assert len(present) >= 20
    for path in present:
        assert fetch(str(official), path)
