"""vLLM's command line is a function of the config entry alone."""

import pytest

from score.config.schema import Model
from score.engine import vllm


def words(trained: bool = False, **entry) -> str:
    model = Model(engine="vllm", path="org/model", **entry)
    return " ".join(vllm.command(model, "org/model", "/run/socket", trained=trained))


def test_it_listens_on_the_socket_with_the_models_context_and_nobodys_sampling_defaults(monkeypatch):
    monkeypatch.setenv("SCORE_VLLM_PYTHON", "/opt/vllm/bin/python")
    line = words(context=4096, dtype="bfloat16")
    assert line.startswith("/opt/vllm/bin/python -m vllm.entrypoints.openai.api_server --uds /run/socket ")
    assert "--model org/model --served-model-name model --max-model-len 4096 --dtype bfloat16" in line
    assert "--generation-config vllm" in line
    assert "--port" not in line


@pytest.mark.parametrize(
    ("entry", "option"),
    [
        ({"gpus": 4}, "--tensor-parallel-size 4"),
        ({"memory_fraction": 0.8}, "--gpu-memory-utilization 0.8"),
        ({"revision": "abc"}, "--revision abc --tokenizer-revision abc"),
        ({"adapters": {"a": "/l/a", "b": "/l/b"}}, "--enable-lora --lora-modules a=/l/a b=/l/b"),
        ({"arguments": ["--max-lora-rank", "64"]}, "--max-lora-rank 64"),
        ({"prefix_caching": False}, "--no-enable-prefix-caching"),
    ],
)
def test_an_option_of_the_config_is_an_option_of_the_command(entry, option):
    assert option in words(**entry)
    assert option.split()[0] not in words().replace("--enable-prefix-caching", "").split()


def test_one_gpu_or_none_is_no_tensor_parallelism():
    assert "--tensor-parallel-size" not in words(gpus=1) + words(gpus=0)


def test_a_trained_model_has_no_revision_and_no_adapters():
    line = words(trained=True, revision="abc", adapters={"a": "/l/a"}, adapter="a")
    assert "abc" not in line
    assert "lora" not in line
    entry = Model(engine="vllm", path="m", adapters={"a": "/l/a"}, adapter="a")
    assert (vllm.name(entry), vllm.name(entry, trained=True)) == ("a", "model")
