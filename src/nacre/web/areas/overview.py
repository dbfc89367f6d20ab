"""The first page: what is here, what runs, what ladder and audit said last, and what the gateway does today."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from nacre.errors import NacreError
from nacre.ladder import kept as ladder_kept
from nacre.lifecycle.audit import kept as audit_kept
from nacre.lifecycle.audit.sentences import summarise
from nacre.lineage.record import KINDS
from nacre.lineage.store import Store
from nacre.web.areas.reports import ladder_of
from nacre.web.areas.runs import under_way
from nacre.web.contract import Page, View, Viewer, page_of, viewer_of
from nacre.web.rendering import render
from nacre.web.shelf import Entry, shelf_of
from nacre.web.words import Language

_DAY_S = 86_400
_NEWEST, _MOST_RUNS, _MOST_MODELS = 8, 5, 12


@dataclass(frozen=True)
class Verdict:
    """What the newest report of a ladder or an audit says; `problem` says why it cannot be read."""

    ref: str
    created: str
    text: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Model:
    """A model of the gateway; `why` says why it cannot answer, and is empty where it can."""

    name: str
    why: str


@dataclass(frozen=True)
class Today:
    """What the ledger says since midnight (UTC). `money` is what is known; `unpriced` requests have no known price."""

    requests: int = 0
    refused: int = 0
    tokens: int = 0
    money: float = 0.0
    unpriced: int = 0
    problem: str = ""


def overview(request: Request) -> Response:
    """The areas at a glance; a key that is no administrator's sees its models alone."""
    page, viewer = page_of(request), viewer_of(request)
    models = gateway_models(page, viewer)
    shown, n_models = models[:_MOST_MODELS], len(models)
    if not viewer.is_admin:
        return render(request, "overview_key.html", models=shown, n_models=n_models)
    entries = shelf_of(page.store).entries()
    newest = list({one.name: one for one in entries}.values())
    sound = [one for one in newest if not one.fault]
    counts = Counter(one.kind for one in sound)
    kinds = [(kind, counts.pop(kind)) for kind in KINDS if counts[kind]] + sorted(counts.items())
    runs = list(under_way(page.store))
    language = viewer.words.language
    return render(
        request, "overview.html", kinds=kinds, n_damaged=sum(bool(one.fault) for one in entries),
        newest=sorted(sound, key=lambda one: one.created, reverse=True)[:_NEWEST],
        runs=runs[:_MOST_RUNS], n_runs=len(runs), root=str(page.store.root), is_empty=not entries and not runs,
        ladder=newest_ladder(page.store, entries, language), audit=newest_audit(page.store, entries, language),
        models=shown, n_models=n_models, today=today(page),
    )  # fmt: skip


def newest_ladder(store: Store, entries: Sequence[Entry], language: Language) -> Verdict | None:
    """The recommendation of the newest ladder report; None where there is no report."""
    entry = _newest(entries, ladder_kept.STAGE)
    if entry is None:
        return None
    try:
        advice = ladder_of(store.artifact(entry.ref), store, language).recommended
    except NacreError as error:
        return Verdict(entry.ref, entry.created, problem=error.message)
    return Verdict(entry.ref, entry.created, advice.headline or advice.why)


def newest_audit(store: Store, entries: Sequence[Entry], language: Language) -> Verdict | None:
    """The strongest finding of the newest audit; None where there is no audit."""
    entry = _newest(entries, audit_kept.STAGE)
    if entry is None:
        return None
    try:
        first = audit_kept.read(store.artifact(entry.ref).path)[0]
        return Verdict(entry.ref, entry.created, summarise(first, language))
    except NacreError as error:
        return Verdict(entry.ref, entry.created, problem=error.message)
    except audit_kept.UNFIT as error:  # values that fit no sentence
        return Verdict(entry.ref, entry.created, problem=repr(error))


def gateway_models(page: Page, viewer: Viewer) -> list[Model]:
    """The names that this viewer may ask for, those that cannot answer first."""
    gateway = page.gateway
    found = []
    for name in gateway.table.visible(viewer.caller):
        behind = gateway.table.owners(name)
        down = [gateway.health.down[one] for one in behind if one in gateway.health.down]
        found.append(Model(name, down[0] if len(down) == len(behind) else ""))
    return sorted(found, key=lambda one: not one.why)


def today(page: Page) -> Today:
    """Sums of the ledger since midnight; where its database does not answer, that is said."""
    now = time.time()
    try:
        rows = page.gateway.parts.ledger.usage(("outcome",), since=now - now % _DAY_S)
    except NacreError as error:
        return Today(problem=error.message)
    return Today(
        sum(row["requests"] for row in rows), sum(row["refused"] for row in rows), sum(row["tokens"] for row in rows),
        sum(row["known_money"] for row in rows), sum(row["unpriced"] for row in rows),
    )  # fmt: skip


def _newest(entries: Sequence[Entry], stage: str) -> Entry | None:
    return max((one for one in entries if one.stage == stage), key=lambda one: one.created, default=None)


VIEWS = (View("/", overview, needs="key"),)
