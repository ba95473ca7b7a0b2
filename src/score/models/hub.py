"""A model of the hub in the local cache (HF_HOME), so that jobs on compute nodes load it without a network.

    python -m score.models.hub --name ORG/NAME [--revision REV] --out models/hub/ORG/NAME/REV.json

What is written is the record of the download: the commit that the revision meant, and the folder. Gated models need the
user's HF_TOKEN. Of an interrupted download the finished files are kept.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from score import cli
from score.errors import InfrastructureError, ScoreError
from score.jsonl import write_json

WANTED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "LICENSE*")
"""Weights, tokenizer and config; not the same weights once more in other formats."""


def download(name: str, revision: str = "main") -> dict[str, str]:
    """Fetches a model into the cache; returns its name, revision, commit and folder.

    Raises `ScoreError` for a name or revision that the hub does not give to this user, `InfrastructureError` if the hub
    cannot be reached.
    """
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
        folder = snapshot_download(name, revision=revision, allow_patterns=list(WANTED))
    except GatedRepoError:
        raise ScoreError(f"{name}: a gated model; accept its terms on its page and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise ScoreError(f"{name}: the hub has no revision {revision!r} of it") from None
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
    if not any(Path(folder).glob("*.safetensors")):
        raise ScoreError(f"{name}: no weights as safetensors among its files")
    return {"name": name, "revision": revision, "commit": Path(folder).name, "folder": folder}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--revision", default="main")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ScoreError("HF_HUB_OFFLINE=1 forbids downloads; this runs on a node with a network, without it")
    write_json(args.out, download(args.name, args.revision))


if __name__ == "__main__":
    cli.run(main)
