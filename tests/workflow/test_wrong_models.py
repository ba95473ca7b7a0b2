"""A workflow whose models are not as the config says ends in one line before its first job; a dry run asks nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.test_served import listing, serving

ROOT = Path(__file__).parents[2]
EXPERIMENT = "wrong_models"


def snakemake(*words: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--profile", "demo", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )  # fmt: skip


@pytest.fixture
def results():
    folder = ROOT / "results" / EXPERIMENT
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_an_endpoint_that_serves_another_model(tmp_path, results):
    with serving(200, listing("lab/small")) as (url, asked):
        teacher = {"engine": "endpoint", "path": "lab/large", "url": url, "api_key_env": None}
        (tmp_path / "x.yaml").write_text(yaml.safe_dump({"experiment": EXPERIMENT, "models": {"oracle": teacher}}))
        words = ["--configfile", "configs/micro.yaml", tmp_path / "x.yaml", "--"]
        words += [results / "rollout/teacher/cold_start.jsonl"]
        words[-1] = words[-1].relative_to(ROOT)
        planned = snakemake("-n", *words)
        assert planned.returncode == 0, planned.stdout + planned.stderr
        assert asked == [], "a plan needs no network"
        done = snakemake(*words)
    assert done.returncode != 0
    message = f"error: models.oracle: {url} serves 'lab/small', not 'lab/large'; correct `path` of its entry"
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (results / "data").exists(), "no job has run"


def test_a_gated_model_without_a_token(tmp_path, results):
    words = ["--config", f"experiment={EXPERIMENT}", "--"]
    words += ["models/hub/meta-llama/Llama-3.1-8B-Instruct/0e9e39f249a16976918f6564b8830bc894c89659.json"]
    done = snakemake(*words, HF_TOKEN="", HF_HOME=str(tmp_path))
    assert done.returncode != 0
    page = "https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct"
    message = "error: models.llama3.1_8b: meta-llama/Llama-3.1-8B-Instruct is gated: "
    assert message + f"accept its licence at {page} and set HF_TOKEN" in done.stderr + done.stdout
    assert not (ROOT / words[-1]).exists()
