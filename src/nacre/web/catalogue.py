"""The areas of the page: one module with `VIEWS` each, in the order of the navigation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from nacre.web.contract import Needs, View


@dataclass(frozen=True)
class Area:
    """`name` is its word and its module in `web/areas`. `path`: where it begins; None is not in the navigation."""

    name: str
    path: str | None
    needs: Needs = "admin"


AREAS: tuple[Area, ...] = (
    Area("overview", "/"),
    Area("artifacts", "/artifacts"),
    Area("runs", "/runs"),
    Area("ladders", "/ladders"),
    Area("audits", "/audits"),
    Area("chat", "/chat", "key"),
    Area("usage", "/usage", "key"),
    Area("keys", "/keys"),
    Area("reports", None),
    Area("frame", None),
)


def views() -> Iterator[View]:
    """Every view of every area."""
    for area in AREAS:
        yield from import_module(f"nacre.web.areas.{area.name}").VIEWS
