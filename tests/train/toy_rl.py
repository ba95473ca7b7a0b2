"""RL on a toy: a random student, prefixes that print 4, and any reward."""

import torch

from fakes import LocalPool
from score.agent.protocol import Message, plan_text, step_text
from score.config.schema import Protocol, Sampling
from score.config.training import Grpo
from score.correct.sets import KeyStep
from score.records import Step, Task
from score.train.grpo import dataset_rows
from score.train.rollouts import Rollouts
from score.train.samplers import sampling
from score.train.trainer import AgentGRPO

SETTINGS = Grpo(
    lr=1e-3, updates=2, batch=8, micro_batch=4, generations=4, max_prompt=128, max_completion=128, turn_tokens=12,
    beta=0.0, schedule="constant", save_every=1,
)  # fmt: skip
PREFIX = (Step("Find Ba", "x = 4\nprint(x)", "4", text=step_text("Find Ba", "x = 4\nprint(x)")),)


def key_step(name: str, k: int = 2) -> KeyStep:
    task = Task(name, f"How many coins has {name}?", ("5",), "toy", {"metric": "exact"})
    plan = Message("assistant", plan_text("Plan: 2")) if k else None
    wrong, fix = Step("w", "print(9)", "9"), Step("f", "print(x + 1)", "5")
    return KeyStep(task, k, plan, PREFIX if k else (), wrong, fix)


class Recorder(AgentGRPO):
    """Keeps what the loss sees."""

    def _compute_loss(self, model, inputs):
        self.seen.append({k: v.detach().clone() if torch.is_tensor(v) else v for k, v in inputs.items()})
        return super()._compute_loss(model, inputs)


def make_trainer(
    student, tmp_path, steps, *, reward=None, short_horizon=True, cls=Recorder, negative_weight=1.0, **more
):
    from datasets import Dataset
    from trl import GRPOConfig

    from score.train.optim import trainer_arguments

    model, codec = student
    model.save_pretrained(tmp_path / "start")
    arguments = GRPOConfig(
        num_generations=SETTINGS.generations, max_completion_length=SETTINGS.max_completion, temperature=1.0,
        **trainer_arguments(SETTINGS, tmp_path, 0) | {"max_steps": SETTINGS.updates} | more,
    )  # fmt: skip
    rows = dataset_rows(steps, SETTINGS.batch // SETTINGS.generations)
    rollouts = Rollouts(
        codec=codec, key_steps=steps, reward=reward or by_length, pool=LocalPool(), tools={"web_search": str.upper},
        limits=Protocol(max_steps=4), short_horizon=short_horizon, sampling=sampling(SETTINGS), context=256,
    )  # fmt: skip
    trainer = cls(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=codec.tokenizer,
        rollouts=rollouts, negative_weight=negative_weight,
    )  # fmt: skip
    trainer.seen = []
    return trainer


def by_length(trajectories, key_steps):
    """Any reward that differs within a group."""
    return [(float(t.tokens["completion"] % 7), "none") for t in trajectories]


def make_exam(codec, tasks, *, temperature=0.0):
    from score.train.heldout import Exam

    sampling = Sampling(temperature=temperature, max_new_tokens=8)
    return Exam(tasks, sampling, codec, Protocol(max_steps=4), LocalPool(), {"web_search": str.upper}, 256, 4)


def micro_config():
    from pathlib import Path

    import yaml

    from score.config import load
    from score.config.load import merge

    root = Path(__file__).parents[2]
    files = (root / "config.yaml", root / "configs/micro.yaml")
    return load(merge(*(yaml.safe_load(file.read_text()) for file in files)))
