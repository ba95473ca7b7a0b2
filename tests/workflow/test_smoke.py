"""The smoke run is the paper's experiment in small: the same rules, and other sizes, models and counts alone."""

from pathlib import Path

import pytest
import yaml
from test_plan import rules_of, snakemake

from score.cluster import jobs
from score.config import load
from score.config.load import merge

ROOT = Path(__file__).parents[2]
FETCHED = {"hub_model", "smollm2", "wiki_leads"}
"""Rules that bring a model or a corpus here."""

SIZES = {
    "experiment", "title", "protocol", "sandbox.output_chars", "search", "models", "roles", "agents",
    "sampling.max_new_tokens", "data.seeds", "data.per_file", "data.per_benchmark", "data.held_out",
    "data.cold_start_share", "correct.max_corrections",
    *(f"training.{size}" for size in ("lr", "epochs", "batch", "micro_batch", "max_length", "updates", "generations")),
    *(f"training.{size}" for size in ("max_prompt", "max_completion", "turn_tokens", "eval_every", "max_flat")),
}  # fmt: skip


@pytest.fixture(scope="module")
def configs():
    paper = yaml.safe_load((ROOT / "config.yaml").read_text())
    smoke = yaml.safe_load((ROOT / "configs/smoke.yaml").read_text())
    return load(paper), load(merge(paper, smoke))


@pytest.mark.parametrize("targets", [(), ("baselines", "ablations", "reproduction")])
def test_it_runs_every_rule_of_the_papers_experiment_and_no_other(targets):
    def rules(*words: str) -> set[str]:
        planned = ("-n", "--profile", "local", *targets, *words, "--config", "experiment=unbuilt")
        return set(rules_of(snakemake(*planned, timeout=300)))

    paper, smoke = rules(), rules("--configfile", "configs/smoke.yaml")
    assert paper - FETCHED == smoke - FETCHED
    if not targets:
        assert {"rollout", "correct", "sft", "grpo", "dpo", "evaluate", "judge", "score"} <= smoke


def test_it_asks_all_twelve_benchmarks(configs):
    paper, smoke = configs
    assert smoke.benchmarks == paper.benchmarks
    assert len(smoke.benchmarks) == 12
    assert smoke.data.per_benchmark == 3
    assert not smoke.data.limits


def test_it_has_every_kind_of_agent_and_every_ablation(configs):
    def kinds(config):
        return {
            (agent.method, agent.data, agent.instructed, agent.short_horizon, agent.key_step_reward)
            for agent in config.agents
        }

    paper, smoke = configs
    assert kinds(paper) == kinds(smoke)
    assert {agent.ablation for agent in paper.agents} == {agent.ablation for agent in smoke.agents}


def test_it_differs_in_sizes_models_and_counts_alone(configs):
    paper, smoke = (_flat(config.model_dump(mode="json")) for config in configs)
    changed = {key for key in paper | smoke if paper.get(key) != smoke.get(key)}
    assert {_group(key) for key in changed} <= SIZES


def test_on_gpus_every_job_that_loads_a_model_asks_for_one(configs):
    gpu = yaml.safe_load((ROOT / "configs/smoke_gpu.yaml").read_text())
    paper, smoke = (yaml.safe_load((ROOT / name).read_text()) for name in ("config.yaml", "configs/smoke.yaml"))
    config = load(merge(merge(paper, smoke), gpu))
    taken = {stage.rule: stage.gpus(config) for stage in jobs.stages(config)}
    assert taken == {"rollout": 1, "correct": 2, "sft": 1, "grpo": 2, "dpo": 1, "evaluate": 1, "judge": 1}
    assert {stage.gpus(configs[1]) for stage in jobs.stages(configs[1])} == {0}


def _flat(value, prefix: str = "") -> dict:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(inner, f"{prefix}{key}.").items()}


def _group(key: str) -> str:
    """What a key is called in `SIZES`: the section, or the key without the names of models and settings."""
    first, *rest = key.split(".")
    if first in ("sampling", "training"):
        return f"{first}.{rest[-1]}"
    return first if first in {"protocol", "search", "models", "roles"} else key
