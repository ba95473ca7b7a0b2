"""Two processes on this machine's CPU, over gloo, against one: the same loss curve, the same groups, the same rewards.

In RL an episode's random stream follows from its place in the update, so two processes sample what one does, but for
rounding: a batch of another size may compute a last digit otherwise. So the policies of longer runs part, and only the
distribution of their rewards is compared.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from math import sqrt
from pathlib import Path

import pytest
import yaml
from test_sft import trajectory
from toy_rl import PREFIX, key_step, micro_config

from score.attempts import open_tools
from score.config.load import merge
from score.jsonl import write_rows
from score.records import Step
from score.train.launch import Layout, command

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SFT = {"epochs": 3, "batch": 4, "micro_batch": 2, "save_every": 3, "lr": 1e-3}
RL = {
    "lr": 1e-12, "updates": 3, "batch": 16, "micro_batch": 4, "generations": 8, "save_every": 2, "eval_every": 2,
    "beta": 0.0, "max_prompt": 200, "max_completion": 200, "scale_rewards": "group",
}  # fmt: skip
"""At this rate the policy stays what it is, so that all rollouts are samples of one distribution."""
SETTINGS = {"bc20": ("sft", "cold_start"), "score_rl": ("grpo", "score_rl"), "dpo": ("dpo", "key_step_pairs")}
"""Agent -> its stage, and the name of its settings."""
PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A results folder with what SFT and RL start from."""
    folder = tmp_path_factory.mktemp("several")
    base = ROOT / "src/score/micro/weights"
    shutil.copytree(base, folder / "train/score_sft-s0/model")
    write_rows(
        folder / "sft.jsonl", [trajectory(n).to_json() for n in ("Ba", "Bo", "Be", "Bi", "Bu", "Da", "Do", "De")]
    )
    with open_tools(micro_config(), "train") as tools:
        found = tools["web_search"]("Ba")
    search = Step("Look", "x = 4\nprint(web_search('Ba'))", found.strip())
    stale = Step("Find Ba", "x = 4\nprint(x)", "17")
    steps = [key_step("Ba"), key_step("Bo"), key_step("Be"), key_step("Bi")]
    prefixes = [PREFIX, (search,), PREFIX, (stale,)]
    pairs = zip(steps, prefixes, strict=True)
    write_rows(folder / "rl.jsonl", [{**k.to_json(), "prefix": [s.to_json() for s in p]} for k, p in pairs])
    return folder


def train(root, name, agent, rows, settings, **more):
    """Runs `score.train.launch` and returns the output folder."""
    kind, entry = SETTINGS[agent]
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    raw = merge(raw, yaml.safe_load((ROOT / "configs/micro.yaml").read_text()))
    raw = merge(raw, {"training": {kind: {entry: settings}}, **more})
    out = root / name
    (root / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    words = ["--config", root / f"{name}.yaml", "--agent", agent, "--root", root, "--work", root / "work" / name]
    words += ["--data", root / rows, "--out", out]
    words = [sys.executable, "-m", "score.train.launch", *map(str, words)]
    if settings.get("sharding") == "fsdp2":  # which needs GPUs, or what spread.py does
        words = program("spread.py", Layout(2, sharding="fsdp2"), [kind, *words[3:]])
    done = subprocess.run(words, capture_output=True, text=True, timeout=1700, env=os.environ | PATHS)
    (root / f"{name}.log").write_text(done.stdout + done.stderr)
    return out, done


def program(name, layout, arguments):
    """The command line of a program beside this file, in as many processes."""
    words = command(layout, "x", arguments, python=sys.executable)
    place = words.index("-m") if layout.processes == 1 else words.index("--module")
    return [*words[:place], str(Path(__file__).with_name(name)), *words[place + 2 :]]


def log_of(out):
    with open(out / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights_of(out):
    from safetensors.torch import load_file

    return load_file(out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(root):
    out, done = train(root, "alone", "bc20", "sft.jsonl", SFT)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_processes_have_the_loss_curve_of_one(root, alone, sharding):
    """To 1e-4 of each loss, and the weights to 1e-4: sums are taken in another order."""
    import torch

    out, done = train(root, f"sft-{sharding}", "bc20", "sft.jsonl", {**SFT, "gpus": 2, "sharding": sharding})
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [[float(row["loss"]) for row in log_of(run) if row["loss"]] for run in (alone, out)]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    expected, found = weights_of(alone), weights_of(out)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-4)
    assert done.stderr.count("found finished") + done.stderr.count("done in") == 1, "one process tells"
    spread = list((root / "work" / out.name).glob("*/checkpoints/*/pytorch_model_fsdp_0"))
    assert bool(spread) is (sharding == "fsdp2"), "checkpoints in parts are those of a model in parts"
    _, done = train(root, f"sft-{sharding}", "bc20", "sft.jsonl", {**SFT, "gpus": 2, "sharding": sharding})
    assert "6/6 found finished" in done.stderr, "it went on from its last checkpoint"


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_adapters_are_merged_by_the_main_process(root, sharding):
    lora = {**SFT, "epochs": 1, "lora": {"r": 4, "alpha": 8}}
    one, _ = train(root, "lora", "bc20", "sft.jsonl", lora)
    out, done = train(root, f"lora-{sharding}", "bc20", "sft.jsonl", {**lora, "gpus": 2, "sharding": sharding})
    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = weights_of(one), weights_of(out)
    assert expected.keys() == found.keys()
    assert max(float((found[name] - weight).abs().max()) for name, weight in expected.items()) < 1e-4


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_preferences_have_the_loss_curve_of_one(root, sharding):
    """The reference model is spread like the other."""
    settings = {"epochs": 3, "batch": 4, "micro_batch": 2, "lr": 1e-4}
    one, _ = train(root, "dpo", "dpo", "rl.jsonl", settings)
    out, done = train(root, f"dpo-{sharding}", "dpo", "rl.jsonl", {**settings, "gpus": 2, "sharding": sharding})
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [[float(row["loss"]) for row in log_of(run) if row["loss"]] for run in (one, out)]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def rewards_of(out):
    """Every rollout's reward, from the shares of the tiers in the log."""
    values = {"final": 1.0, "key": 0.5, "avoid": 0.1, "none": 0.0}
    found = []
    for row in log_of(out):
        if row.get("tier/none"):
            counts = {name: float(row[f"tier/{name}"]) * RL["batch"] for name in values}
            assert all(count == pytest.approx(round(count)) for count in counts.values())
            assert sum(counts.values()) == pytest.approx(RL["batch"]), "the rollouts of all processes"
            found += [values[name] for name, count in counts.items() for _ in range(round(count))]
    return found


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8}], ids=["full", "lora"])
@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_processes_have_the_rewards_of_one(root, sharding, lora):
    """Equal mean rewards within four standard errors, of equally many rollouts; a prefix that no longer replays is left
    out by both processes, and each replays one that searches."""
    runs = []
    several = {"gpus": 2, "sharding": sharding, "lora": lora}
    for name, more in (("rl-alone", {}), (f"rl-{sharding}-{'lora' if lora else 'full'}", several)):
        if not (root / name / "log.csv").exists():
            held_out = {"data": {"held_out": 0}}
            _, done = train(root, name, "score_rl", "rl.jsonl", {**RL, "eval_every": 0, **more}, **held_out)
            assert done.returncode == 0, done.stderr[-3000:]
            assert done.stderr.count("1 of 4 prefixes do not replay") == 1
        runs.append(root / name)
    one, two = map(rewards_of, runs)
    assert len(one) == len(two) == RL["batch"] * RL["updates"]
    means = [sum(some) / len(some) for some in (one, two)]
    spread = sum(sum((x - m) ** 2 for x in some) / (len(some) - 1) for some, m in zip((one, two), means, strict=True))
    assert abs(means[0] - means[1]) <= 4 * sqrt(spread / len(one))
    record = json.loads((runs[1] / "provenance.json").read_text())
    assert record["processes"] == 2
    assert record["usage"]["student"]["requests"] >= len(two), "both processes' requests are counted"
    assert len(list((root / "work" / runs[1].name).glob("*/usage.grpo.*.jsonl"))) == 2


def test_a_failure_of_one_process_ends_all_with_its_reason(root):
    """The judge's server is the main process's alone; that it does not start is the other's end as well."""
    judge = {"engine": "vllm", "path": "./nothing", "gpus": 0, "start_s": 60}
    broken = {"models": {"judge": judge}, "roles": {"reward_judge": "judge"}, "data": {"held_out": 0}}
    settings = {**RL, "eval_every": 0, "gpus": 2, "sharding": "ddp"}
    _, done = train(root, "down", "score_rl", "rl.jsonl", settings, **broken)
    assert done.returncode == 1
    assert "the server ended with code 1" in done.stderr
    assert "error: one of the training's processes ended with exit code 1" in done.stderr
    assert not (root / "down").exists()


def test_groups_are_those_of_one_process_and_each_process_has_its_own_sandbox(tmp_path):
    seen = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        words = program("watched.py", Layout(count), [str(folder)])
        done = subprocess.run(words, capture_output=True, text=True, timeout=1700, env=os.environ | PATHS)
        assert done.returncode == 0, done.stderr[-3000:]
        seen[count] = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]
    (one,), two = seen[1], seen[2]
    together = [a + b for a, b in zip(two[0]["rows"], two[1]["rows"], strict=True)]
    assert together == one["rows"], "the same prompts in the same groups"
    sampled = [a + b for a, b in zip(two[0]["sampled"], two[1]["sampled"], strict=True)]
    assert sampled[0] == one["sampled"][0], "the same episodes, each in its place"
    assert two[0]["sampled"] != two[1]["sampled"]
    for update in zip(*(process["advantages"] for process in two), strict=True):
        advantages = [value for part in update for value in part]
        for group in range(0, len(advantages), 4):
            assert sum(advantages[group : group + 4]) == pytest.approx(0, abs=1e-4)
    assert two[0]["weights"] == pytest.approx(two[1]["weights"]), "the processes keep one model"
    assert [process["held_out"] for process in two] == [[3, 3]] * 2, "each looks at its share, and both know all"
    assert [process["sandbox"].splitlines()[0] for process in two] == ["0", "1"]
    assert two[0]["sandbox"].splitlines()[1:] == two[1]["sandbox"].splitlines()[1:] != []
