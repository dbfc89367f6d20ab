"""What was used and what it cost: the sums of `nacre serve usage`, day by day, and the last requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from nacre.errors import UsageError
from nacre.lifecycle.serve.contract import Json
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.state.usage import csv_text, disagrees
from nacre.web.areas.chat import ledger_of
from nacre.web.contract import Page, View, page_of, viewer_of
from nacre.web.rendering import Links, render

SPANS: Mapping[str, int | None] = {"1": 1, "7": 7, "30": 30, "90": 90, "all": None}  # days
_FAILED = frozenset({"upstream_error", "cut_short", "failed"})
_LATEST = 50
_MOST_DAYS = 366  # bars that can still be told apart
_WIDTH, _HEIGHT, _LEFT, _BELOW = 960, 190, 52, 22


@dataclass(frozen=True)
class Asked:
    """What the reader wants to see. `since` and `until` are Unix time; `key` is an id."""

    span: str
    since: float | None
    until: float | None
    key: str | None
    model: str | None

    @property
    def query(self) -> dict[str, str | None]:
        """As parameters of an address."""
        dates = {} if self.span else {"from": _day(self.since), "to": _day(self.until, -1)}
        return {"span": self.span or None, **dates, "key": self.key, "model": self.model}


@dataclass(frozen=True)
class Bar:
    """One day in the chart: where it stands, and the heights of its answered, refused and failed requests."""

    day: str
    x: float
    width: float
    parts: tuple[tuple[str, float, float], ...]  # (class, y, height)
    title: str


@dataclass(frozen=True)
class Chart:
    """Requests per day. `ticks` are (y, value); `labels` (x, day)."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, int], ...]
    labels: tuple[tuple[float, str], ...]
    left_out: int
    width: int = _WIDTH
    height: int = _HEIGHT + _BELOW
    left: int = _LEFT


def usage(request: Request) -> Response:
    """The sums of a span of time, by key, model and day; without an administrator's key, one's own."""
    page, viewer = page_of(request), viewer_of(request)
    asked = _asked(request)
    groups = ["key", "model", "day"] if viewer.is_admin else ["model", "day"]
    tables = {group: _sums(page, asked, group) for group in groups}
    total = next(iter(_sums(page, asked)), None)
    names = _names(page) if viewer.is_admin else {viewer.caller.id: viewer.caller.name}
    recent = ledger_of(page).recent(_LATEST, asked.key)
    words = viewer.words
    return render(
        request, "usage.html", asked=asked, spans=SPANS, tables=tables, total=total, names=names,
        chart=chart(tables["day"], words("usage_bar")) if tables["day"] else None,
        recent=[(entry, disagrees(entry)) for entry in recent if asked.model in (None, entry.served or entry.asked)],
        first_day=_day(asked.since), last_day=_day(asked.until, -1), command=_command(asked),
        latest=_LATEST, narrowed=partial(_narrowed, Links(page.prefix), asked),
    )  # fmt: skip


def rows_csv(request: Request) -> Response:
    """The same sums as CSV: by key, model and day."""
    asked, viewer = _asked(request), viewer_of(request)
    groups = ("key", "model", "day") if viewer.is_admin else ("model", "day")
    text = csv_text(
        ledger_of(page_of(request)).usage(groups, asked.since, asked.until, key=asked.key, model=asked.model)
    )
    return Response(
        text, media_type="text/csv", headers={"content-disposition": 'attachment; filename="nacre-usage.csv"'}
    )


def chart(rows: Sequence[Json], title: str) -> Chart:
    """Bars for the days of `rows` and the empty ones between them, at most a year of them.

    `title` takes `{day}`, `{requests}`, `{refused}` and `{failed}`.
    """
    found = {str(row["day"]): row for row in rows}
    first, last = date.fromisoformat(min(found)), date.fromisoformat(max(found))
    days = [first + timedelta(days=place) for place in range((last - first).days + 1)]
    shown = [one.isoformat() for one in days[-_MOST_DAYS:]]
    most = _round_up(max(int(found[day]["requests"]) for day in shown if day in found))
    step = (_WIDTH - _LEFT) / len(shown)
    bars = tuple(
        _bar(found.get(day), day, _LEFT + place * step, min(step * 0.8, 48.0), most, title)
        for place, day in enumerate(shown)
    )
    every = max(1, -(-len(shown) // 8))
    labels = tuple((bar.x + bar.width / 2, bar.day) for bar in bars[::every])
    ticks = tuple((_HEIGHT * (1 - share), round(most * share)) for share in (0, 0.5, 1) if most * share % 1 == 0)
    return Chart(bars, ticks, labels, len(days) - len(shown))


def _bar(row: Json | None, day: str, x: float, width: float, most: int, title: str) -> Bar:
    if row is None:
        return Bar(day, x, width, (), "")
    refused, failed = int(row["refused"]), int(row["failed"])
    parts, y = [], float(_HEIGHT)
    for kind, count in (("f1", int(row["requests"]) - refused - failed), ("f6", refused), ("f5", failed)):
        tall = _HEIGHT * count / most
        y -= tall
        if count:
            parts.append((kind, round(y, 2), round(max(tall, 0.75), 2)))
    said = title.format(day=day, requests=row["requests"], refused=refused, failed=failed)
    return Bar(day, round(x, 2), round(width, 2), tuple(parts), said)


def _round_up(value: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50 ..."""
    power = 1
    while True:
        for first in (1, 2, 5):
            if value <= first * power:
                return first * power
        power *= 10


def _sums(page: Page, asked: Asked, *groups: str) -> list[Json]:
    """The ledger's sums, each with `failed`: its requests that an upstream or we did not answer to the end."""
    ledger = ledger_of(page)
    only: dict[str, Any] = {"key": asked.key, "model": asked.model}
    failed: dict[tuple[Any, ...], int] = {}
    for row in ledger.usage([*groups, "outcome"], asked.since, asked.until, **only):
        if row["outcome"] in _FAILED:
            place = tuple(row[group] for group in groups)
            failed[place] = failed.get(place, 0) + row["requests"]
    rows = ledger.usage(groups, asked.since, asked.until, **only)
    return [row | {"failed": failed.get(tuple(row[group] for group in groups), 0)} for row in rows]


def _asked(request: Request) -> Asked:
    """The reader's choice; raises UsageError for a day that is none. Who is no administrator sees itself only."""
    query, viewer = request.query_params, viewer_of(request)
    key = (query.get("key") or None) if viewer.is_admin else viewer.caller.id
    first, last = _midnight(query.get("from", "")), _midnight(query.get("to", ""))
    if first is not None or last is not None:
        span, since, until = "", first, None if last is None else last + 86_400.0
    else:
        span = query.get("span", "30")
        span = span if span in SPANS else "30"
        days = SPANS[span]
        since = None if days is None else _today() - (days - 1) * 86_400.0
        until = None
    return Asked(span, since, until, key, query.get("model") or None)


def _midnight(day: str) -> float | None:
    if not day:
        return None
    try:
        return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise UsageError(f"{day[:40]!r} is no day", remedy="such as 2026-11-22") from None


def _today() -> float:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def _day(moment: float | None, shift: int = 0) -> str | None:
    """The day (UTC) of a moment; `shift` in days."""
    if moment is None:
        return None
    return (datetime.fromtimestamp(moment, UTC) + timedelta(days=shift)).date().isoformat()


def _names(page: Page) -> dict[str, str]:
    """Key ids to names."""
    keys = page.gateway.parts.keys
    return {one.caller.id: one.caller.name for one in keys.list()} if isinstance(keys, KeyStore) else {}


def _narrowed(link: Links, asked: Asked, **change: object) -> str:
    """The same page with one more thing chosen."""
    return link("/usage", **(asked.query | change))


def _command(asked: Asked) -> str:
    """What prints the same sums."""
    since, until = _day(asked.since), _day(asked.until)
    return (
        "nacre serve usage --by key,model,day"
        + (f" --since {since}" if since else "")
        + (f" --until {until}" if until else "")
    )


VIEWS = (View("/usage", usage, needs="key"), View("/usage/rows.csv", rows_csv, needs="key"))
