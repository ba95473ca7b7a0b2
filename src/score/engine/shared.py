"""The server of a `models` entry as a job of its own, for rollout, correction, RL and judging jobs to ask.

    python -m score serve --config config.yaml [configs/OVERLAY.yaml ...] --model qwen2.5_72b \
        [--host 0.0.0.0] [--port 8000] [--overlay teacher.yaml] [--while PID]

It is the vLLM that a job would start, on a TCP port, and it ends as a job's does (`score.engine.serve`). Once it is
ready, the overlay by which others use it as an `endpoint` is printed, and written to the file that --overlay names.
Beyond the loopback it wants a key, from the variable that the entry's `api_key_env` names. It serves no trained model.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import yaml

from score import cli, watch
from score.config import Config, lineage
from score.config.load import read_merged
from score.config.mistakes import nearest
from score.config.schema import Model
from score.engine import check_gpus, gpus, resolve_path, vllm
from score.engine.serve import Server, family, serve, url_of
from score.errors import InfrastructureError, ScoreError
from score.jsonl import write_text

log = logging.getLogger("serve")

_HEAD = "# Written by `score serve`"
_LOOK_S = 30.0  # for the first answer of a server that is ready


def entry_of(config: Config, name: str) -> Model:
    """The entry that is to be served. Raises `ScoreError` if that makes no sense."""
    if name not in config.models:
        raise ScoreError(f"--model: unknown model {name!r}; {nearest(name, config.models)}")
    model = config.models[name]
    if model.engine != "vllm":
        raise ScoreError(f"--model: {name!r} has engine {model.engine!r}; only a vllm entry is served for others")
    for agent in config.agents:
        trained = agent.method != "prompt" and agent.name not in config.skip
        if trained and lineage.base_model(config, agent.name) == name:
            raise ScoreError(
                f"--model: agent {agent.name!r} is trained from {name!r}, and an endpoint serves no trained model; "
                "give the role that is to ask this server an entry of its own in `models`"
            )
    return model


def key_of(model: Model, host: str) -> str | None:
    """The key that requests must bear; None where nobody but this machine can ask and none is set.

    Raises `ScoreError` if others can, and none is set.
    """
    key = os.environ.get(model.api_key_env or "")
    if not key and not _is_loopback(host):
        variable = model.api_key_env or "that `api_key_env` of the entry names"
        raise ScoreError(f"--host {host}: others can reach it, so set a key in the environment variable {variable}")
    return key or None


def overlay(name: str, model: Model, url: str, key: str | None) -> str:
    """The config by which others use the server: the same entry, reached elsewhere, without GPUs in the jobs that ask.

    Args:
        url: without the path.
        key: what the server asks for; it is not in the text.
    """
    there = {"engine": "endpoint", "url": f"{url}/v1", "api_key_env": key and model.api_key_env}
    entry = model.model_dump(mode="json", exclude_unset=True) | there | {"token_ids": True, "gpus": 0}
    return f"{_HEAD} --model {name}: its server, for jobs elsewhere (snakemake --configfile).\n" + yaml.safe_dump(
        {"models": {name: entry}}, sort_keys=False, allow_unicode=True, width=120
    )


@contextlib.contextmanager
def shared(model: Model, host: str, port: int, key: str | None, output: Path) -> Iterator[Server]:
    """Yields the server once it answers as a client of its overlay will ask it.

    Args:
        port: 0 for any that is free.
        output: file that receives what the server says.
    """
    folder, mark = resolve_path(model.path), f"{model.path}#{secrets.token_hex(8)}"
    with (
        gpus.of_this_job().lent(model) as taken,
        serve(
            lambda place: vllm.shared_command(model, folder, host, place, mark), output, address=(host, port),
            environment=vllm.shared_environment(key) | gpus.environment(taken), timeout_s=model.start_s,
        ) as server,
    ):  # fmt: skip
        _check_answer(server, mark, key)
        yield server


def _check_answer(server: Server, mark: str, key: str | None) -> None:
    """Another server that took the port in the meantime would be healthy as well, even serve the same model, but not
    list the name that this one alone was given."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(transport=httpx.HTTPTransport(), headers=headers, timeout=_LOOK_S) as client:
            listed = [entry["id"] for entry in client.get(f"{server.url}/v1/models").raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise InfrastructureError(
            f"{server.url}/v1/models: no list of models ({type(error).__name__}); is the port another server's?"
        ) from error
    if mark not in listed:
        raise InfrastructureError(f"{server.url} is another server's port, which serves {', '.join(listed)}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _seen_from_afar(host: str) -> str:
    """What others call the machine, if it listens at all of its addresses."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host


def _check_free(host: str, port: int) -> None:
    """Raises `ScoreError` if nobody can listen there, now and not when the model is loaded."""
    with socket.socket(family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a server left there a minute ago is no bar
        try:
            probe.bind((host, port))
            probe.listen()
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise ScoreError(f"--host {host} --port {port}: {why}; choose another port, or leave it out") from None


def _check_overlay(file: Path) -> None:
    """An earlier server's overlay is removed, so that nobody takes it for this one's; nothing else is written over."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK):
        raise ScoreError(f"--overlay {file}: its folder cannot be written; name another")
    if file.exists() and not (file.is_file() and file.read_bytes().startswith(_HEAD.encode())):
        raise ScoreError(f"--overlay {file}: `score serve` has not written it and leaves it alone; name another file")
    file.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="score serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="config.yaml and overlays on top of it")
    parser.add_argument("--model", required=True, help="name of an entry of `models` with engine: vllm")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for jobs on other nodes")
    parser.add_argument("--port", type=int, default=0, help="left out: any that is free")
    parser.add_argument("--overlay", type=Path, metavar="FILE", help="appears when the server is ready, and stays")
    parser.add_argument("--while", type=int, metavar="PID", dest="other", help="end when that process has ended")
    parser.add_argument("--log", type=Path, metavar="FILE", help="what the server says")
    args = parser.parse_args(argv)
    if args.other is not None:
        watch.end_with(args.other)
    config = read_merged(args.config)
    model = entry_of(config, args.model)
    key = key_of(model, args.host)
    _check_free(args.host, args.port)
    check_gpus(**{args.model: model})
    if args.overlay:
        _check_overlay(args.overlay)
    here = socket.gethostname()
    output = args.log or Path("results", config.experiment, "logs", "serve", f"{args.model}.{here}.{os.getpid()}.log")
    log.info("%s is starting; what it says: %s", args.model, output)
    with shared(model, args.host, args.port, key, output) as server:
        url = url_of(_seen_from_afar(args.host), server.url.rsplit(":", 1)[1])
        text = overlay(args.model, model, url, key)
        print(text, end="", flush=True)
        if args.overlay:
            write_text(args.overlay, text)
        log.info("%s is ready at %s", args.model, url)
        server.process.wait()


if __name__ == "__main__":
    cli.run(main, watched=False)
