"""A small experiment with one job of every kind, by hand."""

import functools
from pathlib import Path

from fakes import mapping
from score.config import Config, load
from score.config.load import merge
from score.plan.assumptions import Assumptions
from score.plan.dryrun import Job
from score.plan.loads import Setting
from score.plan.questions import Questions

ROOT = Path(__file__).parents[2]


def config_of(**more) -> Config:
    return _changed(more) if more else _base()


@functools.cache
def _base() -> Config:
    return _changed({})


def _changed(more: dict) -> Config:
    price = {"qwen2.5_72b": {"price": {"prompt": 1, "completion": 2}}}
    return load(mapping(**merge({"data": {"per_benchmark": 20}, "models": price}, more)))


QUESTIONS = Questions(100, 400, 50, searching=0.5, judged=0.5, source="by hand")
SIZES = {"qwen2.5_72b": 72e9, "qwen2.5_7b": 7e9, "qwen2.5_3b": 3e9, "llama3.1_8b": 8e9, "qwen3_8b": 8e9}


def setting(assumed: Assumptions | None = None, questions: Questions = QUESTIONS, **more) -> Setting:
    return Setting(config_of(**more), questions, assumed or Assumptions(), SIZES, {"gaia": 6})


def job(rule: str, gpus: int, needs: str, makes: str, **wildcards: str) -> Job:
    return Job(rule, wildcards, gpus, 720, tuple(needs.split()), tuple(makes.split()))


JOBS = [
    Job("splits", makes=("splits",)),
    job("hub_model", 0, "", "base", org="Qwen", name="Qwen2.5-7B-Instruct"),
    job("rollout", 4, "splits", "shown", agent="teacher", part="cold_start", scatteritem="1-of-1"),
    job("sft", 1, "shown base", "bc20", agent="qwen7b_bc20", seed="0"),
    job("correct", 5, "bc20", "corrected1", agent="qwen7b_bc20", seed="0", scatteritem="1-of-2"),
    job("correct", 5, "bc20", "corrected2", agent="qwen7b_bc20", seed="0", scatteritem="2-of-2"),
    job("sft", 1, "corrected1 corrected2", "sft", agent="qwen7b_score_sft", seed="0"),
    job("dpo", 1, "sft", "dpo", agent="qwen7b_dpo", seed="0"),
    job("grpo", 2, "sft", "rl", agent="qwen7b_score_rl", seed="0"),
    job("evaluate", 1, "rl", "main", agent="qwen7b_score_rl", seed="0", part="main", scatteritem="1-of-1"),
    job("evaluate", 1, "rl", "hard", agent="qwen7b_score_rl", seed="0", part="hard", scatteritem="1-of-1"),
    job("evaluate", 1, "", "deep", agent="qwen3_8b", seed="0", part="deep", scatteritem="1-of-1"),
    job("judge", 4, "deep", "verdicts", benchmark="gaia"),
]
