"""The smoke run is the paper's experiment in small: the same rules, and other sizes, models and counts alone."""

from pathlib import Path

import pytest
import yaml
from test_plan import rules_of, snakemake

from score.config import load
from score.config.load import merge

ROOT = Path(__file__).parents[2]
FETCHED = {"hub_model", "smollm2", "wiki_leads"}
"""Rules that bring a model or a corpus here."""

SIZES = {
    "experiment", "title", "protocol", "sandbox.output_chars", "search", "models", "roles", "agents",
    "sampling.max_new_tokens", "data.seeds", "data.per_file", "data.per_benchmark", "data.held_out",
    "data.cold_start_share", "correct.max_corrections", "training",
}  # fmt: skip


@pytest.fixture(scope="module")
def configs():
    paper = yaml.safe_load((ROOT / "config.yaml").read_text())
    smoke = yaml.safe_load((ROOT / "configs/smoke.yaml").read_text())
    return load(paper), load(merge(paper, smoke))


@pytest.mark.parametrize("targets", [(), ("baselines", "ablations", "reproduction")])
def test_it_runs_every_rule_of_the_papers_experiment_and_no_other(targets):
    paper = rules_of(snakemake("-n", "--profile", "local", *targets, timeout=300))
    smoke = rules_of(snakemake("-n", "--profile", "local", *targets, "--configfile", "configs/smoke.yaml", timeout=300))
    assert set(paper) - FETCHED == set(smoke) - FETCHED
    assert {"rollout", "correct", "sft", "grpo", "dpo", "evaluate", "judge", "score"} <= set(smoke)


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
    switches = {key: value for key, value in smoke.items() if key in _SWITCHES}
    assert switches == {key: paper[key] for key in _SWITCHES}


_SWITCHES = [
    f"training.grpo.score_rl.{switch}"
    for switch in ("beta", "loss_type", "scale_rewards", "negative_weight", "avoid_requires", "mask_truncated")
] + ["training.sft.cold_start.lora", "training.sft.cold_start.schedule", "training.grpo.score_rl.lora"]
"""What of a training is method and not size."""


def _flat(value, prefix: str = "") -> dict:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(inner, f"{prefix}{key}.").items()}


def _group(key: str) -> str:
    first, *rest = key.split(".")
    if first == "sampling":
        return f"sampling.{rest[-1]}"
    whole = first in {"protocol", "search", "models", "roles", "training"}
    return first if whole else key
