"""The images that rules run in: built from pinned files, known by their recipe, checked before anything is queued.

    python -m score.cluster.images build core train serve --variant cpu
    python -m score.cluster.images check --variant cpu
    python -m score.cluster.images recipe serve

An image is told by the digest of its recipe: definition file, lock files and base. It stands in the image's labels and
in the params of the rules that use it, so a changed recipe builds anew and re-runs what used it, and nothing else does.
The file itself is told by its sha256, which goes into the provenance. Builds run as an ordinary user with --fakeroot.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from score import cli
from score.cluster import apptainer, packages
from score.errors import ScoreError
from score.jsonl import write_text
from score.provenance import git_commit
from score.records import content_key

log = logging.getLogger("images")

Variant = Literal["cuda", "cpu"]
IMAGES = ("core", "train", "serve")
_ROOT = Path(__file__).parents[3]
_COMPILER = "g++ python3-dev libnuma1"  # vLLM compiles at run time, on a CPU too (log-probabilities)
_SQUASH = "-comp zstd -Xcompression-level 3"  # unpacks far faster than the default; every import of a job waits for it
_SCRIPTS = ("containers/install.sh", "containers/check.sh", "envs/install.sh")
_CUDA = "nvidia/cuda:13.0.2-devel-ubuntu24.04"  # a tag: pinned as far as whoever publishes it leaves it in place


@dataclass(frozen=True)
class Recipe:
    """What an image is made of, besides its definition file. With localimage, `origin` is the name of another image."""

    agent: Literal["docker", "debootstrap", "localimage"]
    origin: str
    locks: tuple[str, ...]
    packages: str = ""


_RECIPES: dict[tuple[str, Variant], Recipe] = {
    ("core", "cuda"): Recipe("docker", "ubuntu:24.04", ("core.lock",)),
    ("train", "cuda"): Recipe("docker", _CUDA, ("train-cuda.lock",), _COMPILER),
    ("serve", "cuda"): Recipe("docker", _CUDA, ("serve-cuda.lock",), _COMPILER),
    ("core", "cpu"): Recipe("debootstrap", "none", ("core.lock",)),
    ("train", "cpu"): Recipe("localimage", "core", ("core.lock", "train.lock")),
    ("serve", "cpu"): Recipe("localimage", "core", ("serve.lock",), _COMPILER),
}


def image_path(name: str) -> Path:
    """Where an image lies; the rules name it so."""
    return _ROOT / "containers" / f"{name}.sif"


def recipe(name: str, variant: Variant) -> str:
    """Digest of everything that decides what is in an image. Comments do not count."""
    made_of = _recipe(name, variant)
    origin = recipe(made_of.origin, variant) if made_of.agent == "localimage" else made_of.origin
    texts = [_bare(_ROOT / file) for file in (f"containers/{name}.def", *_SCRIPTS)]
    arguments = (variant, made_of.agent, origin, made_of.locks, made_of.packages)
    return content_key(arguments, texts, locks_digest(name, variant))


def locks_digest(name: str, variant: Variant) -> str:
    """Digest of the locks whose packages are in an image."""
    either = ("torch-cpu.lock", "torch-cuda.lock") if variant == "cpu" and name != "core" else ()
    files = (*_recipe(name, variant).locks, *either, "sandbox.lock")
    return content_key([_bare(_ROOT / "envs" / file) for file in files])


def _recipe(name: str, variant: Variant) -> Recipe:
    if (name, variant) not in _RECIPES:
        raise ScoreError(f"there is no image {name!r} ({variant}); there are {', '.join(IMAGES)}, each cuda or cpu")
    return _RECIPES[name, variant]


def _bare(path: Path) -> list[str]:
    """A file's lines without comments and blank lines."""
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def check(path: Path, name: str, variant: Variant) -> str | None:
    """One line that says what is wrong with an image and how to mend it; None if nothing is."""
    mend = f"`make -C containers {name} VARIANT={variant}` builds it"
    if not path.is_file():
        return f"{path}: there is no such image; {mend}"
    if not os.access(path, os.R_OK):
        return f"{path}: it cannot be read; ask its owner, or {mend}"
    try:
        found = apptainer.labels(path)
    except ScoreError as error:
        return str(error)
    if (found.get("image"), found.get("variant")) != (name, variant):
        return f"{path}: it is not the {variant} variant of {name}; {mend}"
    if found.get("recipe") != recipe(name, variant):
        return f"{path}: it was built from other files; {mend}"
    return None


def sha256(path: Path) -> str:
    """sha256 of an image. Kept beside it with its size and time of change, and taken again when these differ."""
    kept = path.with_name(f"{path.name}.sha256")
    stat = path.stat()
    at = f"{stat.st_size} {stat.st_mtime_ns}"
    with contextlib.suppress(OSError, ValueError):
        digest, when = kept.read_text(encoding="utf-8").strip().split(" ", 1)
        if when == at:
            return digest
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # an image may lie where only its owner writes
        write_text(kept, f"{digest} {at}\n")
    return digest


def build(
    name: str, variant: Variant, *, force: bool = False, mirror: str | None = None, pip: dict[str, str] | None = None
) -> None:
    """Builds an image, and the one it is a layer on, unless it is there already.

    Args:
        mirror: of Debian, for a CPU variant; this machine's own by default.
        pip: settings in place of those of this machine's pip.
    """
    path, made_of = image_path(name), _recipe(name, variant)
    if not force and path.exists() and check(path, name, variant) is None:
        log.info("%s is up to date (recipe %s)", path.name, recipe(name, variant))
        sha256(path)  # of one that was copied here: jobs need not read all of it
        return
    if made_of.agent == "localimage":
        build(made_of.origin, variant, mirror=mirror, pip=pip)
    apptainer.program()
    started, user = time.monotonic(), apptainer.builder()
    log.info("building %s (%s) as %s", path.name, variant, user.pw_name)
    scratch = os.environ.get("APPTAINER_TMPDIR") or tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="score-image-", dir=scratch, ignore_cleanup_errors=True) as folder:
        stage = Path(folder)
        if variant == "cpu":
            mirror = mirror or packages.debian_mirror()
        options = _lay_out(stage, name, variant, mirror, packages.pip_settings() if pip is None else pip)
        if not apptainer.build(stage, Path("containers", f"{name}.def"), path.name, options, user):
            raise ScoreError(f"{path.name}: the build failed; Apptainer's own words are above")
        # By rename: jobs may have the old one mounted, and a torn copy must not bear the name.
        partial = path.with_name(f".{path.name}.partial")
        shutil.move(stage / path.name, partial)
        os.chown(partial, os.geteuid(), os.getegid())
        partial.replace(path)
    sha256(path)
    log.info("%s: %.0f MB in %.0f s", path.name, path.stat().st_size / 1e6, time.monotonic() - started)


def _lay_out(stage: Path, name: str, variant: Variant, mirror: str | None, pip: dict[str, str]) -> list[str]:
    """Copies what a build reads into its folder, which its user can read; returns the build's options."""
    made_of = _recipe(name, variant)
    for part in ("containers", "envs"):
        wanted = [p for p in (_ROOT / part).iterdir() if p.suffix in (".def", ".sh", ".lock")]
        (stage / part).mkdir()
        for file in wanted:
            shutil.copy(file, stage / part)
    origin = made_of.origin
    if made_of.agent == "localimage":
        shutil.copy(image_path(origin), stage / f"{origin}.sif")
        origin = str(stage / f"{origin}.sif")
    arguments = {
        "agent": made_of.agent,
        "from": origin,
        "mirror": mirror or "none",
        "packages": made_of.packages,
        "locks": " ".join(made_of.locks),
        "variant": variant,
        "commit": git_commit() or "unknown",
        "digest": locks_digest(name, variant),
        "recipe": recipe(name, variant),
    }
    text = (stage / "containers" / f"{name}.def").read_text(encoding="utf-8")
    known = {key: value for key, value in arguments.items() if f"{{{{ {key} }}}}" in text}
    (stage / "site").mkdir()
    binds = packages.hand_in(stage / "site", pip, {"MIRROR": mirror} if mirror else {})
    words = [word for key, value in known.items() for word in ("--build-arg", f"{key}={value}")]
    return ["--fakeroot", "--mksquashfs-args", _SQUASH, *packages.bind_options(binds), *words]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for word, what in (("build", "build images that are not up to date"), ("check", "say what is wrong with them"),
                       ("recipe", "print the digests of their recipes")):  # fmt: skip
        command = commands.add_parser(word, help=what)
        command.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(IMAGES)}; all by default")
        command.add_argument("--variant", choices=get_args(Variant), default="cuda")
        if word == "build":
            command.add_argument("--force", action="store_true", help="build it even if it is up to date")
            command.add_argument("--mirror", help="Debian mirror; by default the one that apt uses here")
            command.add_argument("--certificate", type=Path, help="of the site's proxy; by default pip's own")
            command.add_argument("--wheels", type=Path, help="a folder of wheels; by default pip's own")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments().parse_args(argv)
    names = args.names or IMAGES
    digests = [(name, recipe(name, args.variant)) for name in names]
    if args.command == "build":
        given = {"cert": args.certificate, "find-links": args.wheels}
        pip = packages.pip_settings() | {key: str(path.resolve()) for key, path in given.items() if path}
        for name in names:
            build(name, args.variant, force=args.force, mirror=args.mirror, pip=pip)
    elif args.command == "check":
        wrong = [said for name in names if (said := check(image_path(name), name, args.variant))]
        if wrong:
            raise ExceptionGroup("images", [ScoreError(line) for line in wrong])
        log.info("in order: %s", ", ".join(f"{name}.sif (recipe {digest})" for name, digest in digests))
    else:
        sys.stdout.writelines(f"{name} {digest}\n" for name, digest in digests)


if __name__ == "__main__":
    cli.run(main)
