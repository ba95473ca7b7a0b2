"""The contract with TRL's GRPOTrainer (fails on an upgrade that changes it), and RL from verified prefixes.

Proven here: sampled ids are trained on as sampled, observation tokens get no gradient, prompts arrive group by group
and in line with their rows, finished episodes get no further step, and a dead judge stops the run.
"""

import dataclasses
import itertools
import re

import pytest
import torch
from toy_rl import PREFIX, SETTINGS, Recorder, key_step, make_trainer, micro_config

from fakes import LocalPool
from score.errors import InfrastructureError, ScoreError
from score.records import Step
from score.train.grpo import dataset_rows, usable
from score.train.rows import LeftOut

OBSERVATION = re.compile(r"(<\|end\|>)?(<\|user\|>Observation: .*<\|end\|><\|assistant\|>)?", re.DOTALL)
"""What lies between two sampled turns; the first end token only where the turn ran into the token limit."""


def masked_runs(ids, mask):
    """Maximal stretches of ids that the model did not sample."""
    pairs = itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [[token for token, _ in run] for sampled, run in pairs if not sampled]


def test_rollouts_are_aligned_masked_and_trained_on_as_sampled(random_student, tmp_path):
    given, rolled = [], []

    class Watching(Recorder):
        def roll(self, prompts):
            given.append([row["index"] for row in self.rows])
            out = super().roll(prompts)
            rolled.append(out)
            return out

    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo"), key_step("Be")], cls=Watching)
    trainer.train()
    codec = random_student[1]
    for indexes, out in zip(given, rolled, strict=True):
        assert len(indexes) == SETTINGS.batch
        groups = [indexes[i : i + SETTINGS.generations] for i in range(0, len(indexes), SETTINGS.generations)]
        assert all(len(set(group)) == 1 for group in groups), "a group shares its prompt"
        for prompt, completion, mask in zip(out["prompt_ids"], out["completion_ids"], out["env_mask"], strict=True):
            assert "x = 4" in codec.decode(prompt), "the verified prefix is prompt"
            for run in masked_runs(completion, mask):
                assert OBSERVATION.fullmatch(codec.decode(run)), codec.decode(run)
            assert mask[0] == 1, "the first generated token follows the prefix"


def test_the_loss_has_no_gradient_at_observations(random_student, tmp_path):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")])
    leaves = []
    original = trainer._get_per_token_logps_and_entropies

    def spy(*args, **kwargs):
        result = original(*args, **kwargs)
        logps = result[0]
        if logps.requires_grad:
            logps.retain_grad()
            leaves.append(logps)
        return result

    trainer._get_per_token_logps_and_entropies = spy
    trainer.train()
    seen_nonzero, masked = 0, 0
    for inputs, logps in zip(trainer.seen, leaves, strict=True):
        mask = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        assert (logps.grad[~mask] == 0).all()
        masked += int((inputs["completion_mask"].bool() & ~mask).sum())
        active = inputs["advantages"] != 0
        seen_nonzero += int((logps.grad[active][mask[active]] != 0).sum())
    assert seen_nonzero > 0
    assert masked > 0, "there were observations to mask"


def test_padding_is_neither_computed_nor_counts(random_student, tmp_path):
    """Log-probabilities, entropies and the gradient are those of the padded batch, in any order of its rows."""
    from trl import GRPOTrainer

    from score.train.trainer import by_length

    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo" * 9)])
    trainer.train()
    batches = trainer.seen[:2]
    prompt, completion = (torch.cat([b[name] for b in batches]) for name in ("prompt_ids", "completion_ids"))
    masks = [torch.cat([b[name] for b in batches]) for name in ("prompt_mask", "completion_mask")]
    ids, mask, width = torch.cat([prompt, completion], 1), torch.cat(masks, 1), completion.shape[1]
    assert (mask.sum(1).max() > mask.sum(1).min()).item(), "the rows differ in length"
    padded = GRPOTrainer._get_per_token_logps_and_entropies(
        trainer, trainer.model, ids, mask, width, compute_entropy=True
    )
    for size in (1, 4):
        ours = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, width, batch_size=size, compute_entropy=True
        )
        for one, other in zip(ours[:2], padded[:2], strict=True):
            assert torch.allclose(one[masks[1].bool()], other[masks[1].bool()], atol=1e-5)
    again = by_length(batches)
    lengths = [(b["prompt_mask"].sum(1) + b["completion_mask"].sum(1)).tolist() for b in again]
    assert list(itertools.chain(*lengths)) == sorted(mask.sum(1).tolist())
    assert sorted(torch.cat([b["advantages"] for b in again]).tolist()) == sorted(
        torch.cat([b["advantages"] for b in batches]).tolist()
    )


@pytest.mark.parametrize("short_horizon", [True, False])
def test_short_horizon_decides_where_a_rollout_starts(random_student, tmp_path, short_horizon):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba")], short_horizon=short_horizon)
    trainer.rows = [{"index": 0}] * 4
    out = trainer.roll(["p"] * 4)
    prompt = random_student[1].decode(out["prompt_ids"][0])
    assert ("x = 4" in prompt) is short_horizon
    assert prompt.endswith("<|assistant|>")


def test_negative_advantages_can_weigh_less(random_student, tmp_path):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], negative_weight=0.0)
    trainer.train()
    advantages = torch.cat([inputs["advantages"] for inputs in trainer.seen])
    assert (advantages >= 0).all()
    assert (advantages > 0).any()


def test_a_dead_judge_stops_the_step_and_rewards_nothing(random_student, tmp_path):
    def down(trajectories, key_steps):
        raise InfrastructureError("the judge is down")

    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], reward=down)
    with pytest.raises(InfrastructureError, match="judge is down"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_prefix_that_no_longer_replays_stops_the_step(random_student, tmp_path):
    stale = dataclasses.replace(key_step("Ba"), prefix=(dataclasses.replace(PREFIX[0], observation="17"),))
    trainer = make_trainer(random_student, tmp_path, [stale])
    trainer.rows = [{"index": 0}] * 4
    with pytest.raises(InfrastructureError, match=r"4 of 4 RL episodes have no outcome.*ReplayMismatch"):
        trainer.roll(["p"] * 4)


def test_prefixes_that_no_longer_replay_are_left_out_and_named(caplog):
    from score.train.grpo import replaying

    stale = dataclasses.replace(key_step("Bo"), prefix=(dataclasses.replace(PREFIX[0], observation="17"),))
    left_out = LeftOut()
    kept = replaying([key_step("Ba"), stale], micro_config(), LocalPool(), {"web_search": str.upper}, left_out)
    assert [k.task.id for k in kept] == ["Ba"]
    assert left_out.rows == [("Bo", "no_replay")]
    assert "1 of 2 prefixes do not replay" in caplog.text
    with pytest.raises(ScoreError, match="none of 1 prefixes replays"):
        replaying([stale], micro_config(), LocalPool(), {"web_search": str.upper}, LeftOut())


def test_fewer_prompts_than_an_update_takes_are_repeated():
    """TRL would otherwise end such a run after no update at all, and call it done."""
    rows = dataset_rows([key_step("Ba"), key_step("Bo"), key_step("Be")], prompts_per_update=8)
    assert len(rows) >= 8
    assert {row["index"] for row in rows} == {0, 1, 2}


def test_a_row_whose_prefix_is_too_long_or_whose_fix_is_empty_is_dropped_counted_and_named(random_student):
    empty = dataclasses.replace(key_step("Be"), fix=Step(" ", ""))
    left_out = LeftOut()
    kept, counts = usable([key_step("Ba"), key_step("Bo" * 200), empty], random_student[1], 100, left_out)
    assert [k.task.id for k in kept] == ["Ba"]
    assert counts == {"given": 3, "used": 1, "too_long": 1, "empty_turn": 1}
    assert left_out.rows == [("Be", "empty_turn"), ("Bo" * 200, "too_long")]


class Scored(Recorder):
    """Keeps the whole of what each generation gives the loss."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scored = []

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.scored.append({k: v.clone() for k, v in output.items() if torch.is_tensor(v)})
        return output


UNDECIDED = (None, "undecided")


def test_nothing_is_learned_from_an_undecided_rollout(random_student, tmp_path):
    """And its group learns what it would without it: the mean, the deviation and the tokens are the others'."""
    given = [UNDECIDED, (1.0, "final"), (0.0, "none"), (0.0, "none"), *[(1.0, "final"), (0.0, "none")] * 2]

    trainer = make_trainer(
        random_student, tmp_path, [key_step("Ba"), key_step("Bo")], reward=lambda t, k: given, cls=Scored
    )
    trainer.train()
    for output in trainer.scored:
        rewards = torch.tensor([1.0, 0.0, 0.0])
        expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        assert output["advantages"][0] == 0
        assert torch.allclose(output["advantages"][1:4], expected)
        counted = (output["completion_mask"] * output["tool_mask"]).sum(dim=1)
        assert counted[0] == 0
        assert (counted[1:] > 0).all()
        assert output["num_items_in_batch"] == counted.sum()
    assert trainer.state.log_history[0]["tier/undecided"] == pytest.approx(1 / 8)
    assert trainer.state.log_history[0]["reward"] == pytest.approx(3 / 7)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo"])
def test_a_batch_without_any_decided_rollout_changes_nothing(random_student, tmp_path, loss_type):
    import copy

    model, codec = copy.deepcopy(random_student[0]), random_student[1]
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    trainer = make_trainer(
        (model, codec), tmp_path, [key_step("Ba"), key_step("Bo")], reward=lambda t, k: [UNDECIDED] * len(t)
    )
    trainer.loss_type, trainer.args.max_steps = loss_type, 1
    trainer.train()
    assert trainer.state.global_step == 1
    assert all(torch.equal(weights, before[name]) for name, weights in model.named_parameters())


def test_training_raises_the_reward_it_is_given(random_student, tmp_path):
    """Rewards meet the rollouts that earned them, with the right sign: a reward for tokens of one half of the
    vocabulary is learned."""
    half = len(random_student[1].tokenizer) // 2

    def share_of_low_tokens(trajectories, key_steps):
        sampled = [[i for step in t.steps[1:] for i in step.token_ids] or [half] for t in trajectories]
        return [(sum(i < half for i in ids) / len(ids), "none") for ids in sampled]

    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], reward=share_of_low_tokens)
    trainer.args.max_steps = 45
    trainer.args.save_strategy = "no"
    trainer.args.learning_rate = 1e-2
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert sum(rewards[-5:]) / 5 > 0.7 > 0.6 > sum(rewards[:3]) / 3
