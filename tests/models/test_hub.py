"""Downloads from the hub, against a server in this process that speaks its protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.fake_hub import COMMIT, NAME, Hub
from score.errors import InfrastructureError, ScoreError
from score.models import folder, hub
from score.provenance import model_digest

ROOT = Path(__file__).parents[2]


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
    files = record(home).pop("files")
    told = {"name": NAME, "revision": "main", "commit": COMMIT, "folder": str(folder), "files": files}
    assert record(home) == told
    assert set(files) == {*os.listdir(folder)}
    weights = server.files["model.safetensors"]
    assert files["model.safetensors"] == {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    assert set(files["config.json"]) == {"size", "git-sha1"}
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
    others = [snapshot / name for name in server.files if name.endswith((".json", ".jinja", "LICENSE"))]
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
        ((401, "GatedRepo"), NAME, "main", "lab/tiny is gated: accept its licence at http://127.0.0.1:"),
        ((403, "GatedRepo"), NAME, "main", "lab/tiny is gated: accept its licence at http://127.0.0.1:"),
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
        (None, NAME, "v2", "lab/tiny: the hub has no revision 'v2' of it; correct `revision`"),
        (None, NAME, "f" * 40, f"lab/tiny: the hub has no revision {'f' * 40!r} of it; correct `revision`"),
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


def test_what_is_not_what_the_hub_says_is_fetched_again(server, home):
    server.spoils = 1
    done = fetch(server, home)
    assert done.returncode == 0, done.stderr
    assert "fetched again, as they are not what the hub says: model.safetensors" in done.stderr
    assert (Path(record(home)["folder"]) / "model.safetensors").read_bytes() == server.files["model.safetensors"]


def test_what_is_twice_not_what_the_hub_says_is_refused(server, home):
    server.spoils = 2
    done = fetch(server, home)
    assert done.returncode == 1
    assert "model.safetensors has the sha256 " in done.stderr.splitlines()[-1]
    assert "though fetched twice" in done.stderr.splitlines()[-1]
    assert not (home / "record.json").exists()


def test_a_folder_that_was_torn_or_changed_later_is_told_and_mended(server, home):
    assert fetch(server, home).returncode == 0
    weights = Path(record(home)["folder"]) / "model.safetensors"
    assert folder.Record.read(home / "record.json").changed(whole=True) == ""
    whole = weights.read_bytes()
    for content, why in ((whole[:-3], f"has {len(whole) - 3} bytes, not {len(whole)}"), (whole[:-1] + b"!", "sha256")):
        weights.resolve().write_bytes(content)
        with pytest.raises(ScoreError, match=f"{weights} has .*; remove {home / 'record.json'} and run snakemake"):
            hub.main(["--check", str(home / "record.json")])
        assert why in folder.Record.read(home / "record.json").changed(whole=True)
        assert fetch(server, home).returncode == 0
        assert weights.read_bytes() == whole
    (weights.parent / "config.json").unlink()
    assert "config.json is missing; remove" in folder.Record.read(home / "record.json").changed()


def test_a_model_that_the_cache_holds_is_taken_without_a_hub(server, home):
    assert fetch(server, home, NAME, COMMIT).returncode == 0
    files = record(home)["files"]
    for refusal in ((401, "GatedRepo"), (503, "")):
        server.refusal = refusal
        done = fetch(server, home, NAME, COMMIT)
        assert done.returncode == 0, done.stderr
        assert "the hub lists no checksums" in done.stderr
        assert record(home)["files"] == files, "as the cache calls them"


def test_files_in_a_store_that_caches_share_are_never_deleted(server, home):
    """The hub's library may link `snapshots/C/FILE` to `blobs/SHA256`, and that to a store of other names."""
    assert fetch(server, home, NAME, COMMIT).returncode == 0
    files, weights = record(home)["files"], Path(record(home)["folder"]) / "model.safetensors"
    blob, stored = weights.resolve(), home / "hub/blobs/ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)
    server.refusal = (401, "GatedRepo")
    done = fetch(server, home, NAME, COMMIT)
    assert done.returncode == 0, done.stderr
    assert record(home)["files"] == files
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    spoilt = stored.read_bytes()
    done = fetch(server, home, NAME, COMMIT)
    assert done.returncode == 1
    assert "has the sha256 " in done.stderr
    assert "the hub does not answer to send it again" in done.stderr
    assert stored.read_bytes() == spoilt, "nothing is removed that cannot be had again"
    server.refusal = None
    assert fetch(server, home, NAME, COMMIT).returncode == 0
    assert weights.read_bytes() == server.files["model.safetensors"]
    assert stored.read_bytes() == spoilt, "of other models, too, maybe"


def test_a_folder_of_ones_own_is_compared_with_the_hub(server, tmp_path):
    def compare() -> str:
        words = [sys.executable, "-m", "score.models.hub", "--name", NAME, "--revision", COMMIT, "--folder"]
        words += [str(tmp_path / "source")]
        done = subprocess.run(
            words, env=environment(server, tmp_path / "home"), capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stderr
        return done.stderr.strip()

    (tmp_path / "source/LICENSE").write_bytes(server.files["LICENSE"])
    assert compare() == ""
    (tmp_path / "source/config.json").write_text("{}")
    size = len(server.files["config.json"])
    assert f"source/config.json has 2 bytes, not {size} as in {NAME} at {COMMIT}; copy it there again" in compare()
    (tmp_path / "source/config.json").write_bytes(server.files["config.json"])
    (tmp_path / "source/model.safetensors").unlink()
    (tmp_path / "source/pytorch_model.bin").write_bytes(b"another")
    assert f"source/pytorch_model.bin has 7 bytes, not 6 as in {NAME}" in compare()
    del server.files["pytorch_model.bin"]
    assert f"source: {NAME} at {COMMIT} has no weights as *.bin to compare its own with" in compare()
    server.refusal = (403, "GatedRepo")
    assert f"error: {NAME} is gated: accept its licence at" in compare()


def test_a_record_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(
        ScoreError, match=r"record\.json: no record of a download; remove .*record\.json and run snakemake"
    ):
        folder.Record.read(tmp_path / "record.json").changed()


@pytest.mark.parametrize(
    ("name", "fetch_one"),
    [
        ("snapshot_download", lambda folder: hub.download(NAME)),
        ("hf_hub_download", lambda folder: hub._fetch_anew(NAME, folder, ["model.safetensors"])),
    ],
)
def test_a_lost_connection_of_the_transfer_library_is_one_line(name, fetch_one, tmp_path, monkeypatch):
    def lost(*_, **__):
        raise RuntimeError("Data processing error:\nCAS service error")

    monkeypatch.setattr(f"huggingface_hub.{name}", lost)
    with pytest.raises(
        InfrastructureError, match=r"^lab/tiny: the download failed \(Data processing error: CAS service"
    ):
        fetch_one(tmp_path / COMMIT)


def test_a_model_without_safetensors_is_refused(server, home):
    del server.files["model.safetensors"]
    done = fetch(server, home)
    assert done.returncode == 1
    assert "error: lab/tiny: no weights as safetensors among its files; make a folder of it" in done.stderr


def test_offline_mode_forbids_downloads_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ScoreError, match="HF_HUB_OFFLINE=1 forbids downloads"):
        hub.main(["--name", NAME, "--out", str(tmp_path / "record.json")])
