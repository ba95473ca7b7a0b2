"""A model of the hub in the local cache (HF_HOME), so that jobs on compute nodes load it without a network.

    python -m score.models.hub --name ORG/NAME [--revision REV] --out models/hub/ORG/NAME/REV.json
    python -m score.models.hub --check models/hub/ORG/NAME/REV.json

What is written is the record of the download: the commit that the revision meant, the folder, and of every file the
size and the checksum that the hub names, which it has here, too. What the cache holds already is checked, not fetched
again. Gated models need the user's HF_TOKEN. Of an interrupted download the finished files are kept. `--check` reads
all files of a record once more.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score import cli
from score.errors import InfrastructureError, ScoreError
from score.jsonl import write_json
from score.models import access
from score.models.folder import changed, differs

log = logging.getLogger("hub")

WANTED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "LICENSE*")
"""Weights, tokenizer and config; not the same weights once more in other formats."""

_KINDS = {64: "sha256", 40: "git-sha1"}  # length of a checksum in hexadecimal digits -> its kind


def download(name: str, revision: str = "main") -> dict[str, Any]:
    """Fetches a model into the cache and checks it; returns its name, revision, commit, folder and files.

    Raises `ScoreError` for a name or revision that the hub does not give to this user, `InfrastructureError` if the hub
    cannot be reached, or sends other files than it says.
    """
    folder = _fetch(name, revision)
    if not any(folder.glob("*.safetensors")):
        raise ScoreError(f"{name}: no weights as safetensors among its files")
    files = _told(name, folder)
    if wrong := _wrong(folder, files):
        log.warning("%s: fetched again, as they are not what the hub says: %s", name, ", ".join(wrong))
        for file in wrong:  # in the cache it is a link to the file itself
            (folder / file).resolve().unlink(missing_ok=True)
            (folder / file).unlink(missing_ok=True)
        _fetch(name, revision)
        for file, why in _wrong(folder, {file: files[file] for file in wrong}).items():
            raise InfrastructureError(
                f"{name}: {folder / file} {why}, though fetched twice; the network or disk is bad"
            )
    return {"name": name, "revision": revision, "commit": folder.name, "folder": str(folder), "files": files}


def _fetch(name: str, revision: str) -> Path:
    """The folder of a model in the cache, fetched as far as it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    unknown = f"{name}: the hub has no such model, or it is private and HF_TOKEN is not set or not valid"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(WANTED)))
    except GatedRepoError:
        raise ScoreError(access.gated(name)) from None
    except RevisionNotFoundError:
        mend = "correct `revision` of its entry in the config's models"
        raise ScoreError(f"{name}: the hub has no revision {revision!r} of it; {mend}") from None
    except RepositoryNotFoundError:
        raise ScoreError(unknown) from None
    except HFValidationError:
        raise ScoreError(f"{name}: no name of a model on the hub; they are ORG/NAME") from None
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk, not the hub
            raise
        if getattr(getattr(error, "response", None), "status_code", None) == 401:
            raise ScoreError(unknown) from None
        raise InfrastructureError(f"{name}: the hub did not answer ({' '.join(str(error).split())[:200]})") from None


def _told(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of each wanted file, as the hub says; if it does not answer, as the cache calls its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.hf_api import RepoFile

    try:
        listed = list(HfApi().list_repo_tree(name, recursive=True, revision=folder.name))
    except (HTTPError, OSError) as error:
        log.warning("%s: the hub lists no checksums (%s); those of the cache are taken", name, type(error).__name__)
        return _remembered(folder)
    files = [file for file in listed if isinstance(file, RepoFile) and _wanted(file.path)]
    checksums = [{"sha256": file.lfs.sha256} if file.lfs else {"git-sha1": file.blob_id} for file in files]
    return {file.path: {"size": file.size, **checksum} for file, checksum in zip(files, checksums, strict=True)}


def _remembered(folder: Path) -> dict[str, dict[str, Any]]:
    """The cache calls each file what its checksum was in the hub's word, and links to it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        checksum = path.resolve().name
        if path.is_file() and path.is_symlink() and len(checksum) in _KINDS:
            found[str(path.relative_to(folder))] = {"size": path.stat().st_size, _KINDS[len(checksum)]: checksum}
    return found


def _wanted(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in WANTED)


def _wrong(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Of files that are not what they should be: how each differs."""
    return {name: why for name, told in files.items() if (why := differs(folder / name, told))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name")
    parser.add_argument("--revision", default="main")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=Path, metavar="RECORD", help="read a downloaded model's files; fetch nothing")
    args = parser.parse_args(argv)
    if args.check:
        if why := changed(args.check, whole=True):
            raise ScoreError(why)
        return
    if not (args.name and args.out):
        parser.error("give --name and --out, or --check")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ScoreError("HF_HUB_OFFLINE=1 forbids downloads; this runs on a node with a network, without it")
    write_json(args.out, download(args.name, args.revision))


if __name__ == "__main__":
    cli.run(main)
