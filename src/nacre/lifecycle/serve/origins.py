"""Browsers on other people's pages: refused while no keys are asked for.

A gateway on loopback without keys is open to every page that its user visits, by a form (cross-site request) or by a
name that is made to lead to 127.0.0.1 (DNS rebinding). Both show in the headers Origin and Host, which no page can set.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from nacre.lifecycle.serve import errors
from nacre.lifecycle.serve.addresses import is_loopback_host


def refuse_foreign(headers: Mapping[str, str]) -> None:
    """Raises Refusal (403) for a request that `is_foreign`."""
    if is_foreign(headers):
        raise errors.foreign_page()


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a request names another host than this machine, or comes from another page."""
    host = _host(f"//{headers.get('host', '')}")
    if host and not is_loopback_host(host):
        return True
    origin = headers.get("origin")
    if origin is not None:
        return not is_loopback_host(_host(origin) or "")
    return headers.get("sec-fetch-site") == "cross-site"


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return "invalid"
