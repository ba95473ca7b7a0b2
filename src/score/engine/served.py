"""Does an endpoint serve the model that its entry names? Its list of models (`GET .../models`) says so, asked once.

Not here: what is asked of it afterwards (`score.engine.openai`).
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import logging
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from score.config.schema import Model
from score.errors import InfrastructureError, ScoreError

log = logging.getLogger("engine")

_TIMEOUT_S = 10.0
_SHOWN = 5  # of a hosted service's hundreds of models
_REFUSED = (401,)  # not 403: some keys may ask a model, but not for the list
_MOST_BYTES = 2**24


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: the key is for this server alone."""

    def redirect_request(self, *args: object) -> None:
        return None


def expected(model: Model) -> str | None:
    """The name that must be in the list; None if the entry names no model, and any may answer."""
    return model.serves or model.path


def is_of_this_node(url: str) -> bool:
    """Does the address mean the machine that asks, whichever that is?"""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check(model: Model, *, away: bool = False) -> str:
    """Asks every address of an endpoint; returns what was found, for people.

    Args:
        away: jobs run on other machines, so an address such as localhost means another server there.
    Raises:
        ScoreError: a server has other models, or takes no such key; the mend is named.
        InfrastructureError: one does not tell: it cannot be reached, or has no list.
    """
    from score.engine.openai import endpoint_key

    key, name = endpoint_key(model), expected(model)
    if name is None:
        return f"{', '.join(model.urls)}: it names no model, so any may answer"
    if not model.listed:
        return f"{', '.join(model.urls)}: not asked for its models (listed: false)"
    untold = []
    for url in model.urls:
        try:
            _check_one(url, name, key, model.api_key_env, away=away)
        except InfrastructureError as error:
            untold.append(str(error))
    if untold:
        raise InfrastructureError("; ".join(untold))
    return f"{', '.join(model.urls)}: serves {name}"


def _check_one(url: str, name: str, key: str, variable: str | None, *, away: bool) -> None:
    if away and is_of_this_node(url):
        raise InfrastructureError(f"{url}: of the node that a job runs on, which asks it itself")
    names = _listed(url, key, variable)
    if {name, f"models/{name}"} & set(names):  # one hosted service lists its names below models/
        return
    others = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "") or "no model"
    raise ScoreError(
        f"{url} serves {others}, not {name!r}; correct `path` of its entry, name in `serves` what the server calls it, "
        "or start it with that model"
    )


def check_in_job(model: Model) -> None:
    """The same for a job, which goes on where the server does not tell: its requests have their own retries."""
    try:
        log.info("%s", check(model))
    except InfrastructureError as error:
        log.warning("not known what it serves: %s", error)


def _listed(url: str, key: str, variable: str | None) -> list[str]:
    """Names in a server's list of models."""
    request = urllib.request.Request(f"{url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"})
    try:
        # This machine is reached directly, whatever proxies the environment names.
        direct = [urllib.request.ProxyHandler({})] if is_of_this_node(url) else []
        with urllib.request.build_opener(_Stay, *direct).open(request, timeout=_TIMEOUT_S) as reply:
            told = json.loads(reply.read(_MOST_BYTES))
            entries = told["data"]
            if told.get("has_more"):
                raise InfrastructureError(f"{url} lists its models on several pages")
            return [str(entry["id"]) for entry in entries]
    except urllib.error.HTTPError as error:
        if error.code in _REFUSED:
            mend = f"correct the key in {variable}" if variable else "name the variable of its key (api_key_env)"
            mend += ", or set `listed: false` if its list of models takes no such key"
            raise ScoreError(f"{url} refuses to answer ({error.code} {error.reason}); {mend}") from None
        raise InfrastructureError(f"{url} has no list of its models ({error.code} {error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise InfrastructureError(f"{url} cannot be reached ({getattr(error, 'reason', error)})") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InfrastructureError(f"{url} sends no list of its models that can be read") from None
