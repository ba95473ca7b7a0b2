"""What an RL run logs of itself, and what stops it before anything spoiled is saved."""

import math

import pytest
import torch
from toy_rl import SETTINGS, by_length, key_step, make_trainer

from score.config.schema import Sampling
from score.config.training import Grpo
from score.errors import ScoreError
from score.records import Step, StopReason, Task, Trajectory
from score.train.monitor import Guard, cut, of_episodes, trouble

TASK = Task("t", "?", ("5",), "toy")


def trajectory(*errors, stop=StopReason.ANSWERED, tokens=10):
    steps = tuple(Step("t", "c", "o", error=error) for error in errors)
    return Trajectory(TASK, "plan", steps, stop, tokens={"completion": tokens})


def test_an_updates_episodes_in_numbers():
    episodes = [
        trajectory(None, "exception", "timeout"),
        trajectory("parse_error", stop=StopReason.PARSE_ERROR),
        trajectory(None, "truncated", stop=StopReason.MAX_STEPS, tokens=30),
        trajectory(stop=StopReason.CONTEXT_OVERFLOW, tokens=0),
    ]
    assert of_episodes(["final", "none", "undecided", "none"], episodes) == {
        "tier/final": 0.25,
        "tier/key": 0,
        "tier/avoid": 0,
        "tier/none": 0.5,
        "tier/undecided": 0.25,
        "episode/steps": 1.5,
        "episode/tool_errors": 0.5,
        "episode/malformed": 0.25,
        "episode/truncated": 0.5,
        "episode/answered": 0.25,
        "episode/new_tokens": 50,
    }
    assert [cut(episode) for episode in episodes] == [False, False, True, True]


FLAT = {"loss": 0.0, "reward": 0.0, "frac_reward_zero_std": 1.0}
VARIED = FLAT | {"frac_reward_zero_std": 0.9}


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([{"loss": 0.1, "grad_norm": 1.0, "sampling/gap": 0.4}], None),
        ([{"heldout/accuracy": 0.5}], None),
        ([{"loss": math.nan}], "loss is nan; lower the learning rate"),
        ([{"loss": 0.1, "grad_norm": math.inf}], "grad_norm is inf"),
        ([{"loss": 0.1, "sampling/gap": 0.6}], "0.6 nats from the trainer's, more than max_gap 0.5"),
        ([FLAT] * 2, None),
        ([VARIED, FLAT, FLAT, {"heldout/n": 3}, FLAT], "in 3 updates no group had rewards that differ"),
        ([FLAT, FLAT, VARIED, FLAT], None),
    ],
)
def test_what_stops_a_run(history, reason):
    found = trouble(history, max_gap=0.5, max_flat=3)
    assert found is None if reason is None else reason in found


def test_limits_can_be_off():
    assert trouble([FLAT | {"sampling/gap": 9.0}] * 500, max_gap=None, max_flat=0) is None


def log_of(trainer):
    return [row for row in trainer.state.log_history if "loss" in row]


def test_the_sampler_and_the_trainer_agree_in_one_process(random_student, tmp_path):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")])
    trainer.train()
    assert len(log_of(trainer)) == SETTINGS.updates
    assert all(0 < row["sampling/gap"] < 1e-4 for row in log_of(trainer))
    events = next((tmp_path / "checkpoints").rglob("events.out.tfevents*")).read_bytes()
    assert b"train/sampling/gap" in events
    assert all(row["entropy"] > 0 and row["frac_reward_zero_std"] <= 1 for row in log_of(trainer))


def test_a_sampler_that_differs_from_the_trainer_stops_the_run(random_student, tmp_path):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")])
    object.__setattr__(trainer.rollouts, "sampling", Sampling(temperature=0.2, top_p=1.0, top_k=0, max_new_tokens=12))
    trainer.add_callback(Guard(max_gap=0.2))
    with pytest.raises(ScoreError, match=r"update 1: the sampler's log-probabilities are .* The last checkpoint is in"):
        trainer.train()
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*")), "nothing of the spoiled update is saved"


def test_a_loss_that_is_no_number_stops_the_run_after_the_last_good_checkpoint(random_student, tmp_path):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")])
    loss = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: loss(model, inputs) * (math.nan if trainer.state.global_step else 1)
    trainer.add_callback(Guard())
    with pytest.raises(ScoreError, match="update 2: loss is nan"):
        trainer.train()
    saved = [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")]
    assert saved == ["checkpoint-1"]


def test_a_reward_that_is_no_number_is_counted_and_nothing_is_learned(random_student, tmp_path):
    given = [(math.nan, "none"), *[(1.0, "final")] * 6, (math.nan, "none")]
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], reward=lambda t, k: given)
    with pytest.raises(ScoreError, match="2 of 8 rewards are nan"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_nothing_is_learned_from_cut_episodes_if_they_are_masked(random_student, tmp_path):
    """A random student runs into the token limit in nearly every turn."""
    for masked in (False, True):
        trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")])
        trainer.mask_truncated = masked
        trainer.rows = [{"index": i // 4} for i in range(8)]
        rolled = trainer.roll(["p"] * 8)
        share = trainer._metrics["train"]["episode/truncated"][-1]
        trained = sum(any(mask) for mask in rolled["env_mask"])
        assert share > 0
        assert trained == (8 * (1 - share) if masked else 8)


def test_an_episodes_random_stream_is_its_place_in_the_update(random_student, tmp_path):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")])
    trainer.rows = [{"index": i // 4} for i in range(8)]
    first, again = (trainer.roll(["p"] * 8)["completion_ids"] for _ in range(2))
    assert first == again
    assert len(set(map(tuple, first))) == 8
    trainer.state.global_step = 1
    assert trainer.roll(["p"] * 8)["completion_ids"] != first
    trainer.args.seed = 1
    trainer.state.global_step = 0
    assert trainer.roll(["p"] * 8)["completion_ids"] != first


def test_a_sampler_outside_of_the_environment_is_named():
    from score.train.samplers import arguments

    settings = Grpo.model_validate(SETTINGS.model_dump() | {"sampler": "vllm_colocate"})
    with pytest.raises(ScoreError, match="sampler vllm_colocate needs vLLM"):
        arguments(settings)
    with pytest.raises(ValueError, match="sampler_url is given with sampler: vllm_server"):
        Grpo.model_validate(SETTINGS.model_dump() | {"sampler": "vllm_server"})


def test_with_vllm_the_loss_is_corrected_as_configured(monkeypatch, tmp_path):
    from score.train import samplers

    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: object())
    server = {"sampler": "vllm_server", "sampler_url": "http://gpu1:8000", "importance": "token_truncate"}
    settings = Grpo.model_validate(SETTINGS.model_dump() | server)
    arguments = samplers.arguments(settings)
    assert arguments["vllm_server_base_url"] == "http://gpu1:8000"
    assert arguments["vllm_mode"] == "server"
    assert arguments["vllm_importance_sampling_mode"] == "token_truncate"
    assert arguments["vllm_importance_sampling_correction"]
    assert not arguments["vllm_enable_sleep_mode"], "a server's memory is its own"


def test_tokens_without_a_known_probability_leave_the_gap_as_it_is(random_student, tmp_path):
    """An end token's is never told, and a sampler that tells none has no gap."""
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], reward=by_length)
    roll = trainer.roll
    trainer.rollout_func = lambda prompts, t: (
        roll(prompts) | {"logprobs": [[math.nan] * len(ids) for ids in roll(prompts)["completion_ids"]]}
    )
    trainer.train()
    assert all("sampling/gap" not in row for row in log_of(trainer))
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
