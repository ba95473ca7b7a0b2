"""Starts a training run as its settings say: in plain python, in one process per GPU, or on several nodes.

    python -m score.train.launch --config ... --agent bc20 ...      # further arguments are those of score.train.sft

Several processes are started by `accelerate launch` with a file of `profiles/accelerate/`. Several nodes need SLURM,
and this module outside of any image (an image has no `srun`): it runs on the first node of the job and starts one
launcher per node, each in the image if there is one; they find each other by a rendezvous at this node.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from score import cli
from score.config import Config, lineage, read
from score.engine.gpus import visible
from score.errors import ScoreError

PROFILES = Path(__file__).parents[3] / "profiles" / "accelerate"
IMAGE = "SCORE_TRAIN_IMAGE"
"""Variable with the words that run a command in the image of training, for several nodes; empty: there is no
Apptainer to do it."""
_SEEN = 'export APPTAINERENV_CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-}"; exec "$@"'
"""Each node has GPUs of its own, which the first one's environment does not know."""


@dataclass(frozen=True)
class Layout:
    """Where one run trains: a process on each of `gpus` GPUs on each of `nodes`; `judge`: GPUs beside them."""

    gpus: int
    nodes: int = 1
    sharding: str = "ddp"
    judge: int = 0

    @classmethod
    def of(cls, config: Config, agent: str) -> Layout:
        """Of a trained agent."""
        entry, base = lineage.agent(config, agent), config.models[lineage.base_model(config, agent)]
        settings = config.training.of(entry.method, entry.settings)
        judge = config.models.get(config.roles.reward_judge or "") if entry.method == "grpo" else None
        gpus = settings.gpus or min(base.own_gpus, 1)
        return cls(gpus, settings.nodes, settings.sharding, judge.own_gpus if judge else 0)

    @property
    def processes(self) -> int:
        return max(self.gpus, 1) * self.nodes

    @property
    def total(self) -> int:
        """GPUs that the job asks for."""
        return self.gpus * self.nodes + self.judge

    @property
    def mpi(self) -> str | None:
        """With this resource the SLURM plugin leaves it to the job to start its steps; None where one node does."""
        return "srun" if self.nodes > 1 else None

    @property
    def tasks(self) -> int | None:
        return self.nodes if self.nodes > 1 else None

    @property
    def tasks_per_gpu(self) -> int | None:
        """0, or the plugin would take `tasks` for tasks per GPU."""
        return 0 if self.nodes > 1 else None


def command(
    layout: Layout, stage: str, arguments: Sequence[str], *, python: str, host: str = "", port: int = 0
) -> list[str]:
    """The command line of one node.

    Args:
        host: several nodes: where they meet, at `port`.
    """
    module = f"score.train.{stage}"
    if layout.processes == 1:
        return [python, "-m", module, *arguments]
    words = ["--config_file", str(PROFILES / f"{layout.sharding}.yaml")]
    words += ["--num_machines", str(layout.nodes), "--num_processes", str(layout.processes)]
    words += ["--main_process_port", str(port)]  # 0: any that is free
    if layout.nodes > 1:
        words += ["--main_process_ip", host, "--rdzv_backend", "c10d", "--machine_rank", "0"]  # c10d deals the ranks
    return [python, "-m", "accelerate.commands.launch", *words, "--module", module, *arguments]


def on_all_nodes(layout: Layout, node_command: Sequence[str], image: Sequence[str] = ()) -> list[str]:
    """The step that runs a command once on each node; the plugin keeps SLURM's own variables from it.

    Args:
        image: the words that run a command inside an image.
    """
    step = ["srun", f"--nodes={layout.nodes}", f"--ntasks={layout.nodes}", "--ntasks-per-node=1"]
    step += [f"--gpus-per-node={layout.gpus}", "--cpu-bind=none", "--kill-on-bad-exit=1"]
    return [*step, "sh", "-c", _SEEN, "sh", *image, *node_command]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--agent", required=True)
    known, _ = parser.parse_known_args(arguments)
    config = read(known.config)
    stage = lineage.agent(config, known.agent).method
    if stage == "prompt":
        raise ScoreError(f"agent {known.agent!r} is not trained; name one with method sft, grpo or dpo")
    layout = Layout.of(config, known.agent)
    if layout.processes == 1:
        words = command(layout, stage, arguments, python=sys.executable)
        os.execv(words[0], words)
    if layout.nodes == 1 and not visible(os.environ):
        layout = replace(layout, sharding="ddp")  # accelerate spreads models over GPUs alone
    if layout.nodes > 1:
        _run(_on_this_cluster(layout, stage, arguments))
        return
    if layout.sharding == "zero3" and importlib.util.find_spec("deepspeed") is None:
        raise ScoreError("sharding: zero3 needs deepspeed, which is not installed here; fsdp2 does the same without")
    _run(command(layout, stage, arguments, python=sys.executable))


def _on_this_cluster(layout: Layout, stage: str, arguments: Sequence[str]) -> list[str]:
    if "SLURM_JOB_ID" not in os.environ:
        raise ScoreError(f"training on {layout.nodes} nodes needs a SLURM job (snakemake --profile slurm), or nodes: 1")
    image = shlex.split(os.environ.get(IMAGE, ""))
    if not image and IMAGE in os.environ:
        raise ScoreError(
            f"neither apptainer nor singularity is on the PATH of {socket.gethostname()}, and a training on several "
            "nodes starts its images there; load it in the jobs' environment, or nodes: 1"
        )
    python = "python" if image else sys.executable
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    words = command(layout, stage, arguments, python=python, host=socket.gethostname(), port=port)
    return on_all_nodes(layout, words, image)


def _run(words: Sequence[str]) -> None:
    """Runs it to its end, or to this process's."""
    process = subprocess.Popen(words)
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()  # the launcher ends its processes
            process.wait()
    if code:
        raise ScoreError(f"one of the training's processes ended with exit code {code}; its reason is above")


if __name__ == "__main__":
    cli.run(main)
