"""Which requests come from the page itself: what changes something is taken from nobody else."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

from nacre.lifecycle.serve.addresses import is_loopback_host


def names_this_machine(request: Request) -> bool:
    """Whether Host names loopback. Without keys a name that was made to lead here (DNS rebinding) is not answered."""
    return is_loopback_host(_host(f"//{request.headers.get('host', '')}") or "")


def is_from_here(request: Request) -> bool:
    """Whether the page itself sent this: browsers say so, and no page can say it in another's name."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return site == "same-origin"
    try:
        return urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        return False


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
