"""A model's folder: is all of it there, which commit is it, is it still what was downloaded? Nothing is loaded for it.

A shard that was cut short is told by its own header, which says how long the file is.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score.errors import ScoreError

COMMIT = re.compile(r"[0-9a-f]{40}")
_INDEXES = {"*.safetensors": "model.safetensors.index.json", "*.bin": "pytorch_model.bin.index.json"}
_TOKENIZERS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "*.tiktoken")
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)")
_SMALL = 2**25  # files up to this size are read by `changed` even where not all are


def weights(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])


def fault(folder: Path, config: str = "config.json") -> str:
    """Why a model cannot be loaded from a folder, and the mend; "" if nothing is seen that speaks against it.

    Args:
        config: the file that says what it is; of a LoRA adapter adapter_config.json, which needs no tokenizer.
    """
    if not folder.is_dir():
        return f"{folder}: no such folder; correct its path in the config's models"
    found = weights(folder)
    if not found:
        return f"{folder}: holds no weights (*.safetensors, *.bin); copy the whole model there"
    for file in (folder / config, *found):
        try:
            with open(file, "rb") as opened:
                opened.read(1)
        except OSError as error:
            return f"{file}: cannot be read ({error.strerror}); copy the whole model, or mend its rights"
    if lost := _shards_missing(folder):
        return f"{folder}: lacks {_some(lost)}; copy the whole model there"
    if torn := [file.name for file in found if file.suffix == ".safetensors" and _is_torn(file)]:
        return f"{folder}: {_some(torn)} is torn; copy it there again"
    if config == "config.json" and not any(any(folder.glob(kind)) for kind in _TOKENIZERS):
        return f"{folder}: holds no tokenizer ({', '.join(_TOKENIZERS)}); copy the whole model there"
    return ""


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _shards_missing(folder: Path) -> list[str]:
    """Files that the index names, or the numbers in the files' own names; the index itself where it is missing."""
    kind = "*.safetensors" if any(folder.glob("*.safetensors")) else "*.bin"
    index, there = folder / _INDEXES[kind], {file.name for file in folder.glob(kind)}
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError):
            return [f"{index.name} that can be read"]
        return sorted(named - there)
    numbered = [match for name in there if (match := _SHARD.fullmatch(name))]
    if not numbered:
        return []
    stem, first, last, kind = numbered[0].groups()
    every = {f"{stem}-{number:0{len(first)}}-of-{last}{kind}" for number in range(1, int(last) + 1)}
    return [*sorted(every - there), index.name]


def _is_torn(file: Path) -> bool:
    """A safetensors file is eight bytes, a header of that length, and the tensors that it describes."""
    size = file.stat().st_size
    try:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length)) if length < size else None
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        return True
    return size != 8 + length + max(ends, default=0)


def commit_of(folder: Path) -> str | None:
    """The hub's commit that a folder was downloaded as: into the cache, or by `hf download --local-dir`."""
    if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
        return folder.name
    try:
        told = (folder / ".cache/huggingface/download/config.json.metadata").read_text(encoding="utf-8")
    except OSError:
        return None
    first = told.partition("\n")[0].strip()
    return first if COMMIT.fullmatch(first) else None


def cached(name: str, home: Path, revision: str | None = None) -> list[Path]:
    """Snapshots of a hub model in the cache (HF_HOME) that hold weights.

    Args:
        revision: only the one that this means there; None: any.
    """
    kept = home / "hub" / f"models--{name.replace('/', '--')}"
    wanted = "*"
    if revision is not None and not COMMIT.fullmatch(wanted := revision):
        ref = kept / "refs" / revision
        wanted = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
    return [folder for folder in kept.glob(f"snapshots/{wanted}") if wanted and weights(folder)]


def digest(file: Path, kind: str) -> str:
    """A file's "sha256", as the hub names large files, or "git-sha1", as it names small ones."""
    with open(file, "rb") as opened:
        if kind == "sha256":
            return hashlib.file_digest(opened, "sha256").hexdigest()
        total = hashlib.sha1(f"blob {file.stat().st_size}\0".encode())
        for part in iter(lambda: opened.read(2**20), b""):
            total.update(part)
        return total.hexdigest()


def differs(file: Path, told: Mapping[str, Any], *, whole: bool = True) -> str:
    """How a file is another than it is told to be: {"size", and "sha256" or "git-sha1"}; "" if it is that one.

    Args:
        whole: read it however large it is; else of a large file only the size is looked at.
    """
    if not file.is_file():
        return "is missing"
    if (size := file.stat().st_size) != told["size"]:
        return f"has {size} bytes, not {told['size']}"
    kind = next(key for key in told if key != "size")
    if (whole or size <= _SMALL) and (found := digest(file, kind)) != told[kind]:
        return f"has the {kind} {found[:12]}…, not {told[kind][:12]}…"
    return ""


def changed(record: Path, *, whole: bool = False) -> str:
    """How a downloaded model is no longer what its record says, and the mend; "" if it is, or nothing is recorded.

    Args:
        record: the file that `score.models.hub` wrote.
        whole: as in `differs`.
    Raises:
        ScoreError: the record cannot be read.
    """
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        folder, files = Path(told["folder"]), told.get("files", {})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ScoreError(
            f"{record}: no record of a download; remove it, and a rule downloads the model again"
        ) from None
    for name, about in files.items():
        if why := differs(folder / name, about, whole=whole):
            return f"{folder / name} {why}; remove {record}, and a rule mends it"
    return ""
