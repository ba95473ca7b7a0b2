"""The model card: what was trained, from what, on what, and how well."""

import math

import yaml

from score.train.card import chosen, model_card

HISTORY = [
    {"step": 0, "heldout/accuracy": 0.25, "heldout/n": 4.0},
    {"step": 1, "loss": 2.0},
    {"step": 2, "loss": 1.5, "heldout/accuracy": 0.75, "heldout/n": 4.0},
    {"step": 3, "loss": 1.25, "heldout/accuracy": 0.5, "heldout/n": 4.0},
    {"step": 3, "train_runtime": 8.0},
]
RECORD = {
    "settings": {
        "model": {"path": "some/model"},
        "agent": {"name": "score_sft", "method": "sft", "start": "bc20"},
        "settings": {"lr": 0.001},
    },
    "title": "A procedural world: not the paper's numbers.",
    "seed": 2,
    "start": "abc",
    "data": {"given": 1200, "rows": 1100},
    "commit": "f00",
}


def test_the_model_that_a_run_leaves_is_its_last_or_its_best():
    assert chosen(HISTORY, "last") == (3, 0.5)
    assert chosen(HISTORY, "best") == (2, 0.75)
    assert chosen(HISTORY[1:2], "last") == (1, None)


def test_a_card_says_what_it_takes_to_judge_a_model():
    card = model_card(RECORD, HISTORY, select="best", merged=True, digest="beef")
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "base_model": "some/model",
        "library_name": "transformers",
        "tags": ["score", "sft"],
    }
    assert "# score_sft, seed 2" in body
    assert "not the paper's numbers" in body
    assert "of update 2, the one that solved most held-out questions" in body
    assert "given 1,200, rows 1,100" in body
    assert all(f"`{word}`" in body for word in ("bc20", "abc", "f00", "beef"))
    assert "| loss | 2 (update 1) | 1.5 (update 2) | 1.25 (update 3) |" in body
    assert "is the highest of several" in body
    assert "75.0 % [30.1, 95.4], n 4 (update 2)" in body
    settings = body.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(settings) == RECORD["settings"]


def test_a_card_of_an_adapter_and_of_a_metric_that_was_not_taken_at_the_chosen_update():
    history = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}, {"step": 3, "reward": 0.5}]
    card = model_card(RECORD, history, select="last", merged=False, digest="beef")
    assert "library_name: peft" in card
    assert "A LoRA adapter of update 3, its last." in card
    assert "eld-out" not in card, "nothing was looked at"
    assert "| loss | 1 (update 1) | not logged | nan (update 2) |" in card
