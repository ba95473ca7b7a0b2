"""Runs that test_resume.py kills: `python killed.py RUN WORK UPDATE` ends itself with SIGKILL before that update."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from transformers import TrainerCallback

from score.config.training import Lora, Sft

UPDATES = 20
SETTINGS = Sft(
    lr=3e-3, epochs=UPDATES / 7, batch=4, micro_batch=2, warmup=0.2, weight_decay=0.1, max_length=256, save_every=5
)
LORA = SETTINGS.model_copy(update={"lora": Lora(r=4, dropout=0.2), "group_by_length": True})


class Kill(TrainerCallback):
    """kill -9 of this process before an update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.update:
            os.kill(os.getpid(), signal.SIGKILL)


def student():
    """(model, codec): a random one, the same in every process."""
    import torch
    from transformers import LlamaForCausalLM

    from score.engine.codec import ChatCodec
    from score.micro.language import make_tokenizer, model_config

    torch.manual_seed(0)
    model = LlamaForCausalLM(model_config(hidden=32, layers=2, heads=2, intermediate=64))
    return model, ChatCodec(make_tokenizer())


def sft(work: Path, update: int = -1) -> list[dict]:
    """The history of a run on 28 rows of different lengths: seven updates are an epoch."""
    return rows_of(work, update, SETTINGS)[1]


def rows_of(work: Path, update: int, settings: Sft, exam=None):
    """(model, history) of such a run."""
    from test_sft import trajectory

    from score.train import output
    from score.train.rows import training_set
    from score.train.sft import train

    plain = output.ProgressCallback

    class Progress(Kill, plain):
        def __init__(self, label: str) -> None:
            plain.__init__(self, label)
            self.update = update

    model, codec = student()
    lengths = random.Random(0)
    data = training_set([trajectory("B" + "a" * lengths.randrange(60)) for _ in range(28)], codec, 256)
    output.ProgressCallback = Progress  # the stage makes its own
    try:
        return train(model, codec, data, settings, work, 0, "sft", exam)
    finally:
        output.ProgressCallback = plain


def lora(work: Path, update: int = -1) -> list[dict]:
    """The same with dropout, which draws random numbers, and rows of like length together."""
    return rows_of(work, update, LORA)[1]


class Weighed:
    """An exam whose marks follow from the weights alone."""

    def accuracy(self, model) -> tuple[float, int]:
        total = sum(float(p.detach().double().sum()) for p in model.parameters())
        return round(abs(total) * 1e4) % 97 / 97, 97


def best(work: Path, update: int = -1):
    """(model, history) of the same with a look after every second update, and the best of them selected."""
    settings = SETTINGS.model_copy(update={"eval_every": 2, "select": "best", "keep": 1})
    return rows_of(work, update, settings, Weighed())


def grpo(work: Path, update: int = -1) -> list[dict]:
    """The history of RL on six prompts, two an update, with rollouts sampled at temperature 1."""
    from toy_rl import key_step, make_trainer

    from score.train.fit import fit

    work.mkdir(exist_ok=True)
    steps = [key_step(name) for name in ("Ba", "Be", "Bi", "Bo", "Bu", "By")]
    trainer = make_trainer(student(), work, steps, max_steps=UPDATES, save_steps=5)
    trainer.add_callback(Kill(update))
    return fit(trainer, SETTINGS, work)[1]


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
