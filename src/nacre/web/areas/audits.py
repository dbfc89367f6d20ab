"""Reports of the audit: which there are, each in short with its whole report below, and where records disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from nacre.errors import IntegrityError, NacreError, ReferenceNotFound
from nacre.lifecycle.audit import kept
from nacre.lifecycle.audit.report import content
from nacre.lifecycle.audit.report.sections import number_of
from nacre.lifecycle.audit.said import Piece, in_language
from nacre.lifecycle.audit.sentences import CLAIMS, basis, odds, summary
from nacre.lifecycle.audit.verdict import WORDS, Pair, StageVerdict
from nacre.lifecycle.audit.words import Words as AuditWords
from nacre.lineage.finding import Finding
from nacre.lineage.graph import trace
from nacre.lineage.inferred import PREFIX
from nacre.lineage.store import Store
from nacre.web.areas.reports import REPORT, changed_files, damaged, is_here, kept_reports
from nacre.web.contract import View, page_of, viewer_of
from nacre.web.paging import Pages
from nacre.web.rendering import render
from nacre.web.shelf import Entry, Snapshot, audits_of, shelf_of

_A_PAGE = 100
Sentence = Sequence[Piece]


@dataclass(frozen=True)
class Named:
    """One side of an audit; `is_here` where it is an artifact of this store."""

    ref: str
    is_here: bool
    verdict: str = ""


@dataclass(frozen=True)
class Listed:
    """An audit as the list shows it, from its record alone."""

    ref: str
    created: str
    subject: Named | None
    references: tuple[Named, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage of a pair: its verdict, and in sentences of the viewer's language what it says and stands on."""

    name: str
    verdict: str
    text: Sentence
    p: str
    chance: Sentence
    basis: Sentence
    tier: str
    power: Sentence


@dataclass(frozen=True)
class Told:
    """A pair as the page shows it."""

    reference: Named
    verdict: str
    summary: Sentence
    stages: tuple[Stage, ...]
    not_tested: tuple[Sentence, ...]
    control: Sentence


def index(request: Request) -> Response:
    """Every audit, the newest first; `?verdict=` shows those where it was said of some reference."""
    store, wanted = Snapshot(page_of(request).store), request.query_params.get("verdict", "")
    found = kept_reports(store, PREFIX, kept.STAGE)
    if wanted in WORDS:
        found = [one for one in found if any(said.get("verdict") == wanted for said in _verdicts(one))]
    pages = Pages.of(found, request.query_params.get("page"), _A_PAGE)
    rows = [_listed(store, one) for one in pages.rows]
    say = AuditWords(viewer_of(request).words.language)
    return render(request, "audits.html", rows=rows, pages=pages, verdict=wanted, verdicts=WORDS, say=say)


def one(request: Request) -> Response:
    """An audit in short, where records disagree with it, and its whole report."""
    store, language = Snapshot(page_of(request).store), viewer_of(request).words.language
    ref = request.path_params["ref"]
    try:
        found = store.artifact(ref)
        if found.record is None or found.record.stage != kept.STAGE:
            raise ReferenceNotFound(f"{found.ref} is no report of an audit", remedy="look at it as an artifact")
        pairs = kept.read(found.path)
        told = [_told(pair, store, language) for pair in pairs]
    except ReferenceNotFound:
        raise
    except NacreError as error:
        return damaged(request, ref, "audits", error)
    except kept.UNFIT as error:
        return damaged(request, ref, "audits", _unfit(ref, error))
    subject = _named(store, pairs[0].subject)
    return render(
        request, "audit.html", ref=found.ref, record=found.record, subject=subject,
        told=told, say=AuditWords(language),
        changed=changed_files(found, kept.RESULT, kept.SENTENCES, REPORT),
        disagreements=_disagreements(store, subject, found.ref),
    )  # fmt: skip


def _unfit(ref: str, error: Exception) -> IntegrityError:
    return IntegrityError(f"{ref} holds what no audit has: {error!r}", remedy="look at it as it was kept")


def _listed(store: Store, one: Entry) -> Listed:
    subject = (one.audit or {}).get("subject")
    if not isinstance(subject, Mapping):
        return Listed(one.ref, one.created, None, (), one.fault or "the record does not say what was audited")
    references = tuple(_named(store, str(said.get("ref")), str(said.get("verdict"))) for said in _verdicts(one))
    return Listed(one.ref, one.created, _named(store, str(subject.get("ref"))), references)


def _verdicts(one: Entry) -> list[Mapping[str, Any]]:
    said = (one.audit or {}).get("verdicts")
    return [each for each in said if isinstance(each, Mapping)] if isinstance(said, list) else []


def _named(store: Store, ref: str, verdict: str = "") -> Named:
    return Named(ref, is_here(store, ref), verdict)


def _told(pair: Pair, store: Store, language: str) -> Told:
    words = AuditWords(language)
    return Told(
        _named(store, pair.reference),
        pair.verdict,
        in_language(summary(pair), language),
        tuple(_stage(stage, words) for stage in pair.stages.values()),
        tuple(in_language(one, language) for one in content.not_tested(pair)),
        in_language(content.control(pair), language),
    )


def _stage(stage: StageVerdict, words: AuditWords) -> Stage:
    is_claim = stage.p_value is not None and stage.verdict in CLAIMS
    return Stage(
        stage.stage,
        stage.verdict,
        in_language(stage.text, words.language),
        "–" if stage.p_value is None else number_of(stage.p_value),
        in_language(odds(stage.p_value), words.language) if is_claim and stage.p_value is not None else (),
        in_language(basis(stage), words.language) if is_claim else (),
        words(f"tier_{stage.tier}") if stage.tier else "–",
        in_language(stage.power, words.language) if stage.power else (),
    )


def _disagreements(store: Store, subject: Named, ref: str) -> list[Finding]:
    """What `nacre trace SUBJECT` says of this audit where it and the records differ."""
    if not subject.is_here:
        return []
    try:
        root = trace(store, subject.ref, known_audits=audits_of(shelf_of(store).entries()))
    except NacreError as error:
        return [Finding("integrity", subject.ref, error.message)]
    return [one for one in root.all_warnings() if one.kind == "disagreement" and one.values.get("audit") == ref]


VIEWS = (View("/audits", index), View("/audits/{ref:path}", one))
