"""A model's folder: is all of it there, which commit is it, is it still what was downloaded? Nothing is loaded for it.

A shard that was cut short is told by its own header, which says how long the file is.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score.errors import ScoreError

COMMIT = re.compile(r"[0-9a-f]{40}")
_INDEXES = {"*.safetensors": "model.safetensors.index.json", "*.bin": "pytorch_model.bin.index.json"}
_TOKENIZERS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "*.tiktoken", "tekken.json")
_BESIDE = ("training_args*", "optimizer*", "scheduler*")  # files of a training run that are no weights
_POINTER = b"version https://git-lfs"  # what git leaves where it was not told to fetch large files
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)")
_SMALL = 2**25  # files up to this size are read by `differs` even where not all are


def weights(folder: Path) -> list[Path]:
    """Files of weights; of links those that lead somewhere."""
    found = [file for kind in _INDEXES for file in folder.glob(kind) if file.exists()]
    return sorted(file for file in found if not any(file.match(name) for name in _BESIDE))


def fault(folder: Path, config: str = "config.json") -> str:
    """Why a model cannot be loaded from a folder, and the mend; "" if nothing is seen that speaks against it.

    Args:
        config: the file that says what it is; of a LoRA adapter adapter_config.json, which needs no tokenizer.
    """
    try:
        return _fault(folder, config)
    except OSError as error:
        return (
            f"{error.filename or folder}: cannot be read ({error.strerror}); copy the whole model, or mend its rights"
        )


def _fault(folder: Path, config: str) -> str:
    """Raises `OSError` for what cannot be read."""
    if not folder.is_dir():
        return f"{folder}: no such folder; correct its path in the config's models"
    found = weights(folder)
    if not found:
        return f"{folder}: holds no weights (*.safetensors, *.bin); copy the whole model there"
    if not _is_object(folder / config):
        return f"{folder}: {config} is torn; copy it there again"
    for file in found:
        with open(file, "rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                return f"{file}: a pointer of git, not the weights; run `git lfs pull` there"
    if lost := _shards_missing(folder):
        return f"{folder}: lacks {_some(lost)}; copy the whole model there"
    if torn := [file.name for file in found if file.suffix == ".safetensors" and _is_torn(file)]:
        return f"{folder}: {_some(torn)} is torn; copy it there again"
    if config == "config.json" and not any(any(folder.glob(kind)) for kind in _TOKENIZERS):
        return f"{folder}: holds no tokenizer ({', '.join(_TOKENIZERS)}); copy the whole model there"
    return ""


def _is_object(file: Path) -> bool:
    """Is it a JSON object?"""
    try:
        return isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except ValueError:
        return False


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _shards_missing(folder: Path) -> list[str]:
    """Files that the index names, or the numbers in the files' own names; the index itself where it is missing."""
    kinds = (kind for kind, name in _INDEXES.items() if any(folder.glob(kind)) or (folder / name).is_file())
    index, there = folder / _INDEXES[next(kinds)], {file.name for file in weights(folder)}
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
    folder = folder.resolve()
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


@dataclass(frozen=True)
class Record:
    """A download, as `score.models.hub` wrote it down: where it was put, and of each file size and checksum."""

    file: Path
    folder: Path
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, file: Path) -> Record:
        """Raises `ScoreError` if it cannot be read."""
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            return cls(file, Path(told["folder"]), dict(told.get("files", {})))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise ScoreError(f"{file}: no record of a download; {again(file)}") from None

    @property
    def commit(self) -> str:
        return self.folder.name

    def changed(self, folder: Path | None = None, *, whole: bool = False) -> str:
        """How the model is no longer what it was, and the mend; "" if it is, or no files are recorded.

        Args:
            folder: where it is now; None: where it was then.
            whole: as in `differs`.
        """
        folder = folder or self.folder
        for name, about in self.files.items():
            if why := differs(folder / name, about, whole=whole):
                return f"{folder / name} {why}; {again(self.file)}"
        return ""


def again(record: Path) -> str:
    """How a download is mended. Made with everything else, a record would have all that used the model made again."""
    return f"remove {record} and run snakemake for that file alone"
