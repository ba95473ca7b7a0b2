"""When must a stage run again? When its settings or its deciding code change, and at no comment, docstring or resource.

A rule holds `stage(...)` in its params. The same word names the stage's work folder, so changed settings or code never
resume stale work.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Any

from score.config import lineage
from score.config.schema import Agent, Config, Model, Sandbox, Search
from score.config.section import Section
from score.config.training import Optim
from score.records import content_key

_PACKAGE = Path(__file__).parent
_EPISODE = (
    *(
        "agent/protocol.py",
        "agent/episode.py",
        "agent/drivers.py",
        "agent/sessions.py",
        "attempts.py",
        "prompts/agent.yaml",
    ),
    *(f"engine/{name}.py" for name in ("__init__", "adapter", "codec", "kept", "transformers", "openai", "vllm")),
    *(f"sandbox/{name}.py" for name in ("worker", "interpreter", "zygote", "session", "snapshots", "channel")),
    *(f"sandbox/{name}.py" for name in ("scratch", "watch", "isolate", "gate")),
    *("search/__init__.py", "search/base.py", "search/cache.py", "search/store.py", "search/http.py"),
    *(f"search/{name}.py" for name in ("none", "bm25", "serper", "tavily", "searxng", "retrieval")),
)
_RIGHT = ("data/metric.py", "evaluate/metrics.py", "evaluate/mathverify.py", "evaluate/plain.py", "prompts/judge.yaml")
_JUDGE = ("judge/verdicts.py", "replies.py", "prompts/__init__.py")
_TEACHER = (
    *_JUDGE,
    *("correct/teacher.py", "correct/render.py", "correct/leaks.py", "agent/syntax.py"),
    *("prompts/locate.yaml", "prompts/rewrite.yaml"),
)
_MICRO = (
    *("micro/world.py", "micro/graph.py", "micro/progress.py", "micro/oracle.py", "micro/server.py"),
    *("micro/backend.py", "micro/tasks.py"),
)
_DEGRADED = ("micro/mutations.py", "micro/degraded.py")
_TRAINING = (
    "engine/adapter.py",
    "engine/transformers.py",
    *(f"train/{name}.py" for name in ("rows", "start", "order", "optim", "fit", "output", "ranks", "monitor")),
)
_EXAM = (
    *(*_EPISODE, *_RIGHT, "data/splits.py"),
    *("train/heldout.py", "train/decoding.py", "train/samplers.py"),
)
"""What decides the looks at held-out questions of a training that has no episodes otherwise."""
_TABLES = tuple(
    f"report/{name}"
    for name in (
        *("tables.py", "text.py", "cells.py", "stats.py", "samples.py", "contamination.py"),
        *("reported.py", "reported.csv"),
    )
)
CODE: dict[str, tuple[str, ...]] = {
    "micro_questions": ("micro/tasks.py", "micro/graph.py", "micro/world.py"),
    "benchmark": ("data/benchmark.py", "data/questions.py"),
    "seeds": ("data/seeds.py", "data/questions.py"),
    "splits": ("data/splits.py", "data/contamination.py", "data/questions.py"),
    "demonstrations": (*("data/demonstrations.py", "data/contamination.py", "data/published.py", "data/questions.py"),),
    "shards": ("shards.py", "gather.py"),
    "rollout": (*_EPISODE, *_RIGHT, *_JUDGE, "data/splits.py", "correct/teacher.py", "rollout.py"),
    "correct": (
        *_EPISODE,
        *_RIGHT,
        *_TEACHER,
        "correct/mps.py",
        "correct/sets.py",
        "correct/__main__.py",
        "data/splits.py",
        "train/rows.py",
    ),
    "sft": (
        "agent/protocol.py",
        "engine/codec.py",
        "train/sft.py",
        *_TRAINING,
    ),
    "grpo": (
        *(*_EPISODE, *_RIGHT, *_JUDGE, "correct/sets.py", "train/grpo.py", "train/rewards.py"),
        *("train/trainer.py", "train/rollouts.py", "agent/syntax.py", *_EXAM, *_TRAINING),
    ),
    "dpo": ("agent/protocol.py", "engine/codec.py", "correct/sets.py", "train/dpo.py", *_TRAINING),
    "variance": (*_EPISODE, *_RIGHT, "train/rollouts.py", "train/variance.py"),
    "evaluate": (*_EPISODE, "data/metric.py", "evaluate/__main__.py"),
    "judge": (*_RIGHT, "judge/__main__.py", "agreement.py", "evaluate/outcome.py"),
    "score": (*_RIGHT, "evaluate/score.py", "evaluate/samples.py", "evaluate/remembered.py", "evaluate/outcome.py"),
    "report": _TABLES,
    "claims": (*_TABLES, "report/reproduction.py", "report/claims.yaml"),
    "page": ("report/page.py",),
    "ledger": ("usage.py", "report/ledger.py"),
    "figures": (
        *(f"report/figures/{name}.py" for name in ("style", "values", "figure3a", "figure3b", "learning_curves")),
        *(f"report/figures/{name}.py" for name in ("horizon", "gradient_variance", "teacher_tokens")),
        *_TABLES,
    ),
    "teacher_quality": (
        *(f"report/figures/{name}.py" for name in ("style", "values", "teacher_quality")),
        *_TABLES,
    ),
}
VERDICTS = (*_JUDGE, "prompts/judge.yaml")
"""What decides a judge's verdict on a case; which cases there are is the code of the stage "judge"."""


def stage(config: Config, name: str, agent: str, **more: Any) -> str:
    """Fingerprint of one stage for one agent."""
    files = CODE[name] + (_MICRO if config.data.generated else ())
    if name == "correct" and config.models[lineage.teacher(config, agent)].accuracy < 1:
        files += _DEGRADED
    if name in ("sft", "dpo") and lineage.looks(config, agent):
        files += _EXAM
    return content_key(settings(config, name, agent), code(files), more)


def settings(config: Config, name: str, agent: str) -> dict[str, Any]:
    """The part of the config that decides the stage's result for this agent."""
    entry, teacher = lineage.agent(config, agent), config.models[lineage.teacher(config, agent)]
    model = config.models[lineage.base_model(config, agent)]
    sampling = config.sampling
    judge = config.models.get(config.roles.reward_judge or "")
    acting = {"protocol": config.protocol, "sandbox": config.sandbox, "search": config.search, "model": model}
    acting["instructed"] = entry.instructed
    training = {"agent": entry, "settings": entry.settings and config.training.of(entry.method, entry.settings)}
    exam = {"evaluate": sampling.evaluate, **acting} if lineage.looks(config, agent) else {}
    parts: dict[str, dict[str, Any]] = {
        "rollout": {"plan": sampling.plan, "step": sampling.step, "judge": sampling.judge, **acting},
        "correct": {"student": sampling.student, "step": sampling.step, "judge": sampling.judge, **acting}
        | {"teacher": teacher, "correct": config.correct, "split_seed": config.data.split_seed}
        | ({"teacher_accuracy": teacher.accuracy} if teacher.accuracy < 1 else {}),
        "sft": {"model": model, **training} | exam,
        "grpo": {"reward_judge": judge, "judge": sampling.judge, **training, **acting} | exam,
        "dpo": {"model": model, **training} | exam,
        "variance": {"theory": config.theory, **training, **acting},
        "evaluate": {"evaluate": sampling.evaluate, **acting}
        | ({"as_published": True} if config.evaluation.as_published else {}),
    }
    return {key: deciding(value) for key, value in parts[name].items()}


_RESOURCES = {"batch", "gpus", "timeout_s", "retries", "start_s", "memory_fraction", "prefix_caching"}
"""Of a model: how fast, not what."""
_PLACES = {"gpus", "nodes", "sharding", "sampler_url", "sampler_memory"}  # of a training: where it runs
_LIMITS = {"max_gap", "max_flat"}  # of a training: when it is given up
_ACCESS = {"api_key_env", "price", "licence", "gated"}  # of a model: on what terms
_CHECKED = {"serves", "listed"}  # of a model: what its server must be, or nothing runs
_MEANS = {"require", "python", "kept"}  # of the sandbox: where it runs, not what it does
_STORAGE = {"mode", "cache", "share_cache"}  # of a search: where its answers are kept, not whose they are
_CORRECTING = {"accuracy"}  # of a model: how well it corrects; settings of a correction name it where it matters
_UPKEEP = {"save_every", "keep", "checkpointing"}  # of a training: what it costs to be able to go on, and memory
_LABELS = {"label", "tables", "baseline", "ablation", "reported"}  # of an agent: how it is shown, not what it is
_TEACHERS = {"teacher"}  # of an agent: whose corrections it gets, which tells in the data that it is trained on


def deciding(value: Any) -> Any:
    """A section as plain data, without the keys that change no result."""
    excluded = {
        Model: _RESOURCES | _ACCESS | _CHECKED | _CORRECTING | {"label"},
        Agent: _LABELS | _TEACHERS,
        Sandbox: _MEANS,
        Search: _STORAGE,
    }.get(type(value))
    if isinstance(value, Optim):
        excluded = _PLACES | _LIMITS | _UPKEEP
    if isinstance(value, Model) and value.forms is None:
        excluded = excluded | {"forms"}
    if isinstance(value, Model) and value.path:
        excluded = excluded | {"url"}  # where it is; without a path the address is all that says which model it is
    return value.model_dump(mode="json", exclude=excluded) if isinstance(value, Section) else value


def judging(config: Config, **more: Any) -> str:
    """Fingerprint of the evaluation judge's verdicts: its model, its sampling, and the code that asks and reads."""
    judge = config.models.get(config.roles.evaluation_judge or "")
    judge = judge and judge.model_copy(update={"forms": None})  # they hold turns, and a verdict is none
    return content_key(deciding(judge), deciding(config.sampling.judge), code(VERDICTS), more)


def auditing(model: Model) -> str:
    """Fingerprint of a teacher that is audited: the model, where it is, and the code that asks it."""
    files = CODE["correct"] + (_MICRO + _DEGRADED if model.engine == "oracle" else ())
    return content_key(deciding(model), model.accuracy, code(files))


@functools.cache
def code(files: tuple[str, ...]) -> str:
    """Hash of modules' syntax trees without docstrings and comments, and of data files as they are."""
    return content_key([(file, _tree(_PACKAGE / file)) for file in files])


def _tree(path: Path) -> str:
    if path.suffix != ".py":
        return path.read_text(encoding="utf-8")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
