import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # tests never assert wall time
settings.load_profile("any machine")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell leaves what it starts in the background, and what that starts would not hear INT either.
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _no_job_of_a_workflow(monkeypatch):
    """A command line that a test calls in this process does not watch for the end of the shell around it."""
    monkeypatch.setattr("score.watch.end_with_the_workflow", lambda: None)


@pytest.fixture
def random_student():
    """(model, codec): the micro student's shape and tokenizer, small, with random weights."""
    import torch
    from transformers import LlamaForCausalLM

    from score.engine.codec import ChatCodec
    from score.micro.language import make_tokenizer, model_config

    torch.manual_seed(0)
    model = LlamaForCausalLM(model_config(hidden=32, layers=2, heads=2, intermediate=64))
    return model, ChatCodec(make_tokenizer())
