"""Models as the doctor and the start of a workflow see them: here, missing, torn, gated, another one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from cluster.fake_slurm import config_of, says
from score.cluster import jobs, places, ready
from score.cluster.finding import Finding
from score.config.schema import Model
from score.errors import ScoreError
from score.models import made
from score.models.folder import commit_of, fault, weights

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def write_weights(folder: Path, name: str = "model.safetensors", cut: int = 0) -> None:
    """A safetensors file of one byte."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    content = struct.pack("<Q", len(header)) + header + b"w"
    (folder / name).write_bytes(content[: len(content) - cut])


def whole(folder: Path, shards: int = 1) -> Path:
    """A folder with all that a model needs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    for name in names if shards > 1 else ["model.safetensors"]:
        write_weights(folder, name)
    if shards > 1:
        index = {"weight_map": {f"layer{n}": name for n, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no rule has made any model yet

    def look(path: str, engine: str = "vllm") -> Finding:
        return places.model("m", Model(engine=engine, path=path), tmp_path / "hub")

    folder = tmp_path / "model"
    says(look(str(folder)), False, "no such folder", "correct its path")
    folder.mkdir()
    says(look(str(folder)), False, "holds no weights")
    write_weights(folder)
    says(look(str(folder)), False, "config.json: cannot be read (No such file or directory)")
    (folder / "config.json").write_text("{}")
    says(look(str(folder)), False, "holds no tokenizer")
    whole(folder)
    says(look(str(folder)), True, "0.0 GB of weights")
    says(look("$MODELS/7b"), False, "write the folder out")
    says(look("micro", "transformers"), True, "shipped")
    says(look("models/smollm2-135m-instruct", "transformers"), True, "a rule will make it")
    says(look("org/name-7B"), True, "rule hub_model will download it")
    says(look("models/qwen7b"), False, "models/qwen7b: no such folder")  # no rule makes that one
    kept = tmp_path / "hub/hub/models--org--name-7B"
    snapshot = whole(kept / "snapshots/abc")
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("abc")
    says(look("org/name-7B"), True, f"in {tmp_path / 'hub'}")
    assert (
        places.size(Model(engine="vllm", path="org/name-7B"), tmp_path / "hub")
        == (snapshot / "model.safetensors").stat().st_size
    )


def test_the_adapters_that_a_server_loads(tmp_path):
    base, tuned, home = tmp_path / "base", tmp_path / "tuned", tmp_path / "hub"
    base.mkdir()
    whole(base)

    def look(adapter: str) -> Finding:
        adapters = {"mine": adapter}
        return places.model("m", Model(engine="vllm", path=str(base), adapters=adapters, adapter="mine"), home)

    says(look(str(tuned)), False, f"adapter mine: {tuned}: no such folder", "models.m.adapters.mine")
    tuned.mkdir()
    (tuned / "adapter_config.json").write_text("{}")
    says(look(str(tuned)), False, "holds no weights")
    (tuned / "adapter_model.safetensors").mkdir()
    says(look(str(tuned)), False, "adapter_model.safetensors: cannot be read (Is a directory)")
    (tuned / "adapter_model.safetensors").rmdir()
    write_weights(tuned, "adapter_model.safetensors")
    says(look(str(tuned)), True, "0.0 GB of weights", "adapters: mine")
    says(look("$ADAPTERS/mine"), False, "write the folder out")
    says(look("lab/mine"), False, f"not in {home}", "download")
    snapshot = home / "hub" / "models--lab--mine" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "adapter_model.safetensors").write_bytes(b"weights")
    says(look("lab/mine"), True)
    fetched = Model(engine="vllm", path="lab/base", adapters={"mine": "/gone"}, adapter="mine")
    says(places.to_fetch("m", fetched, home), False, "adapter mine: /gone: no such folder")
    missing = Model(engine="vllm", path=str(tmp_path / "gone"), adapters={"mine": str(tuned)})
    says(places.model("m", missing, home), False, "gone: no such folder")


def test_weights_that_cannot_be_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").mkdir()
    found = places.model("m", Model(engine="vllm", path=str(tmp_path)), tmp_path)
    says(found, False, "model.safetensors: cannot be read (Is a directory)", "mend its rights")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda m: (m / "model-00002-of-00003.safetensors").unlink(), "lacks model-00002-of-00003.safetensors; copy"),
        (lambda m: [f.unlink() for f in m.glob("*-0000[13]-*")], "lacks model-00001-of-00003.safetensors and 1 more"),
        (lambda m: (m / "model.safetensors.index.json").unlink(), "lacks model.safetensors.index.json"),
        (lambda m: (m / "model.safetensors.index.json").write_text("{"), "index.json that can be read"),
        (lambda m: write_weights(m, "model-00003-of-00003.safetensors", cut=1), "00003-of-00003.safetensors is torn"),
        (lambda m: (m / "model-00001-of-00003.safetensors").write_bytes(b""), "00001-of-00003.safetensors is torn"),
        (lambda m: (m / "tokenizer.json").unlink(), "holds no tokenizer (tokenizer.json, *.model"),
        (lambda m: (m / "config.json").unlink(), "config.json: cannot be read (No such file or directory)"),
        (lambda m: (m / "config.json").write_text(""), "config.json is torn; copy"),
        (lambda m: [f.unlink() for f in m.glob("*.safetensors")], "holds no weights"),
        (
            lambda m: [*[f.unlink() for f in m.glob("*.safetensors")], (m / "x.bin").write_text("x")],
            "lacks model-00001",
        ),
        (lambda m: (m / "x.bin").write_text("version https://git-lfs.github.com/spec/v1"), "x.bin: a pointer of git"),
        (lambda m: relink(m / "model-00002-of-00003.safetensors"), "lacks model-00002-of-00003.safetensors; copy"),
    ],
)
def test_a_folder_that_is_not_whole(tmp_path, spoil, why):
    folder = whole(tmp_path / "model", shards=3)
    assert fault(folder) == ""
    spoil(folder)
    assert why in fault(folder)
    says(places.model("m", Model(engine="vllm", path=str(folder)), tmp_path / "hub"), False, why.split(";")[0])


def relink(file: Path) -> None:
    """A link to nowhere, as a purged cache leaves them."""
    file.unlink()
    file.symlink_to("purged")


def test_files_beside_the_weights_are_none(tmp_path):
    folder = whole(tmp_path / "model")
    (folder / "training_args.bin").write_bytes(b"pickle")
    assert [file.name for file in weights(folder)] == ["model.safetensors"]
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in fault(folder)


def test_a_folder_of_another_revision(tmp_path):
    old, new = "a" * 40, "b" * 40
    snapshot = whole(tmp_path / "snapshots" / old)
    copied = whole(tmp_path / "copied")
    (copied / ".cache/huggingface/download").mkdir(parents=True)
    (copied / ".cache/huggingface/download/config.json.metadata").write_text(f"{old}\netag\n1.0\n")
    for folder in (snapshot, copied):
        assert commit_of(folder) == old
        entry = Model(engine="vllm", path=str(folder), revision=new)
        says(places.model("m", entry, tmp_path), False, f"it is commit {old}, not the config's revision {new}; copy")
        assert places.model("m", entry.model_copy(update={"revision": old}), tmp_path).ok
        tagged = places.model("m", entry.model_copy(update={"revision": "v1"}), tmp_path)
        says(tagged, None, "it does not tell whether it is v1")
    (tmp_path / "linked").symlink_to(snapshot)
    says(
        places.model("m", entry.model_copy(update={"path": str(tmp_path / "linked")}), tmp_path), False, f"commit {old}"
    )
    unknown = entry.model_copy(update={"path": str(whole(tmp_path / "cloned"))})
    says(places.model("m", unknown, tmp_path), None, f"it does not tell whether it is {new}")


def test_a_gated_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    entry = Model(engine="vllm", path=LLAMA, revision="c" * 40, gated=True, licence="Llama 3.1 Community")
    refused = f"{LLAMA} is gated: accept its licence at https://huggingface.co/{LLAMA} and set HF_TOKEN"
    says(places.model("m", entry, tmp_path), False, refused)
    monkeypatch.setenv("HF_TOKEN", "secret")
    told = places.model("m", entry, tmp_path)
    says(told, True, "rule hub_model will download it", "(licence: Llama 3.1 Community)")
    assert "secret" not in told.line()
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text("stored by hf auth login")
    says(places.model("m", entry, tmp_path), True, "rule hub_model will download it")
    (tmp_path / "token").unlink()
    whole(tmp_path / f"hub/models--{LLAMA.replace('/', '--')}/snapshots" / ("d" * 40))
    says(places.model("m", entry, tmp_path), False, "is gated")  # another revision is in the cache
    whole(tmp_path / f"hub/models--{LLAMA.replace('/', '--')}/snapshots" / ("c" * 40))
    says(places.model("m", entry, tmp_path), True, "rule hub_model will check it")


def test_a_download_that_was_changed_since(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = Model(engine="vllm", path="lab/tiny", revision="c" * 40)
    snapshot = whole(tmp_path / "hub/models--lab--tiny/snapshots" / ("c" * 40))
    record = Path(made(entry))
    record.parent.mkdir(parents=True)
    size = (snapshot / "model.safetensors").stat().st_size
    record.write_text(
        json.dumps({"folder": str(snapshot), "files": {"model.safetensors": {"size": size + 1, "sha256": ""}}})
    )
    says(
        places.model("m", entry, tmp_path),
        False,
        f"has {size} bytes, not {size + 1}; remove {record} and run snakemake for that file alone",
    )
    record.write_text(json.dumps({"folder": str(snapshot)}))
    says(places.model("m", entry, tmp_path), True, f"in {tmp_path}")
    record.write_text(json.dumps({"folder": f"{tmp_path}/elsewhere/snapshots/{'b' * 40}"}))
    says(places.model("m", entry, tmp_path), False, f"is of commit {'b' * 40}, and {tmp_path} has {'c' * 40} now")


def test_a_branch_that_has_moved_since(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = Model(engine="vllm", path="lab/tiny")
    kept = tmp_path / "hub/models--lab--tiny"
    (kept / "refs").mkdir(parents=True)
    record = Path(made(entry))
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"folder": str(whole(kept / "snapshots" / ("a" * 40)))}))
    says(places.model("m", entry, tmp_path), False, "it is not in")  # jobs would look for main
    (kept / "refs/main").write_text("a" * 40)
    says(places.model("m", entry, tmp_path), True)
    whole(kept / "snapshots" / ("b" * 40))
    (kept / "refs/main").write_text("b" * 40)
    says(places.model("m", entry, tmp_path), False, f"is of commit {'a' * 40}, and {tmp_path} has {'b' * 40} now")


def test_what_the_jobs_of_a_rule_load():
    config = config_of()

    def loaded(rule: str, agent: str | None = None) -> list[str]:
        return jobs.loaded(config, rule, agent)

    assert loaded("evaluate", "qwen7b") == loaded("sft", "qwen7b_bc20") == ["qwen2.5_7b"]
    assert loaded("evaluate", "qwen7b_bc20") == loaded("sft", "qwen7b_score_sft") == [], "they load what was trained"
    assert loaded("correct", "qwen7b_bc20") == ["qwen2.5_72b"]
    assert loaded("grpo", "qwen7b_score_rl") == ["qwen2.5_7b"], "its judge"
    assert loaded("judge") == loaded("rollout", "teacher") == ["qwen2.5_72b"]
    assert loaded("score", "qwen7b") == []


def test_only_the_models_of_coming_jobs_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    config = config_of({"models": {"qwen2.5_7b": {"path": str(tmp_path / "gone")}}})

    def check(*coming: ready.Job) -> None:
        ready.check(config, coming, tmp_path, away=False)

    check()
    check(ready.Job("score", {"agent": "qwen7b"}), ready.Job("evaluate", {"agent": "qwen7b_bc20"}))
    with pytest.raises(ScoreError, match=r"models\.qwen2.5_7b: .*/gone: no such folder; correct its path"):
        check(ready.Job("evaluate", {"agent": "qwen7b"}))
    record = made(config.models["llama3.1_8b"])
    with pytest.raises(ScoreError, match=rf"models\.llama3.1_8b: {LLAMA} is gated: accept"):
        check(ready.Job("hub_model", {"org": "meta-llama"}, (record,)))
    record = made(config.models["qwen3_8b"])
    check(ready.Job("hub_model", {"org": "Qwen"}, (record,)), ready.Job("evaluate", {"agent": "qwen3_8b"}))


def test_a_teacher_behind_an_api_needs_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "secret")
    api = {"engine": "endpoint", "path": None, "revision": None, "url": "https://api.example/v1"}
    config = config_of({"models": {"qwen2.5_72b": api | {"api_key_env": "TEACHER_KEY"}}})
    assert made(config.models["qwen2.5_72b"]) is None
    ready.check(config, [ready.Job("rollout", {"agent": "teacher"})], tmp_path, away=True)
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(
        ScoreError, match=r"models\.qwen2.5_72b: endpoint https\S+ needs an API key in the .* TEACHER_KEY"
    ):
        ready.check(config, [ready.Job("rollout", {"agent": "teacher"})], tmp_path, away=True)
