"""A model of the hub in the local cache (HF_HOME), so that jobs on compute nodes load it without a network.

    python -m score.models.hub --name ORG/NAME [--revision REV] --out models/hub/ORG/NAME/REV.json
    python -m score.models.hub --check models/hub/ORG/NAME/REV.json
    python -m score.models.hub --name ORG/NAME --revision REV --folder FOLDER

What is written is the record of the download: the commit that the revision meant, the folder, and of every file the
size and the checksum that the hub names, which it has here, too. What the cache holds already is checked, not fetched
again. Gated models need the user's HF_TOKEN. Of an interrupted download the finished files are kept. `--check` reads
all files of a record once more; `--folder` compares a folder of the user's own with the hub.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from score import cli
from score.errors import InfrastructureError, ScoreError
from score.jsonl import write_json
from score.models import access
from score.models.folder import Record, differs, fault

log = logging.getLogger("hub")

_WEIGHTS = "*.safetensors"
_OTHERS = ("*.json", "*.model", "*.tiktoken", "*.txt", "*.jinja", "LICENSE*")
WANTED = (_WEIGHTS, *_OTHERS)
"""Weights, tokenizer and config; not the same weights once more in other formats."""

_OWN = "make a folder of it that can be loaded, and name that as the entry's `path`"
_KINDS = {64: "sha256", 40: "git-sha1"}  # length of a checksum in hexadecimal digits -> its kind


def download(name: str, revision: str = "main") -> dict[str, Any]:
    """Fetches a model into the cache and checks it; returns its name, revision, commit, folder and files.

    Raises `ScoreError` for a name or revision that the hub does not give to this user, `InfrastructureError` if the hub
    cannot be reached, or sends other files than it says.
    """
    folder = _fetch(name, revision)
    if not any(folder.glob(_WEIGHTS)):
        raise ScoreError(f"{name}: no weights as safetensors among its files; {_OWN}")
    files, is_from_hub = _told(name, folder)
    if wrong := _wrong(folder, files):
        if not is_from_hub:
            file, why = next(iter(wrong.items()))
            raise InfrastructureError(f"{name}: {folder / file} {why}, and the hub does not answer to send it again")
        log.warning("%s: fetched again, as they are not what the hub says: %s", name, ", ".join(wrong))
        _fetch_anew(name, folder, wrong)
        for file, why in _wrong(folder, {file: files[file] for file in wrong}).items():
            raise InfrastructureError(
                f"{name}: {folder / file} {why}, though fetched twice; the network or disk is bad"
            )
    if why := fault(folder):
        raise ScoreError(f"{name}: {why.rpartition('; ')[0]}; {_OWN}")
    return {"name": name, "revision": revision, "commit": folder.name, "folder": str(folder), "files": files}


def verify(name: str, revision: str, folder: Path) -> None:
    """Compares a folder that somebody else has filled with what the hub says; raises as `download` does, and
    `ScoreError` for the first file that is missing or another one, or if the hub has no such weights."""
    from huggingface_hub import HfApi

    kind = "*.bin" if any(folder.glob("*.bin")) and not any(folder.glob(_WEIGHTS)) else _WEIGHTS
    with _refusals(name, revision):
        listed = HfApi().list_repo_tree(name, recursive=True, revision=revision)
        files = _checksums(listed, (kind, *_OTHERS))
    if not any(fnmatch.fnmatchcase(file, kind) for file in files):
        raise ScoreError(f"{folder}: {name} at {revision} has no weights as {kind} to compare its own with")
    for file, why in _wrong(folder, files).items():
        raise ScoreError(f"{folder / file} {why} as in {name} at {revision}; copy it there again")


def _fetch(name: str, revision: str) -> Path:
    """The folder of a model in the cache, fetched as far as it is not there."""
    from huggingface_hub import snapshot_download

    with _refusals(name, revision):
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(WANTED)))


def _fetch_anew(name: str, folder: Path, files: Iterable[str]) -> None:
    """Replaces files of the cache. What they link to is the hub library's to replace: other models may share it."""
    from huggingface_hub import hf_hub_download

    with _refusals(name, folder.name):
        for file in files:
            hf_hub_download(name, file, revision=folder.name, force_download=True)


@contextlib.contextmanager
def _refusals(name: str, revision: str) -> Iterator[None]:
    """Makes one line of what the hub refuses."""
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
        yield
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
    except RuntimeError as error:  # how the hub's transfer library tells a lost connection
        raise InfrastructureError(f"{name}: the download failed ({' '.join(str(error).split())[:200]})") from None


def _told(name: str, folder: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """Size and checksum of each wanted file, and whether the hub itself says so; else the cache's names say it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        return _checksums(HfApi().list_repo_tree(name, recursive=True, revision=folder.name), WANTED), True
    except (HTTPError, OSError) as error:
        log.warning("%s: the hub lists no checksums (%s); those of the cache are taken", name, type(error).__name__)
        return _remembered(folder), False


def _checksums(listed: Iterable[Any], patterns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of the files in the hub's listing of a commit that have such names."""
    named = [file for file in listed if hasattr(file, "blob_id")]  # not a folder
    files = [file for file in named if any(fnmatch.fnmatchcase(file.path, pattern) for pattern in patterns)]
    kinds = [{"sha256": file.lfs.sha256} if file.lfs else {"git-sha1": file.blob_id} for file in files]
    return {file.path: {"size": file.size, **kind} for file, kind in zip(files, kinds, strict=True)}


def _remembered(folder: Path) -> dict[str, dict[str, Any]]:
    """The cache calls each file what its checksum was in the hub's word, and links to it (by that name, which may in
    turn be a link into a store of another naming)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        checksum = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
        if path.is_file() and len(checksum) in _KINDS:
            found[str(path.relative_to(folder))] = {"size": path.stat().st_size, _KINDS[len(checksum)]: checksum}
    return found


def _wrong(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Of files that are not what they should be: how each differs."""
    return {name: why for name, told in files.items() if (why := differs(folder / name, told))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name")
    parser.add_argument("--revision", default="main")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=Path, metavar="RECORD", help="read a downloaded model's files; fetch nothing")
    parser.add_argument("--folder", type=Path, help="compare its files with the hub's; fetch nothing")
    args = parser.parse_args(argv)
    if args.check:
        if why := Record.read(args.check).changed(whole=True):
            raise ScoreError(why)
        return
    if not (args.name and (args.out or args.folder)):
        parser.error("give --name and --out, --name and --folder, or --check")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ScoreError("HF_HUB_OFFLINE=1 forbids downloads; this runs on a node with a network, without it")
    if args.folder:
        verify(args.name, args.revision, args.folder)
    else:
        write_json(args.out, download(args.name, args.revision))


if __name__ == "__main__":
    cli.run(main)
