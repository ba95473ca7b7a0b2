"""A run that is killed (kill -9) and started again goes on as if nothing had been: the same data in the same order, the
same optimiser, schedule and random numbers, so the same losses."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import killed
import pytest
from torch.utils.data import RandomSampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.utils import RepeatSampler

from score.train.optim import last_checkpoint
from score.train.order import PerEpoch

HERE = Path(__file__).parent


def kill_before(update: int, run: str, work: Path) -> None:
    folders = [HERE, HERE.parent, *map(Path, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), run, str(work), str(update)],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def told(history: list[dict], *names: str) -> dict[str, list[float]]:
    return {name: [row[name] for row in history if name in row] for name in names}


@pytest.mark.parametrize(
    ("run", "killed_before", "names"),
    [
        ("sft", 12, ("loss", "grad_norm", "learning_rate")),
        ("lora", 14, ("loss", "grad_norm", "learning_rate")),
        pytest.param("grpo", 13, ("loss", "reward", "grad_norm", "episode/new_tokens"), marks=pytest.mark.slow),
    ],
)
def test_twenty_updates_are_ten_a_kill_and_ten_more(run, killed_before, names, tmp_path):
    """The last checkpoint is that of update 10, in the middle of an epoch which is not the first."""
    train = getattr(killed, run)
    straight = told(train(tmp_path / "straight"), *names)
    kill_before(killed_before, run, tmp_path / "killed")
    assert sorted(p.name for p in (tmp_path / "killed/checkpoints").iterdir() if p.is_dir())[0] == "checkpoint-10"
    resumed = told(train(tmp_path / "killed"), *names)
    assert len(straight[names[0]]) == killed.UPDATES
    assert len(set(straight[names[0]])) > 10, "the updates differ"
    for name in names:
        assert resumed[name] == pytest.approx(straight[name], abs=1e-6), name


def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path):
    """The trainer writes in place; a kill while it does leaves a folder without the state, which comes last."""
    straight = told(killed.sft(tmp_path / "straight"), "loss")
    kill_before(8, "sft", tmp_path / "killed")
    torn = tmp_path / "killed/checkpoints/checkpoint-7"
    shutil.copytree(torn.with_name("checkpoint-5"), torn)
    (torn / "trainer_state.json").write_text('{"epoch": 1')
    (tmp_path / "killed/checkpoints/checkpoint-8").mkdir()
    assert last_checkpoint(tmp_path / "killed") == str(torn.with_name("checkpoint-5"))
    assert told(killed.sft(tmp_path / "killed"), "loss")["loss"] == pytest.approx(straight["loss"], abs=1e-6)


@pytest.mark.parametrize("run", ["sft", "grpo"])
def test_a_run_whose_last_update_is_done_makes_no_more(run, tmp_path):
    """Its job died before its results were accepted; update 20 is within an epoch."""
    train = getattr(killed, run)
    history = told(train(tmp_path), "loss")
    folders = sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*"))
    assert told(train(tmp_path), "loss") == history
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")) == folders


@pytest.mark.slow
def test_a_run_goes_on_at_the_start_of_an_epoch_too(tmp_path):
    """Update 15 of RL ends its fifth epoch."""
    straight = told(killed.grpo(tmp_path / "straight"), "loss")
    kill_before(16, "grpo", tmp_path / "killed")
    assert told(killed.grpo(tmp_path / "killed"), "loss")["loss"] == pytest.approx(straight["loss"], abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RepeatSampler(range(30), mini_repeat_count=2, batch_size=3, seed=0),
        lambda: LengthGroupedSampler(4, lengths=[i % 7 for i in range(30)]),
        lambda: RandomSampler(range(30)),
    ],
)
def test_the_order_of_an_epoch_does_not_depend_on_how_the_process_came_to_it(make):
    trainer = SimpleNamespace(args=SimpleNamespace(seed=5), state=SimpleNamespace(epoch=0))
    one_process, next_process = PerEpoch(make(), trainer), PerEpoch(make(), trainer)
    first = list(one_process)
    trainer.state.epoch = 1.0
    second = list(one_process)
    trainer.state.epoch = 1.4  # it was killed in the middle of the second
    assert list(next_process) == second != first
    trainer.args.seed = 6
    assert list(next_process) != second


def test_as_many_checkpoints_stay_as_the_config_says(tmp_path):
    killed.rows_of(tmp_path, -1, killed.SETTINGS.model_copy(update={"keep": 3, "save_every": 2}))
    assert len(list((tmp_path / "checkpoints").glob("checkpoint-*"))) == 3
