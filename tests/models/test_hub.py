"""Downloads from the hub, against a server in this process that speaks its protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from score.errors import ScoreError
from score.models import hub
from score.provenance import model_digest

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "lab/tiny"


class Hub(ThreadingHTTPServer):
    """One model of the hub. As often as `cuts` says, half of the weights are sent, and then the connection ends; while
    `hangs`, it only stands still."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.commit = files, COMMIT
        self.refusal: tuple[int, str] | None = None
        self.cuts = 0
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self) -> list[str]:
        """Names of the files that were asked for since the last call."""
        names = [path.rsplit("/", 1)[1] for method, path in self.asked if method == "GET" and "/resolve/" in path]
        self.asked.clear()
        return sorted(names)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append((self.command, path := self.path.partition("?")[0]))
        if self.server.refusal:
            status, code = self.server.refusal
            return self.answer(status, b"{}", {"X-Error-Code": code} if code else {})
        if path in (f"/api/models/{NAME}/revision/{revision}" for revision in ("main", "v1", self.server.commit)):
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.json({"id": NAME, "sha": self.server.commit, "siblings": siblings, "tags": []})
        if path.startswith(f"/api/models/{NAME}/revision/"):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path == f"/api/models/{NAME}/tree/{self.server.commit}":
            sizes = {name: len(content) for name, content in self.server.files.items()}
            rows = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]
            return self.json(rows)
        name = path.removeprefix(f"/{NAME}/resolve/{self.server.commit}/")
        if name in self.server.files:
            return self.file(name, self.server.files[name])
        return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def file(self, name: str, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.server.commit}
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cut = name.endswith(".safetensors") and self.command == "GET" and self.server.cuts > 0
        self.server.cuts -= cut
        self.answer(206 if first else 200, content[first:], headers | {"Accept-Ranges": "bytes"}, cut=cut)

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
        if cut:
            self.server.goes_on.wait(60)
            self.close_connection = True

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(random_student, tmp_path) -> Iterator[Hub]:
    """The hub, with a tiny model of random weights, once more in another format."""
    model, codec = random_student
    model.save_pretrained(tmp_path / "source")
    codec.tokenizer.save_pretrained(tmp_path / "source")
    files = {path.name: path.read_bytes() for path in (tmp_path / "source").iterdir()}
    with Hub(files | {"pytorch_model.bin": b"pickle", "README.md": b"# Tiny", "LICENSE": b"MIT"}) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.goes_on.set()
        server.shutdown()


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def environment(server: Hub, home: Path, **more: str) -> dict[str, str]:
    ours = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT / "src")}
    return os.environ | ours | more


def command(out: Path, name: str = NAME, revision: str = "main") -> list[str]:
    return [sys.executable, "-m", "score.models.hub", "--name", name, "--revision", revision, "--out", str(out)]


def fetch(server: Hub, home: Path, *args: str, **more: str) -> subprocess.CompletedProcess:
    options = {"env": environment(server, home, **more), "capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(command(home / "record.json", *args), **options)


def record(home: Path) -> dict[str, str]:
    return json.loads((home / "record.json").read_text())


def test_a_download_is_recorded_with_its_commit_and_loads_offline(server, home, monkeypatch):
    done = fetch(server, home)
    assert done.returncode == 0, done.stderr
    folder = home / f"hub/models--lab--tiny/snapshots/{COMMIT}"
    assert record(home) == {"name": NAME, "revision": "main", "commit": COMMIT, "folder": str(folder)}
    assert (folder / "model.safetensors").read_bytes() == server.files["model.safetensors"]
    assert {"config.json", "LICENSE"} <= set(os.listdir(folder))
    assert "pytorch_model.bin" not in os.listdir(folder), "the same weights once more"

    monkeypatch.setenv("HF_HOME", str(home))
    assert model_digest(NAME) == model_digest(NAME, "main") == f"{NAME}@{COMMIT}"
    load = (
        f"from score.engine.transformers import load_model; print(load_model({NAME!r}, 'float32')[0].num_parameters())"
    )
    server.asked.clear()
    offline = environment(server, home, HF_HUB_OFFLINE="1")
    loaded = subprocess.run([sys.executable, "-c", load], env=offline, capture_output=True, text=True, timeout=120)
    assert int(loaded.stdout) > 0, loaded.stderr
    assert server.asked == []


def test_what_is_there_is_not_fetched_again_and_a_new_commit_is(server, home, monkeypatch):
    assert fetch(server, home).returncode == 0
    assert "model.safetensors" in server.downloads()
    assert fetch(server, home).returncode == 0
    assert server.downloads() == []
    server.commit = COMMIT[::-1]
    server.files["generation_config.json"] = b"{}"
    assert fetch(server, home).returncode == 0
    assert record(home)["commit"] == COMMIT[::-1]
    monkeypatch.setenv("HF_HOME", str(home))
    assert model_digest(NAME) == f"{NAME}@{COMMIT[::-1]}"


def test_other_revisions_are_digested_as_what_they_mean(server, home, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(home))
    for revision in ("v1", COMMIT):
        assert fetch(server, home, NAME, revision).returncode == 0
        assert (record(home)["revision"], record(home)["commit"]) == (revision, COMMIT)
        assert model_digest(NAME, revision) == f"{NAME}@{COMMIT}"


def test_a_connection_that_is_lost_is_made_again(server, home):
    server.cuts = 2
    done = fetch(server, home)
    assert done.returncode == 0, done.stderr
    assert (Path(record(home)["folder"]) / "model.safetensors").read_bytes() == server.files["model.safetensors"]
    assert server.downloads().count("model.safetensors") == 3


def test_a_killed_download_leaves_no_half_model_and_the_next_one_completes_it(server, home):
    server.cuts = 1
    server.goes_on.clear()
    snapshot = home / f"hub/models--lab--tiny/snapshots/{COMMIT}"
    others = [snapshot / name for name in server.files if name.endswith(".json")]
    first = subprocess.Popen(command(home / "record.json"), env=environment(server, home), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (server.cuts == 0 and all(path.exists() for path in others)) and time.monotonic() < deadline:
        time.sleep(0.1)
    first.kill()
    first.wait(timeout=10)
    assert not (home / "record.json").exists()
    assert not (snapshot / "model.safetensors").exists()
    server.downloads()
    assert fetch(server, home).returncode == 0
    assert server.downloads() == ["model.safetensors"], "the files that were complete are kept"
    assert (snapshot / "model.safetensors").read_bytes() == server.files["model.safetensors"]


@pytest.mark.parametrize(
    ("refusal", "name", "revision", "message"),
    [
        ((401, "GatedRepo"), NAME, "main", "lab/tiny: a gated model; accept its terms on its page and set HF_TOKEN"),
        ((403, "GatedRepo"), NAME, "main", "lab/tiny: a gated model; accept its terms on its page and set HF_TOKEN"),
        (
            (401, ""),
            NAME,
            "main",
            "lab/tiny: the hub has no such model, or it is private and HF_TOKEN is not set or not valid",
        ),
        (
            None,
            "lab/tyni",
            "main",
            "lab/tyni: the hub has no such model, or it is private and HF_TOKEN is not set or not valid",
        ),
        (None, NAME, "v2", "lab/tiny: the hub has no revision 'v2' of it"),
        ((503, ""), NAME, "main", "lab/tiny: the hub did not answer ("),
        (None, "lab/tiny/more", "main", "lab/tiny/more: no name of a model on the hub; they are ORG/NAME"),
    ],
)
def test_a_refusal_is_one_line(server, home, refusal, name, revision, message):
    server.refusal = refusal
    done = fetch(server, home, name, revision)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in done.stderr
    assert not (home / "record.json").exists()


@pytest.mark.parametrize("how", ["never there", "always lost"])
def test_a_hub_that_cannot_be_reached_is_one_line(server, home, how):
    server.cuts = 100
    done = fetch(server, home, HF_ENDPOINT="http://127.0.0.1:9" if how == "never there" else server.url)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: lab/tiny: the hub did not answer (")
    assert "Traceback" not in done.stderr


def test_a_model_without_safetensors_is_refused(server, home):
    del server.files["model.safetensors"]
    done = fetch(server, home)
    assert done.returncode == 1
    assert "error: lab/tiny: no weights as safetensors among its files" in done.stderr


def test_offline_mode_forbids_downloads_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ScoreError, match="HF_HUB_OFFLINE=1 forbids downloads"):
        hub.main(["--name", NAME, "--out", str(tmp_path / "record.json")])
