"""SFT through TRL: what is trained on, what is refused, and that a killed run continues."""

import contextlib
import copy

import pytest
import torch

from score.agent.protocol import step_text
from score.config.training import Lora, Sft
from score.errors import ScoreError
from score.records import Step, StopReason, Task, Trajectory
from score.train import sft
from score.train.output import write_left_out
from score.train.rows import LeftOut, training_set
from score.train.sft import train

SETTINGS = Sft(lr=3e-3, epochs=30, batch=4, micro_batch=2, max_length=256, save_every=5)


def trajectory(name="t", **changes):
    steps = (
        Step("Find Ba", "x = 5\nprint(x)", "5", text=step_text("Find Ba", "x = 5\nprint(x)")),
        Step("Answer", "final_answer_print(x)", "5"),
    )
    fields = {"plan": "Plan: 2", "steps": steps, "stop": StopReason.ANSWERED, "answer": "5", "meta": {"right": True}}
    return Trajectory(task=Task(name, f"How many coins has {name}?", ("5",), "toy"), **(fields | changes))


def test_what_is_not_trained_on_is_counted(random_student):
    _, codec = random_student
    bad_step = Step("", "", "Error", error="parse_error", text="junk")
    given = [
        trajectory("a"),
        trajectory("b", meta={"right": False}),
        trajectory("c", meta={"right": None}),
        trajectory("d", steps=(bad_step, *trajectory().steps)),
        trajectory("e", plan=None),
        trajectory("f" * 300),
        trajectory("g", plan=" "),
        trajectory("h", steps=(Step("", " ", "", text="<thought></thought><code> </code>"), *trajectory().steps)),
    ]
    data = training_set(given, codec, max_length=256)
    assert len(data.rows) == 1
    assert {k: n for k, n in data.counts.items() if "tokens" not in k} == {
        "given": 8, "rows": 1, "not_right": 2, "malformed": 2, "too_long": 1, "empty_turn": 2,
    }  # fmt: skip
    reasons = {"b": "not_right", "c": "not_right", "d": "malformed", "e": "malformed", "f" * 300: "too_long"}
    assert dict(data.left_out.rows) == reasons | {"g": "empty_turn", "h": "empty_turn"}


def test_what_is_not_trained_on_is_named_in_a_file_beside_the_model(tmp_path):
    write_left_out(tmp_path / "run" / "left_out.csv", LeftOut([("a,1", "too_long"), ("b", "empty_turn")]))
    assert (tmp_path / "run" / "left_out.csv").read_text() == 'id,reason\n"a,1",too_long\nb,empty_turn\n'


def test_rows_of_like_length_share_an_update(random_student, tmp_path):
    """Then fewer tokens of an update are padding; the same rows are trained on all the same."""
    model, codec = random_student
    data = training_set([trajectory("B" + "a" * (i % 8 * 8)) for i in range(32)], codec, 256)

    def padding(group_by_length: bool) -> tuple[float, int]:
        settings = SETTINGS.model_copy(update={"epochs": 1, "group_by_length": group_by_length, "micro_batch": 4})
        seen = []

        def note(module, args, kwargs):
            seen.append((kwargs["input_ids"].numel(), int(kwargs["attention_mask"].sum())))

        with _hooked(model, note):
            train(model, codec, data, settings, tmp_path / str(group_by_length), 0, "test")
        width, real = map(sum, zip(*seen, strict=True))
        return 1 - real / width, real

    (grouped, trained), (random, also) = padding(True), padding(False)
    assert trained == also == sum(len(row["input_ids"]) for row in data.rows)
    assert grouped < 0.7 * random


@contextlib.contextmanager
def _hooked(model, note):
    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    yield
    handle.remove()


def test_an_empty_training_set_says_why(random_student):
    with pytest.raises(ScoreError, match=r"training set is empty.*not_right"):
        training_set([trajectory(meta={"right": False})], random_student[1], 256)


def test_observations_get_no_gradient(random_student):
    """d loss / d logits is exactly zero where the next token is an observation's and non-zero where it is the
    model's."""
    model, codec = random_student
    row = training_set([trajectory()], codec, 256).rows[0]
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    out = model(input_ids=ids, labels=labels)
    logits = out.logits
    logits.retain_grad()
    out.loss.backward()
    per_position = logits.grad[0].abs().sum(-1)
    trained = torch.tensor([label != -100 for label in row["labels"][1:]])
    assert (per_position[:-1][~trained] == 0).all()
    assert (per_position[:-1][trained] > 0).all()
    read = codec.decode([t for t, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100])
    assert "Observation: 5" in read
    assert "final_answer_print" not in read


def test_training_lowers_the_loss_and_follows_our_labels(random_student, tmp_path):
    model, codec = random_student
    data = training_set([trajectory(n) for n in ("Bo", "Ba", "Be", "Bi")], codec, 256)
    settings = SETTINGS.model_copy(update={"lr": 2e-2})
    _, history = train(model, codec, data, settings, tmp_path, 0, "sft test")
    losses = [row["loss"] for row in history if "loss" in row]
    assert losses[-1] < losses[0] / 3


def test_a_killed_run_continues_to_the_same_weights(random_student, tmp_path):
    import copy

    model, codec = random_student
    data = training_set([trajectory(n) for n in ("Bo", "Ba", "Be", "Bi")], codec, 256)
    straight, _ = train(copy.deepcopy(model), codec, data, SETTINGS, tmp_path / "a", 0, "straight")
    (tmp_path / "b").mkdir()
    checkpoint = tmp_path / "a" / "checkpoints" / "checkpoint-25"
    assert checkpoint.is_dir()
    (tmp_path / "b" / "checkpoints").mkdir()
    checkpoint.rename(tmp_path / "b" / "checkpoints" / "checkpoint-25")
    resumed, _ = train(copy.deepcopy(model), codec, data, SETTINGS, tmp_path / "b", 0, "resumed")
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_muon_resumes_too(random_student, tmp_path):
    from score.train.optim import MuonWithAdamW

    model, _ = random_student
    optimizer = MuonWithAdamW(model, 0.01)
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    optimizer.step()
    again = MuonWithAdamW(model, 0.5)
    again.load_state_dict(optimizer.state_dict())
    assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimizer.param_groups] == [0.01, 0.002]


@pytest.mark.parametrize("adapter", [None, Lora(r=4, alpha=8)])
def test_small_logits_are_held_and_give_the_same_training(random_student, tmp_path, monkeypatch, adapter):
    """TRL computes the logits of any size twice; without that, all that is logged is the same."""
    _, codec = random_student
    data = training_set([_of_length(i) for i in range(8)], codec, 256)
    labelled = [sum(label != -100 for label in row["labels"]) for row in data.rows]
    assert len(set(labelled)) > 4, "else a mean of means is the mean"
    settings = SETTINGS.model_copy(update={"epochs": 2, "lora": adapter})
    fused = []

    def rows(limit: int) -> list[dict]:
        monkeypatch.setattr(sft, "LOGITS", limit)
        model = copy.deepcopy(random_student[0])
        fused.append([])
        with _hooked(model, lambda module, args, kwargs: fused[-1].append("fused_lm_head" in kwargs)):
            history = train(model, codec, data, settings, tmp_path / str(limit), 0, "test")[1]
        columns = ("loss", "grad_norm", "entropy", "mean_token_accuracy")
        return [{name: row[name] for name in columns} for row in history if "loss" in row]

    assert sft.logits_fit(settings, random_student[0].config.vocab_size)
    held, not_held = rows(sft.LOGITS), rows(0)
    assert len(held) == 4
    assert held == [pytest.approx(row, rel=1e-4) for row in not_held]
    if adapter is None:
        assert not any(fused[0])
        assert all(fused[1])


def _of_length(n: int):
    code = "\n".join(["x = 5"] * (1 + n)) + "\nprint(x)"
    return trajectory(f"t{n}", steps=(Step("Find Ba", code, "5", text=step_text("Find Ba", code)), *trajectory().steps))
