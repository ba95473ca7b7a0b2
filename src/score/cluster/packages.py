"""What a build needs to know of the machine it runs on: how pip and apt reach their packages there.

Sites sit behind proxies, have a certificate of their own or a folder of wheels. All of it is read from the machine's
own configuration, bound into the image while it is built, and left out of it. Not here: what an image is made of
(`images.py`).
"""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from score.errors import ScoreError

_INSIDE = "/mnt"  # a bind's destination must exist in every base; what is bound below it is made in the folder itself
_CARRIED = ("index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")  # as they are
_FOLDERS = ("find-links", "extra-index-url", "index-url")  # may name folders of this machine
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


def pip_settings() -> dict[str, str]:
    """pip's own configuration on this machine, by option; environment variables win. Empty where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_settings(listed)


def parse_settings(listed: str) -> dict[str, str]:
    """The lines of `pip config list`, such as global.cert='/etc/ca.crt', as option -> value."""
    found: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        scope, _, option = name.rpartition(".")
        if scope in ("global", "install", ":env:") and value:
            found[option] = ast.literal_eval(value)
    return found


def debian_mirror() -> str:
    """The mirror that this machine's own apt uses. Raises `ScoreError` where there is none."""
    fields = ["--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    try:
        listed = subprocess.run(["apt-get", "indextargets", *fields], capture_output=True, text=True, timeout=60).stdout
    except OSError:
        listed = ""
    if not listed.strip():
        raise ScoreError("no Debian mirror: apt knows none here (apt-get update); name one with MIRROR=URL")
    return listed.split()[0]


def hand_in(folder: Path, settings: Mapping[str, str], more: Mapping[str, str]) -> list[str]:
    """Writes `site.sh` for an image's %post into a folder, and returns the binds that it needs.

    Args:
        folder: of this build alone; becomes /mnt in the image while it is built.
        settings: of pip (`pip_settings`).
        more: further variables, such as MIRROR.
    """
    exports = dict(more)
    binds = [f"{folder}:{_INSIDE}"]
    if certificate := settings.get("cert"):
        if not Path(certificate).is_file():
            raise ScoreError(f"pip's certificate {certificate} is not there; name another with CERTIFICATE=FILE")
        shutil.copyfile(certificate, folder / "ca.crt")
        exports |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), f"{_INSIDE}/ca.crt")
    for option in dict.fromkeys((*_CARRIED, *_FOLDERS)):
        values = settings.get(option, "").split()
        if option in _FOLDERS:
            values = [_inside(folder, binds, value) for value in values]
        if values:
            exports["PIP_" + option.upper().replace("-", "_")] = " ".join(values)
    exports |= {name: os.environ[name] for word in _PROXIES for name in (word, word.upper()) if name in os.environ}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()]
    (folder / "site.sh").write_text("".join(lines), encoding="utf-8")
    return binds


def _inside(folder: Path, binds: list[str], value: str) -> str:
    """The place in the image of a folder of this machine, which this binds; anything else as it is."""
    url = urlsplit(value)
    if url.scheme not in ("", "file"):
        return value
    path = Path(url.path)
    if not path.is_dir():
        raise ScoreError(f"pip's folder {path} is not there; name another with WHEELS=FOLDER")
    # A local index refers to files beside its folder of pages.
    bound = path.parent if url.scheme == "file" else path
    name = f"bound{len(binds)}"
    (folder / name).mkdir()
    binds.append(f"{bound}:{_INSIDE}/{name}")
    inside = f"{_INSIDE}/{name}" if bound == path else f"{_INSIDE}/{name}/{path.name}"
    return f"file://{inside}" if url.scheme == "file" else inside


def bind_options(binds: Sequence[str]) -> list[str]:
    """Options of a build for binds that nothing in the image can write to."""
    return [word for bind in binds for word in ("--bind", f"{bind}:ro")]
