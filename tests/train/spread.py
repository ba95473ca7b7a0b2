"""A training stage whose weights FSDP2 spreads over CPU processes: `spread.py sft --config ...`, under a launcher.

accelerate does that on GPUs alone, so it is told that these processes have some; the device stays the CPU. Everything
else is what runs on GPUs: fully_shard, the collectives (by gloo), sharded checkpoints, and gathering the weights.
"""

import importlib
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType

from score import cli


def _backend(self, *_args, **_more):
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(minutes=30))
    return "gloo", DistributedType.MULTI_GPU


def _device(self):
    self.device = torch.device("cpu")


if __name__ == "__main__":
    PartialState._prepare_backend, PartialState.set_device = _backend, _device
    cli.run(importlib.import_module(f"score.train.{sys.argv[1]}").main, sys.argv[2:])
