"""The first page: what is here, and what is going on."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from nacre.web.contract import View
from nacre.web.rendering import render


def overview(request: Request) -> Response:
    """The areas at a glance."""
    return render(request, "overview.html")


VIEWS = (View("/", overview, needs="key"),)
