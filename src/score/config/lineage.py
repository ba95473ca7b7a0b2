"""Questions about how agents hang together: which model, whose corrections, which run. Pure functions of the config."""

from __future__ import annotations

from score.config.mistakes import nearest
from score.config.schema import Agent, Config
from score.errors import ScoreError


def agent(config: Config, name: str) -> Agent:
    """The agent of that name. Raises `ScoreError` with the nearest name."""
    by_name = {a.name: a for a in config.agents}
    if name not in by_name:
        raise ScoreError(f"unknown agent {name!r}; {nearest(name, by_name)}")
    return by_name[name]


def named(config: Config, word: str) -> str:
    """The agent that a word means: its own name, or `ablation_<word>` for the row of table 3 that it is."""
    return next((a.name for a in config.agents if word in (a.name, f"ablation_{a.ablation}")), word)


def ancestors(config: Config, name: str) -> list[Agent]:
    """The agent, the one it starts from, and so on down to the prompted base model."""
    chain = [agent(config, name)]
    while chain[-1].start is not None:
        chain.append(agent(config, chain[-1].start))
    return chain


def base_model(config: Config, name: str) -> str:
    """Key in `models` of the model that the agent is, or was trained from."""
    return ancestors(config, name)[-1].model


def cold_start(config: Config, name: str) -> str:
    """The cold-started ancestor whose corrections the agent trains on; it may be the agent itself."""
    return next(a.name for a in ancestors(config, name) if a.data == "cold_start")


def corrected(config: Config, name: str) -> str:
    """The agent by whose name the corrections go that the agent trains on.

    The cold-started ancestor, or a later one that has a teacher of its own.
    """
    return next(a.name for a in ancestors(config, name) if a.teacher or a.data == "cold_start")


def teacher(config: Config, name: str) -> str:
    """Key in `models` of the model that corrects the attempts behind the agent's training data."""
    own = next((a.teacher for a in ancestors(config, name) if a.teacher or a.data == "cold_start"), None)
    return own or config.roles.teacher


def compared(config: Config, name: str) -> list[str]:
    """Agents of the same student whose scores an agent's are compared with, question by question.

    The one that it starts from; SCoRe-SFT also with BC on all demonstrations, and the full method with every other.
    """
    entry, base = agent(config, name), base_model(config, name)
    trained = [
        a for a in config.agents if a.method != "prompt" and a.name != name and base_model(config, a.name) == base
    ]
    others = []
    if entry.method == "grpo" and entry.short_horizon and entry.key_step_reward:
        others = [a.name for a in trained]
    elif entry.data == "corrections":
        others = [a.name for a in trained if a.data == "demonstrations"]
    return list(dict.fromkeys([*([entry.start] if entry.start else []), *others]))


def run(name: str, seed: int | str) -> str:
    """The folder name of a training run: one agent, one seed."""
    return f"{name}-s{seed}"


def looks(config: Config, name: str) -> bool:
    """Does the agent's training look at held-out questions?"""
    entry = agent(config, name)
    return entry.method != "prompt" and config.training.of(entry.method, entry.settings).eval_every > 0
