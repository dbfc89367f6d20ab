"""Templates to responses: every value escaped, unknown names refused, figures in the form a reader expects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from nacre.lineage.finding import Finding
from nacre.web.catalogue import AREAS
from nacre.web.contract import page_of, viewer_of
from nacre.web.words import LANGUAGES, Words

STATIC = files("nacre.web") / "static"


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """The page of a template. In it stand `words`, `viewer`, `link`, `static`, `areas`, and `values`."""
    viewer, page = viewer_of(request), page_of(request)
    here = request.url.path.removeprefix(page.prefix) or "/"
    drawn = (
        environment()
        .get_template(template)
        .render(
            words=viewer.words,
            viewer=viewer,
            languages=LANGUAGES,
            areas=[area for area in AREAS if area.path and (viewer.is_admin or area.needs != "admin")],
            here=here,
            back=here + (f"?{request.url.query}" if request.url.query else ""),
            link=Links(page.prefix),
            static=lambda name: f"{page.prefix}/static/{name}?v={_mark(name)}",
            **values,
        )
    )
    return HTMLResponse(drawn, status)


class Links:
    """`link(path, **query)`: an address on the page; each part is percent-encoded, None leaves a parameter out."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, path: str, **query: object) -> str:
        asked = urlencode({name: str(value) for name, value in query.items() if value is not None})
        return self._prefix + quote(path, safe="/@") + (f"?{asked}" if asked else "")


@cache
def environment() -> Environment:
    """Jinja2 with autoescape and strict undefined, and the filters for figures."""
    made = Environment(
        loader=PackageLoader("nacre.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "number": number,
        "share": share,
        "size": size,
        "seconds": seconds,
        "moment": moment,
        "plain": plain,
        "told": told,
    }
    return made


def number(value: float | int | None) -> str:
    """Thousands separated, four significant digits of a fraction; an en dash for what is not there."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def share(value: float | None, digits: int = 1) -> str:
    """0.913 -> 91.3 %."""
    return "–" if value is None else f"{100 * value:.{digits}f}\u2009%"


def size(n_bytes: float | None) -> str:
    """Bytes in binary units."""
    if n_bytes is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g}\u2009{unit}" if unit != "B" else f"{n_bytes:.0f}\u2009B"
        n_bytes /= 1024
    return f"{n_bytes:,.1f}\u2009TiB"


def seconds(value: float | None) -> str:
    """A span of time: 0.032 -> 32 ms, 75 -> 1 min 15 s."""
    if value is None:
        return "–"
    if value < 1:
        return f"{1000 * value:.3g}\u2009ms"
    if value < 60:
        return f"{value:.3g}\u2009s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}\u2009min {whole % 60}\u2009s"
    return f"{whole // 3600}\u2009h {whole % 3600 // 60}\u2009min"


def moment(value: float | str | None) -> str:
    """Unix time, or ISO 8601 with an offset, as date and time in UTC."""
    if value is None or value == "":
        return "–"
    try:
        when = datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError):
        return str(value)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: Any) -> str:
    """A value of a record or config as one line: texts as they are, figures as people read them, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None or isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return number(value)


def told(finding: Finding, words: Words) -> str:
    """What a lineage gives to look at, in the viewer's language; an error's own message stays as it is."""
    if not finding.sentence:
        return finding.text
    terms = {name: words.known(f"{name}_{value}", value)
             for name, value in finding.values.items() if name in ("basis", "relation")}  # fmt: skip
    return words(f"found_{finding.sentence}", **{**finding.values, **terms})


@cache
def _mark(name: str) -> str:
    """Changes when a static file changes, so that browsers may keep it for ever."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
