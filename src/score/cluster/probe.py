"""What only a job can tell: the GPUs it sees, its folders, the sandbox's layers, whom it reaches. Runs on its node.

    python -m score.cluster.probe start FOLDER
    python -m score.cluster.probe look FOLDER

`start` does what comes before a rule's command: it makes the job's environment and enters the image. `look` is that
command; it writes what it sees to FOLDER/report.json. FOLDER/order.json says how. No query is spent, no key is sent.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from score import cli
from score.cluster import site
from score.config import Config, read
from score.errors import InfrastructureError, ScoreError
from score.jsonl import write_json

ORDER, REPORT = "order.json", "report.json"
_SERVICES = {"serper": "https://google.serper.dev", "tavily": "https://api.tavily.com"}
_REACH_S = 5.0


@dataclass(frozen=True)
class Order:
    """What the probe is told: `gpus` asked for, whether they are `cuda`, keys of the `models` in use, and the image."""

    gpus: int
    cuda: bool
    models: list[str]
    image: str | None
    apptainer_args: str


def targets(config: Config, used: Sequence[str]) -> dict[str, str]:
    """Servers that jobs ask, by what they are: scheme, host and port of each, variables as they stand."""
    found, search = {}, config.search
    if search.mode != "replay" and (url := search.url or _SERVICES.get(search.backend)):
        found[f"search ({search.backend})"] = url
    entries = {name: config.models[name] for name in used}
    asked = [(name, entry.urls) for name, entry in entries.items() if entry.engine == "endpoint"]
    return found | {
        f"endpoint {name}" + (f", {number}" if number > 1 else ""): url
        for name, urls in asked
        for number, url in enumerate(urls, start=1)
    }


def origin(url: str) -> str:
    """The server of an address, without path and password. Raises `ScoreError` if a variable in it is not set."""
    url = os.path.expandvars(url)
    if missing := re.findall(r"\$\{?(\w+)", url):
        raise ScoreError(f"${missing[0]} is not set in the job")
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def reach(url: str) -> str:
    """Why a server does not answer, or "" if it does, with whatever status."""
    import httpx

    try:
        httpx.head(origin(url), timeout=_REACH_S)
    except (httpx.HTTPError, httpx.InvalidURL, ScoreError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def gpus(torch: bool) -> dict[str, Any]:
    """The GPUs that SLURM names, that the driver lists and that torch can use; None where one does not tell."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = {"named": None if named is None else [word for word in named.split(",") if word not in ("", "NoDevFiles")]}
    listing = _output(["nvidia-smi", "--list-gpus"]) if shutil.which("nvidia-smi") else None
    seen["driver"] = None if listing is None else listing.count("GPU ")
    seen["torch"] = int(_output([sys.executable, "-c", _TORCH]) or -1) if torch else None
    return seen


_TORCH = "import torch; print(torch.cuda.device_count())"


def _output(command: Sequence[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else None


def folder(path: str, *, make: bool = False) -> dict[str, Any]:
    """Whether a file can be written there, and the bytes that are free. `make`: jobs make the folder if need be."""
    try:
        if make:
            os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
        return {"folder": path, "error": "", "free": shutil.disk_usage(path).free}
    except OSError as error:
        return {"folder": path, "error": error.strerror or str(error), "free": 0}


def layers(config: Config) -> dict[str, Any]:
    """The isolation layers that model-written code gets in a job, or why it gets none."""
    from score.attempts import sandbox

    try:
        with sandbox(config) as pool:
            return {"layers": list(pool.layers), "error": ""}
    except (ScoreError, InfrastructureError) as error:
        return {"layers": [], "error": str(error)}


def look(order: Order, config: Config) -> dict[str, Any]:
    """Everything that a job sees, as JSON."""
    cache = config.search.cache if config.search.mode == "record" else None
    return {
        "host": socket.gethostname(),
        "image": os.environ.get("APPTAINER_CONTAINER"),
        "gpus": gpus(torch=order.cuda and order.gpus > 0),
        "scratch": folder(os.environ.get("TMPDIR") or "/tmp"),
        "cache": folder(os.path.expandvars(cache), make=True) if cache else None,
        "sandbox": layers(config),
        "offline": os.environ.get("HF_HUB_OFFLINE", ""),
        "reach": {name: reach(url) for name, url in targets(config, order.models).items()},
    }


def start(shared: Path, order: Order) -> None:
    """Runs `look` as Snakemake runs a rule's command on the node; what fails on the way there is the report."""
    config, source = read(os.environ["SCORE_CONFIG"]), Path(__file__).parents[2]
    os.environ.update(site.environment(site.read(), config, os.environ, source=source, job=True))
    command = f"python -m score.cluster.probe look {shlex.quote(str(shared))}"
    if order.image:
        from snakemake.deployment.singularity import Singularity, shellcmd

        Singularity().check()
        command = shellcmd(order.image, command, args=order.apptainer_args, quiet=True, shell_executable="bash")
    done = subprocess.run(command, shell=True, executable="/bin/bash", stderr=subprocess.PIPE, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InfrastructureError(said[-1].removeprefix("error: "))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["start", "look"])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    order = Order(**json.loads((args.folder / ORDER).read_text(encoding="utf-8")))
    if args.part == "look":
        write_json(args.folder / REPORT, look(order, read(os.environ["SCORE_CONFIG"])))
        return
    try:
        start(args.folder, order)
    except Exception as error:  # whatever it is, the one who waits for the report is told
        mend = "" if isinstance(error, ScoreError) else "the image, or .venv, must work there"
        write_json(args.folder / REPORT, {"host": socket.gethostname(), "error": str(error), "mend": mend})
        raise


if __name__ == "__main__":
    cli.run(main)
