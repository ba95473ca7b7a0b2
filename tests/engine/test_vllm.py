"""The real vLLM on CPU, started, asked and ended as a job does it. `make vllm-test` makes what it needs.

A random Llama of a few hundred thousand parameters, made here, stands in for a model; SCORE_TEST_MODEL names the folder
of a real one. The interpreter with vLLM is SCORE_VLLM_PYTHON or that of .serve.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest
import yaml

from score.agent.protocol import Message
from score.config.schema import Model, Sampling
from score.engine import open_engine, openai, shared, vllm
from score.engine.base import Request
from score.errors import InfrastructureError

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get(vllm.PYTHON_VARIABLE) or str(ROOT / ".serve/bin/python")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason=f"no vLLM at {PYTHON}; `make vllm-test` installs it"),
]

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def make_model(folder: Path) -> Path:
    """A Llama with random weights, heads of 64 (which vLLM's CPU attention wants), and a tokenizer of ASCII letters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = [*map(chr, range(33, 127)), "\u0120", "\u010a"]  # the last two stand for a space and an end of line
    letters = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, eos_token="<|end|>", pad_token="<|end|>", additional_special_tokens=SPECIALS
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None, pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True, initializer_range=0.05,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path) -> Path:
    """A LoRA adapter that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    settings = LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(folder)
    return folder


def descendants(pid: int) -> set[int]:
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread may have ended
            for child in map(int, path.read_text().split()):
                found |= {child, *descendants(child)}
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in status(pid)}


def status(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text()
    return "\nState:\tZ"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    given = os.environ.get("SCORE_TEST_MODEL")
    return Path(given) if given else make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def entry(folder, tmp_path_factory) -> Model:
    adapter = make_adapter(folder, tmp_path_factory.mktemp("adapter"))
    options = ["--enforce-eager", "--max-num-seqs", "16", "--block-size", "32"]
    # A random model would put white space between the words of a JSON object for ever.
    options += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    return Model(
        engine="vllm", path=str(folder), context=1024, dtype="bfloat16", batch=16, start_s=600, timeout_s=300,
        logprobs=True, adapters={"tuned": str(adapter)}, arguments=options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(entry, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    started: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(vllm.PYTHON_VARIABLE, PYTHON)
        patch.setenv("VLLM_CACHE_ROOT", str(work / "cache"))
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        # The last test kills it, which is an error at the end of the block.
        with contextlib.suppress(InfrastructureError), open_engine(entry, work / "server.log") as engine:
            process = engine._server.process.pid
            started |= {process, *descendants(process)}
            yield engine
    deadline = time.monotonic() + 20
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(started) > 1
    assert alive(started) == set()
    assert not Path(engine._server.socket).parent.exists()


def asked(text: str, seed: int = 0, schema: dict | None = None, **sampling) -> Request:
    settings = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 24, **sampling}
    return Request((Message("user", text),), Sampling(**settings), seed, schema)


def complete(engine, *requests: Request):
    async def go():
        async with engine:
            return await asyncio.gather(*map(engine.complete, requests))

    return asyncio.run(go())


@pytest.fixture(scope="module")
def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_the_command_and_the_version_are_known(engine, folder):
    served = engine.served
    assert served["version"].startswith("0.")
    assert served["command"][:5] == [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--uds", "SOCKET"]
    assert str(folder) in served["command"]


def test_a_seed_decides_the_reply_whatever_else_is_in_flight(engine):
    requests = [asked("Tell me something.", seed) for seed in range(4)]
    together = complete(engine, *requests)
    assert len({done.text for done in together}) > 1
    assert [complete(engine, request)[0].text for request in requests] == [done.text for done in together]


def test_ids_and_logprobs_are_those_of_the_text_without_the_end_of_the_turn(engine, tokenizer):
    done = complete(engine, *(asked("Go on.", seed, max_new_tokens=600) for seed in range(16)))
    assert {"stop", "length"} >= {one.finish for one in done}
    ended = [one for one in done if one.finish == "stop"]
    assert ended
    for one in done:
        assert tokenizer.decode(one.token_ids, skip_special_tokens=True) == one.text
        assert len(one.logprobs) == len(one.token_ids)
        assert all(value <= 0 for value in one.logprobs)
        assert one.completion_tokens == len(one.token_ids) + (one.finish == "stop")
    assert all(tokenizer.eos_token_id not in one.token_ids for one in ended)


def test_a_server_of_its_own_answers_whoever_has_its_key(entry, tmp_path, monkeypatch):
    """`score serve` with the model and with an adapter in its place."""
    monkeypatch.setenv(vllm.PYTHON_VARIABLE, PYTHON)
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    tuned = entry.model_copy(update={"adapter": "tuned"})
    with shared.shared(tuned, "0.0.0.0", 0, "secret", tmp_path / "log") as server:
        text = shared.overlay("teacher", tuned, server.url, "secret")
        there = Model(**yaml.safe_load(text)["models"]["teacher"])
        with open_engine(there, tmp_path / "unused") as remote:
            (done,) = complete(remote, asked("Tell me something."))
        assert done.token_ids
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        for way in ("/invocations", "/tokenize", "/pooling"):
            assert httpx.post(f"{server.url}{way}", json={"prompt": "x", "messages": []}).status_code == 404
        assert httpx.get(f"{server.url}/version").status_code == 200


def test_a_schema_is_kept(engine):
    schema = {
        "type": "object",
        "properties": {"step": {"type": "integer", "enum": [0, 1, 2]}, "sure": {"type": "boolean"}},
        "required": ["step", "sure"],
        "additionalProperties": False,
    }
    for done in complete(engine, *(asked("Which step?", seed, schema, max_new_tokens=64) for seed in range(4))):
        reply = json.loads(done.text)
        assert (set(reply), reply["step"] in (0, 1, 2), type(reply["sure"])) == ({"step", "sure"}, True, bool)
    assert engine._schemas


def test_a_conversation_that_was_seen_before_is_not_computed_again(engine):
    text = "The same beginning. " * 20
    complete(engine, asked(text))
    (again,) = complete(engine, asked(text, seed=1))
    assert 0 < again.cached_tokens <= again.prompt_tokens


def test_a_conversation_beyond_the_context_is_an_overflow_with_a_schema_too(engine):
    long, schema = "x " * 3000, {"type": "object"}
    assert [done.finish for done in complete(engine, asked(long), asked(long, schema=schema))] == ["context"] * 2
    (room,) = complete(engine, asked("Short.", max_new_tokens=5000))
    assert room.finish in ("stop", "length")


def test_an_adapter_answers_under_its_name(engine, entry):
    greedy = asked("Hello.", temperature=0.0)
    tuned = openai.connect(entry, vllm.name(entry.model_copy(update={"adapter": "tuned"})), server=engine._server)
    (plain,), (adapted,) = complete(engine, greedy), complete(tuned, greedy)
    assert plain.text != adapted.text


def test_a_trained_adapter_that_is_not_merged_answers_as_the_trained_model(engine, entry, tmp_path, monkeypatch):
    """With a server of its own, on the model that its folder names; it says what the adapter of the config says."""
    monkeypatch.setenv(vllm.PYTHON_VARIABLE, PYTHON)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    greedy = asked("Hello.", temperature=0.0)
    tuned = openai.connect(entry, vllm.name(entry.model_copy(update={"adapter": "tuned"})), server=engine._server)
    (plain,), (expected,) = complete(engine, greedy), complete(tuned, greedy)
    with open_engine(entry, tmp_path / "server.log", path=entry.adapters["tuned"]) as trained:
        (said,) = complete(trained, greedy)
    assert said.token_ids == expected.token_ids != plain.token_ids


def test_an_unknown_name_is_refused_and_named(engine, entry):
    stranger = openai.connect(entry, "stranger", server=engine._server)
    with pytest.raises(InfrastructureError, match="stranger"):
        complete(stranger, asked("Hello."))


def test_a_model_that_dies_in_the_middle_of_a_request_is_an_infrastructure_error(engine):
    """Last: it ends the server."""
    process = engine._server.process.pid

    async def ask_on(first: int) -> Exception:
        seeds = itertools.count(first)
        while True:
            try:
                await engine.complete(asked("Go on.", next(seeds), max_new_tokens=900))
            except Exception as error:
                return error

    async def go():
        async with engine:
            waiting = [asyncio.create_task(ask_on(first)) for first in range(0, 160_000, 10_000)]
            await asyncio.sleep(0.5)
            for pid in descendants(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return await asyncio.wait_for(asyncio.gather(*waiting), 120)

    assert {type(outcome) for outcome in asyncio.run(go())} == {InfrastructureError}
