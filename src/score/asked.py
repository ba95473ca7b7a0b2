"""Which stages behind an experiment's tables and figures ask models something, and which of them taught an agent.

Their provenance is what the ledger and the figure `teacher_tokens` are made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from score.config import Config, lineage
from score.config.schema import Agent
from score.workflow import Plan


def records(plan: Plan) -> list[str]:
    """The provenance of every such stage, each once."""
    columns: dict[str, list[str]] = {}  # agent -> what it is evaluated on
    for path in [*plan.scores(), *plan.hard_scores()]:
        agent, _, file = path.removeprefix(f"{plan.root}/eval/").split("/")
        columns.setdefault(agent, []).append(file.removesuffix(".score.json"))
    behind = dict.fromkeys(ancestor.name for name in columns for ancestor in lineage.ancestors(plan.config, name))
    paths = [path for agent in behind for seed in plan.config.seeds for path in _trained(plan, agent, str(seed))]
    for agent, names in columns.items():
        parts = dict.fromkeys(_part(plan, name) for name in names)
        paths += [f"{plan.root}/eval/{agent}/{s}/provenance.{part}.json" for s in plan.config.seeds for part in parts]
    for name in dict.fromkeys(name for names in columns.values() for name in names if name != "hard"):
        paths += [verdicts.replace(".jsonl", ".provenance.json") for verdicts in plan.verdicts(name)]
    return list(dict.fromkeys(paths))


def _trained(plan: Plan, agent: str, seed: str) -> Iterator[str]:
    """The provenance of the stages that a training run rests on, and its own if it asks models."""
    entry = lineage.agent(plan.config, agent)
    if entry.method == "sft":
        for path in plan.sft_data(agent, seed):
            if "/rollout/" in path and "/rollout/published/" not in path:
                yield path.replace(".jsonl", ".provenance.json")
    if entry.method in ("grpo", "dpo") or entry.data in ("corrections", "both_halves"):
        yield f"{plan.corrections(agent, seed)}/provenance.json"
    if entry.method == "grpo":
        yield f"{plan.root}/train/{lineage.run(agent, seed)}/provenance.json"


def teaching(plan: Plan) -> dict[str, list[str]]:
    """Agents -> the provenance of the stages in which a teacher wrote what they, or those they start from, learned.

    Those that the teacher itself is behind are not among them.
    """
    found = {}
    for agent in plan.shown:
        behind = lineage.ancestors(plan.config, agent.name)
        if behind[-1].model != plan.config.roles.teacher:
            paths = [p for one in behind for s in plan.config.seeds for p in _teaching(plan, one, str(s))]
            found[agent.name] = list(dict.fromkeys(paths))
    return found


def teaching_options(plan: Plan) -> str:
    """The same for the figure's command."""
    return " ".join(f"--taught {agent} {' '.join(paths)}" for agent, paths in teaching(plan).items())


def _teaching(plan: Plan, agent: Agent, seed: str) -> list[str]:
    """The records of the teacher's work that one training run learns from; RL from the question learns from none."""
    if agent.method == "grpo" and not (agent.short_horizon or agent.key_step_reward):
        return []
    own = f"{plan.root}/train/{lineage.run(agent.name, seed)}/provenance.json"
    return [path for path in _trained(plan, agent.name, seed) if path != own]


def _part(plan: Plan, benchmark: str) -> str:
    """The part of an evaluation that a benchmark belongs to."""
    return "hard" if benchmark == "hard" else "main" if benchmark in plan.main else "deep"


def terms(config: Config) -> str:
    """Roles, agents' own teachers and prices, for the params of the rule: what else of the config the ledger depends
    on."""
    prices = {name: model.price and model.price.model_dump() for name, model in config.models.items()}
    teachers = {agent.name: agent.teacher for agent in config.agents if agent.teacher}
    return json.dumps([config.roles.model_dump(), prices, teachers])
