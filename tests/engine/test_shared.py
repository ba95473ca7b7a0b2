"""`score serve`: a model's server as a job of its own, with a fake vLLM; the overlay, the key, the port, the end."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fake_vllm
import pytest
import yaml
from answering import REQUEST
from servers import gone

from fakes import mapping
from score import fingerprint
from score.config import load
from score.config.load import merge
from score.engine import gpus, open_engine, shared, vllm
from score.errors import ScoreError

TEACHER = {
    "engine": "vllm", "path": "org/teacher", "gpus": 2, "batch": 4, "start_s": 60.0, "api_key_env": "TEACHER_KEY",
    "price": {"prompt": 1.0, "completion": 2.0},
}  # fmt: skip


def config(**more) -> dict:
    raw = mapping(models={"teacher": TEACHER | more}, roles={"teacher": "teacher"})
    raw["agents"][0]["model"] = "teacher"  # who demonstrates
    return raw


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """Starts `score serve --model teacher` in a folder with config.yaml; fake GPUs, and whatever vLLM is installed."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config()))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    monkeypatch.setenv("VLLM_API_KEY", "of another server")
    started = []

    def start(*words: str, behaviour: tuple[str, ...] = (), model: str = "teacher", **variables) -> subprocess.Popen:
        program = fake_vllm.install(tmp_path, *behaviour)
        line = [sys.executable, "-m", "score", "serve", "--config", "config.yaml", "--model", model, "--log", "log"]
        process = subprocess.Popen(
            [*line, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, vllm.PYTHON_VARIABLE: program, **variables},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def appeared(file: Path, process: subprocess.Popen) -> dict:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return yaml.safe_load(file.read_text())


def refusal(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (process.returncode, out, len(lines)) == (1, "", 1), err
    assert "Traceback" not in err
    return lines[0]


async def _say(model, log: Path) -> str:
    with open_engine(model, log) as engine:
        async with engine:
            return await engine.complete(REQUEST)


@pytest.mark.parametrize("key", [None, "secret"])
def test_a_run_that_takes_the_overlay_is_answered(serving, tmp_path, key, monkeypatch):
    variables = {"TEACHER_KEY": key} if key else {}
    process = serving("--overlay", "there/teacher.yaml", **variables)
    raw = appeared(tmp_path / "there/teacher.yaml", process)
    entry = raw["models"]["teacher"]
    assert entry["api_key_env"] == ("TEACHER_KEY" if key else None)
    same = {"path": "org/teacher", "batch": 4, "price": TEACHER["price"]}
    assert {name: entry[name] for name in same} == same
    assert {"engine": "endpoint", "token_ids": True, "gpus": 0}.items() <= entry.items()
    given = fake_vllm.said(tmp_path / "log")
    assert given["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert given["VLLM_API_KEY"] == (key or "")
    assert "secret" not in " ".join(given["words"]) + (tmp_path / "there/teacher.yaml").read_text()
    assert "--generation-config vllm" in " ".join(given["words"])

    monkeypatch.setenv("TEACHER_KEY", key or "")
    model = load(merge(yaml.safe_load((tmp_path / "config.yaml").read_text()), raw)).models["teacher"]
    completion = asyncio.run(_say(model, tmp_path / "unused"))
    assert completion.text == "org/teacher says: hello"
    assert completion.token_ids == (7, 8)

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert yaml.safe_load(out) == raw
    assert (process.returncode, "Traceback" in err) == (143, False)
    assert "gpus: GPUs: teacher CUDA_VISIBLE_DEVICES=GPU-a,GPU-b; left: GPU-c\n" in err
    assert gone(given["group"])
    assert (tmp_path / "there/teacher.yaml").exists(), "jobs of a workflow that took it read it again"


def test_the_overlay_is_there_when_the_server_is_ready_and_no_sooner(serving, tmp_path):
    file = tmp_path / "teacher.yaml"
    file.write_text("# Written by `score serve` for an earlier server\n")
    process = serving("--overlay", "teacher.yaml", behaviour=("slow",))
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not file.exists()
    appeared(file, process)
    assert list(tmp_path.glob(".*.tmp")) == []


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_it_nothing_of_the_server_stays(serving, tmp_path, sign):
    process = serving("--overlay", "teacher.yaml", behaviour=("forks",))
    appeared(tmp_path / "teacher.yaml", process)
    process.send_signal(sign)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in err
    assert gone(fake_vllm.said(tmp_path / "log")["group"], within_s=30)


def test_a_server_that_dies_ends_the_job_with_its_last_lines(serving, tmp_path):
    process = serving("--overlay", "teacher.yaml")
    appeared(tmp_path / "teacher.yaml", process)
    os.killpg(fake_vllm.said(tmp_path / "log")["group"], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: the server ended with code -9; last lines of log: ")


def test_a_port_in_use_is_told_before_anything_is_loaded(serving, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        message = f"error: --host 127.0.0.1 --port {port}: Address already in use; choose another port, or leave it out"
        assert refusal(serving("--port", port)) == message
    assert not (tmp_path / "log").exists()


def test_a_port_of_ones_choice(serving, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = serving("--port", str(port), "--overlay", "teacher.yaml")
    assert appeared(tmp_path / "teacher.yaml", process)["models"]["teacher"]["url"] == f"http://127.0.0.1:{port}/v1"


def test_beyond_the_loopback_it_wants_a_key(serving, tmp_path):
    why = "error: --host 0.0.0.0: others can reach it, so set a key in the environment variable TEACHER_KEY"
    assert refusal(serving("--host", "0.0.0.0")) == why
    process = serving("--host", "0.0.0.0", "--overlay", "teacher.yaml", TEACHER_KEY="secret")
    url = appeared(tmp_path / "teacher.yaml", process)["models"]["teacher"]["url"]
    assert url.startswith(f"http://{socket.gethostname()}:")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--model", "techer"), "unknown model 'techer'; did you mean 'teacher'?"),
        (("--model", "qwen2.5_7b"), "agent 'qwen7b_bc' is trained from 'qwen2.5_7b', and an endpoint serves no"),
        (("--overlay", "config.yaml"), "--overlay config.yaml: `score serve` has not written it and leaves it alone"),
        (
            ("--host", "a.name"),
            "--host a.name: others can reach it, so set a key in the environment variable TEACHER_K",
        ),
        (("--port", "99999"), "--host 127.0.0.1 --port 99999: "),
        (("--port", "0"), "2 GPUs are wanted, 1 are there; lower `gpus` in the config or ask for more"),
    ],
)
def test_what_cannot_be_served_is_one_line(words, why, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    few = gpus.Gpus(["7"] if words == ("--port", "0") else ["6", "7"])
    monkeypatch.setattr(gpus, "of_this_job", lambda: few)
    with pytest.raises(ScoreError) as refused:
        shared.main(["--config", "config.yaml", "--model", "teacher", *words])
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_a_server_that_took_the_port_in_the_meantime_is_not_taken_for_ours(tmp_path, monkeypatch):
    monkeypatch.setenv(vllm.PYTHON_VARIABLE, fake_vllm.install(tmp_path))
    model = load(config()).models["teacher"].model_copy(update={"gpus": 0})
    ours = vllm.shared_command
    monkeypatch.setattr(vllm, "shared_command", lambda *words: ours(*words[:-1], "another's mark"))
    with (
        pytest.raises(Exception, match=r"is another server's port, which serves org/teacher, another's mark"),
        shared.shared(model, "127.0.0.1", 0, None, tmp_path / "log"),
    ):
        pass


def test_what_a_finished_stage_is_made_with_does_not_depend_on_where_the_endpoint_is():
    """An entry that becomes an endpoint is another one; where the endpoint is does not matter, nor its key."""
    base = config()

    def correct(url: str | None, key: str | None = None) -> str:
        text = url and shared.overlay("teacher", load(base).models["teacher"], url, key)
        return fingerprint.stage(load(merge(base, yaml.safe_load(text) if text else {})), "correct", "qwen7b_bc20")

    assert correct("http://node1:8000") == correct("http://node2:9000", "secret")
    assert correct("http://node1:8000") != correct(None)


@pytest.mark.parametrize(
    ("kind", "path", "is_open"),
    [
        ("http", "/v1/chat/completions", True), ("http", "/health", True), ("lifespan", None, True),
        ("http", "/invocations", False), ("http", "/tokenize", False), ("http", "/v1", False),
        ("http", "//v1/models", False), ("websocket", "/realtime", False),
    ],
)  # fmt: skip
def test_what_vllm_asks_no_key_for_is_not_there(kind, path, is_open):
    spec = importlib.util.spec_from_file_location("score_guard", vllm._GUARD / "score_guard.py")
    spec.loader.exec_module(guard := importlib.util.module_from_spec(spec))
    let_through, sent = [], []

    async def app(scope, receive, send):
        let_through.append(scope)

    async def send(message):
        sent.append(message)

    asyncio.run(guard.Guard(app)({"type": kind, "path": path} if path else {"type": kind}, None, send))
    assert bool(let_through) == is_open
    assert is_open == (sent == [])
    if not is_open:
        assert sent[0].get("status") == 404 or sent[0]["type"] == "websocket.close"


def test_it_outlives_the_shell_that_started_it_and_ends_with_the_process_it_is_told(serving, tmp_path):
    """A login shell that ends, unlike a workflow, ends no server."""
    other = subprocess.Popen(["sleep", "300"])
    program = fake_vllm.install(tmp_path)
    words = [sys.executable, "-m", "score", "serve", "--config", "config.yaml", "--model", "teacher", "--log", "log"]
    words += ["--overlay", "teacher.yaml", "--while", str(other.pid)]
    shell = subprocess.run(
        ["bash", "-c", '"$@" >said 2>&1 & echo $!', "bash", *words], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, vllm.PYTHON_VARIABLE: program}, check=True,
    )  # fmt: skip
    server = int(shell.stdout)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "teacher.yaml").exists():
            assert time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.05)
        time.sleep(3)  # longer than it takes to look for a workflow
        assert "is gone" not in (tmp_path / "said").read_text()
        assert not gone(fake_vllm.said(tmp_path / "log")["group"], within_s=0)
        other.kill()
        other.wait()
        assert gone(fake_vllm.said(tmp_path / "log")["group"], within_s=30)
        assert f"error: process {other.pid} is gone; ending" in (tmp_path / "said").read_text()
    finally:
        other.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGTERM)


def test_an_adapter_that_answers_goes_by_the_entrys_path():
    model = load(config(adapters={"a": "/l/a", "b": "/l/b"}, adapter="b")).models["teacher"]
    words = " ".join(vllm.shared_command(model, "org/teacher", "0.0.0.0", "8000", "mark"))
    assert "--host 0.0.0.0 --port 8000 --middleware score_guard.Guard " in words
    assert "--model org/teacher --served-model-name below mark " in words
    assert "--lora-modules a=/l/a org/teacher=/l/b" in words
    with pytest.raises(ScoreError, match="only a vllm entry is served"):
        shared.entry_of(load(config(engine="endpoint", url="http://x/v1")), "teacher")
