"""The shipped base student: it copies what it reads, and it cannot do a single task."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from score.agent.protocol import parse_plan
from score.micro.base import WEIGHTS, batches, pretrain, save
from score.micro.documents import COPYING, EVERYTHING, document
from score.micro.language import VOCABULARY, make_tokenizer
from score.micro.tasks import all_tasks
from score.micro.world import NAMES, RELATIONS


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32), AutoTokenizer.from_pretrained(WEIGHTS)


def continuations(base, prompts: list[str], new_tokens: int) -> list[str]:
    model, tokenizer = base
    batch = tokenizer(prompts, padding=True, return_tensors="pt", return_token_type_ids=False)
    out = model.generate(**batch, max_new_tokens=new_tokens, do_sample=False)[:, batch["input_ids"].shape[1] :]
    return tokenizer.batch_decode(out, skip_special_tokens=True)


def accuracy(base, cases: list[tuple[str, str]]) -> float:
    tokens = max(len(base[1].encode(wanted)) for _, wanted in cases)
    got = continuations(base, [prompt for prompt, _ in cases], tokens)
    return sum(text.startswith(wanted) for text, (_, wanted) in zip(got, cases, strict=True)) / len(cases)


def test_the_weights_are_small_loadable_and_fit_the_language(base):
    model, tokenizer = base
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 1_500_000
    assert 200_000 < model.num_parameters() < 1_000_000
    assert model.dtype == torch.float32
    assert model.config.tie_word_embeddings
    assert tokenizer.get_vocab() == {token: i for i, token in enumerate(VOCABULARY)}
    assert tokenizer.chat_template == make_tokenizer().chat_template
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_base_reads_a_page_and_copies_a_list(base):
    """Chance is about 1 in 100; 1.0 and 0.94 when the weights were made."""
    rng = random.Random(5)
    pages, lists = [], []
    for _ in range(60):
        name, value, relation = rng.choice(NAMES), rng.choice(NAMES), rng.choice(list(RELATIONS))
        page = f"Page: 0\nTitle: {name}\nSnippet: {name}'s {relation} is {value}."
        pages.append((f"{page}\nWhat is {name}'s {relation}? ", value))
        items = rng.sample(NAMES, 8)
        text, shown = ", ".join(items), rng.randint(2, 7)
        lists.append((f"<|user|>{text}<|end|><|assistant|>{', '.join(items[:shown])}, ", items[shown]))
    assert accuracy(base, pages) > 0.9
    assert accuracy(base, lists) > 0.7


def test_the_base_knows_how_a_console_goes_on(base):
    """An assigned number is printed back: chance is 1 in 90."""
    rng = random.Random(6)
    cases = [(f"{n} = {v}\nprint({n})\n", v) for n in rng.sample(NAMES, 60) for v in [str(rng.randint(10, 99))]]
    assert accuracy(base, cases) > 0.7


def test_the_base_cannot_even_plan(base):
    prompts = [f"<|user|>{task.question}<|end|><|assistant|>" for task in all_tasks("train", 5)]
    assert not any(parse_plan(text) for text in continuations(base, prompts, 12))


def test_documents_hold_no_task_and_no_unknown_token():
    tokenizer, rng = make_tokenizer(), random.Random(0)
    for kinds in (COPYING, EVERYTHING):
        for _ in range(300):
            text = document(rng, kinds)
            assert not any(
                mark in text for mark in ("How many", "larger", "Plan:", "Find ", "final_answer", "<thought>")
            )
            assert text.endswith("<|end|>")
            assert tokenizer.unk_token_id not in tokenizer.encode(text)


def test_pretraining_gives_what_the_weights_folder_holds_and_repeats(tmp_path):
    for run in ("a", "b"):
        save(*pretrain(steps=4, seed=1), tmp_path / run)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == sorted(f.name for f in WEIGHTS.iterdir())
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (WEIGHTS / "tokenizer.json").read_bytes()


def test_batches_are_as_many_as_asked_for_and_alike_in_length():
    made = list(batches(make_tokenizer(), random.Random(0), 11))
    assert len(made) == 11
    assert {len(rows) for rows in made} == {32}
    real, padded = sum(len(r) for rows in made for r in rows), sum(32 * max(map(len, rows)) for rows in made)
    assert real / padded > 0.8
