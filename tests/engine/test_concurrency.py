"""How many requests are in flight changes no result: the oracle as agent, over HTTP, in the real sandbox."""

import dataclasses
import threading
from pathlib import Path

import pytest
import yaml

from score import search
from score.attempts import Acting, Attempt, work_rows
from score.config import load
from score.config.load import merge
from score.engine import openai
from score.micro.oracle import Oracle
from score.micro.server import Server
from score.micro.tasks import make_tasks
from score.micro.world import make_world
from score.records import StopReason
from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool, own_python
from score.usage import Usage

ROOT = Path(__file__).parents[2]
CONFIG = load(
    merge(yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text()))
)


@pytest.fixture(scope="module")
def oracle():
    with Server(("127.0.0.1", 0), Oracle(make_world(), 0.4, 0)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def pool():
    with ZygotePool(Limits(), python=own_python()) as pool:
        yield pool


def test_any_concurrency_gives_the_same_trajectories_and_counts(tmp_path, monkeypatch, oracle, pool):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    backend = search.open_search(CONFIG.search, "test")
    tasks = [task for name in ("math3", "hop3", "deep21") for task in make_tasks(name, "test", 8)]
    results = []
    for concurrency in (1, 4, 32):
        entry = CONFIG.models["oracle"].model_copy(update={"engine": "endpoint", "url": oracle, "batch": concurrency})
        folder = tmp_path / str(concurrency)
        with work_rows(folder, "attempts") as rows, Usage(folder, "attempts") as usage:
            acting = Acting(
                CONFIG, "teacher", 0, "digest", openai.connect(entry, "oracle"), pool,
                {"web_search": search.tool(backend, 1)},
            ).counted(usage)  # fmt: skip
            done = acting.run([Attempt(task) for task in tasks], CONFIG.sampling.step, rows, "test")
            results.append(([untimed(trajectory) for trajectory in done], usage.facts()["usage"]))
    assert {trajectory.stop for trajectory in results[0][0]} == {StopReason.ANSWERED}
    assert results[0][1]["teacher"]["requests"] > 3 * len(tasks)
    assert results[1] == results[0]
    assert results[2] == results[0]


def untimed(trajectory):
    return dataclasses.replace(
        trajectory, steps=tuple(dataclasses.replace(step, seconds=0) for step in trajectory.steps)
    )
