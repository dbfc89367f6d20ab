"""Whole reports, for a frame or a tab of their own: `report.html` of an artifact of the store, and nothing else.

Such a page may come from anywhere and has styles of its own, so it gets a policy of its own: no script, no form, no
address of another host, an origin of nobody. Those of ladder and audit are drawn again from what was kept with them,
in the language of whoever looks; any other is given as its bytes are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from nacre.errors import ConfigError, IntegrityError, NacreError, ReferenceNotFound
from nacre.ladder import kept as ladder_kept
from nacre.ladder import report as ladder_report
from nacre.ladder.result import LadderResult
from nacre.lifecycle.audit import kept as audit_kept
from nacre.lifecycle.audit import report as audit_report
from nacre.lineage.store import Resolved, Store, check_name
from nacre.web.contract import Theme, View, page_of, viewer_of
from nacre.web.rendering import render
from nacre.web.shelf import Entry, shelf_of
from nacre.web.words import Language

REPORT = "report.html"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox"
)
_ERROR_POLICY = "default-src 'none'; style-src 'self'; frame-ancestors 'self'; sandbox"
_MOST_BYTES = 64 * 2**20
_DARK = "(prefers-color-scheme: dark)"


def whole(request: Request) -> Response:
    """The report of an artifact. `?kept=1` gives it as it was kept, in the language and style it was written in."""
    viewer, store = viewer_of(request), page_of(request).store
    try:
        found = store.artifact(request.path_params["ref"])
        drawn = None if "kept" in request.query_params else redrawn(found, store, viewer.words.language)
        page = drawn if drawn is not None else _kept_page(found, store)
    except NacreError as error:
        status = 404 if isinstance(error, ReferenceNotFound) else 422
        response: Response = render(
            request, "report_error.html", status=status, message=error.message, remedy=error.remedy
        )
        response.headers["content-security-policy"] = _ERROR_POLICY
        return response
    return HTMLResponse(_in_theme(page, viewer.theme), headers={"content-security-policy": POLICY})


def redrawn(found: Resolved, store: Store, language: Language) -> str | None:
    """A report of ladder or audit drawn again in a language; None for any other. IntegrityError where it is damaged."""
    record = found.record
    if record is None or record.stage not in (ladder_kept.STAGE, audit_kept.STAGE):
        return None
    try:
        if record.stage == audit_kept.STAGE:
            return audit_report.render(audit_kept.read(found.path), language, record.created[:10] or None)
        return ladder_report.render(ladder_of(found, store, language))
    except audit_kept.UNFIT as error:
        raise IntegrityError(
            f"the result of {found.ref} holds what no report has: {error!r}", remedy="look at it as it was kept"
        ) from None


def ladder_of(found: Resolved, store: Store, language: Language) -> LadderResult:
    """The result of a ladder's report in a language; its rungs' folders are those of this store, or none."""
    result = ladder_kept.read(found.path / ladder_kept.RESULT)
    config = found.record.config if found.record else {}
    margin = config.get("margin", 0.0) if isinstance(config, Mapping) else 0.0
    rows = tuple(replace(row, folder=_folder(store, row.lineage)) for row in result.rows)
    is_share = isinstance(margin, int | float) and 0 <= margin < 1
    return ladder_kept.in_language(replace(result, rows=rows), language, margin if is_share else 0.0)


def damaged(request: Request, ref: str, area: str, error: NacreError) -> Response:
    """What is said of a report that cannot be read: a page of its area, never a fault."""
    return render(
        request, "report_damaged.html", ref=ref, area=area, message=error.message, remedy=error.remedy,
        is_kept=is_here(page_of(request).store, ref),
    )  # fmt: skip


def kept_reports(store: Store, prefix: str, stage: str) -> list[Entry]:
    """Every version that `stage` made under names with this beginning, the newest first; damaged ones last."""
    entries = shelf_of(store).entries()
    found = [one for one in entries if one.name.startswith(prefix) and (one.fault or one.stage == stage)]
    return sorted(found, key=lambda one: one.created, reverse=True)


def is_here(store: Store, ref: str | None) -> bool:
    """Whether `name@version` is in the store, so that there is something to lead to."""
    name, _, version = (ref or "").partition("@")
    try:
        check_name(name)
    except ConfigError:
        return False
    have = store.versions(name)
    return bool(have) if not version else version.isascii() and version.isdecimal() and int(version) in have


def changed_files(found: Resolved, *names: str) -> list[str]:
    """Which of these files are not the bytes that the record says."""
    recorded = found.record.files if found.record else {}
    return [name for name in names if name in recorded and recorded[name][1] != _sha256(found.path / name)]


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _folder(store: Store, ref: str | None) -> str | None:
    if ref is None or not is_here(store, ref):
        return None
    name, _, version = ref.partition("@")
    return str(store.folder(name, int(version) if version else store.versions(name)[-1]))


def _kept_page(found: Resolved, store: Store) -> str:
    """The bytes of the artifact's own `report.html`; never those of a file that lies elsewhere."""
    file, home = found.path / REPORT, (store.root / "store").resolve()
    if file.is_symlink() or not file.is_file() or not file.resolve().is_relative_to(home):
        raise ReferenceNotFound(f"{found.ref} has no {REPORT}", remedy="look at the artifact itself")
    if file.stat().st_size > _MOST_BYTES:
        raise IntegrityError(f"{file} is larger than {_MOST_BYTES >> 20} MiB", remedy="open it as a file")
    return file.read_text(encoding="utf-8", errors="replace")


def _in_theme(page: str, theme: Theme) -> str:
    """Our reports follow the system; where the page was told otherwise, their styles follow that."""
    if theme == "auto":
        return page
    head, mark, rest = page.partition("</style>")
    return head.replace(_DARK, "all" if theme == "dark" else "not all") + mark + rest


VIEWS = (View(f"/reports/{{ref:path}}/{REPORT}", whole),)
