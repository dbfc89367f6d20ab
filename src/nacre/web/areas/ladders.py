"""Reports of the ladder: which there are, each in short with its whole report below, and two of a task side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from nacre.errors import NacreError, ReferenceNotFound
from nacre.ladder import kept
from nacre.ladder.report import figures
from nacre.ladder.result import PARTS, LadderResult, Row
from nacre.ladder.words import Words as LadderWords
from nacre.ladder.words import points
from nacre.lineage.store import Resolved, Store
from nacre.web.areas.reports import REPORT, changed_files, damaged, is_here, kept_reports, ladder_of
from nacre.web.contract import View, page_of, viewer_of
from nacre.web.paging import Pages
from nacre.web.rendering import render
from nacre.web.shelf import Entry, Snapshot
from nacre.web.words import Language

_PREFIX, _LAST = "ladder/", "/report"
_A_PAGE = 50  # each row reads a result, which takes milliseconds


@dataclass(frozen=True)
class Listed:
    """A report as the list shows it; without a result where that could not be read, and `problem` says why."""

    ref: str
    created: str
    task: str
    result: LadderResult | None = None
    problem: str = ""


@dataclass(frozen=True)
class Rung:
    """A row of the table: its figures as the ladder's own report writes them, and where it leads."""

    row: Row
    name: str
    is_chosen: bool
    score: str
    span: str
    latency: str
    cost: str
    build: str
    artifact: str | None
    model: str | None
    whisker: Whisker | None


@dataclass(frozen=True)
class Whisker:
    """An interval on the line that all rows share, in 0..100."""

    low: float
    high: float
    score: float

    @property
    def width(self) -> float:
        return max(1.0, self.high - self.low)


@dataclass(frozen=True)
class Beside:
    """One tier in two ladders; a side is None where that ladder has no such row."""

    name: str
    here: Rung | None
    there: Rung | None

    @property
    def difference(self) -> str:
        """Score here minus score there, in points."""
        ours, theirs = (one.row.score if one else None for one in (self.here, self.there))
        return "–" if ours is None or theirs is None else points(ours - theirs)


def index(request: Request) -> Response:
    """Every ladder report, the newest first; `?task=` shows those of one task."""
    store, language = Snapshot(page_of(request).store), viewer_of(request).words.language
    task = request.query_params.get("task", "")
    found = [one for one in kept_reports(store, _PREFIX, kept.STAGE) if one.name.endswith(_LAST)]
    wanted = [one for one in found if task in ("", _task(one.name))]
    pages = Pages.of(wanted, request.query_params.get("page"), _A_PAGE)
    rows = [_listed(store, one, language) for one in pages.rows]
    tasks = sorted({_task(one.name) for one in found})
    return render(request, "ladders.html", rows=rows, pages=pages, task=task, tasks=tasks, say=LadderWords(language))


def one(request: Request) -> Response:
    """A ladder in short, and its whole report; `?with=` sets another ladder of the same task beside it."""
    store, language = Snapshot(page_of(request).store), viewer_of(request).words.language
    ref = request.path_params["ref"]
    try:
        found = store.artifact(ref)
        _check_stage(found)
        result = ladder_of(found, store, language)
    except ReferenceNotFound:
        raise
    except NacreError as error:
        return damaged(request, ref, "ladders", error)
    name = found.ref.partition("@")[0]
    others = [other for other in kept_reports(store, name, kept.STAGE)
              if other.name == name and other.ref != found.ref and not other.fault]  # fmt: skip
    return render(
        request, "ladder.html", ref=found.ref, record=found.record, result=result,
        rungs=_rungs(result, store, language), parts=PARTS, say=LadderWords(language),
        changed=changed_files(found, kept.RESULT, REPORT), others=others,
        beside=_beside(request, result, store),
        headline=result.recommended.headline, rest=_rest(result),
    )  # fmt: skip


def _listed(store: Store, one: Entry, language: Language) -> Listed:
    task = _task(one.name)
    if one.fault:
        return Listed(one.ref, "", task, None, one.fault)
    try:
        result = ladder_of(store.get(one.name, one.version), store, language)
    except NacreError as error:
        return Listed(one.ref, one.created, task, None, error.message)
    return Listed(one.ref, one.created, result.task, result)


def _task(name: str) -> str:
    return name.removeprefix(_PREFIX).removesuffix(_LAST)


def _check_stage(found: Resolved) -> None:
    if found.record is None or found.record.stage != kept.STAGE:
        raise ReferenceNotFound(f"{found.ref} is no report of a ladder", remedy="look at it as an artifact")


def _rest(result: LadderResult) -> str:
    return result.recommended.why.removeprefix(result.recommended.headline).strip()


def _rungs(result: LadderResult, store: Store, language: Language) -> list[Rung]:
    words = LadderWords(language)
    known = [row for row in result.rows if row.ok and row.ci_low is not None and row.ci_high is not None]
    low = min((row.ci_low or 0.0 for row in known), default=0.0)
    high = max((row.ci_high or 0.0 for row in known), default=1.0)
    return [_rung(row, result, store, words, (low, high)) for row in result.rows]


def _rung(row: Row, result: LadderResult, store: Store, words: LadderWords, scale: tuple[float, float]) -> Rung:
    latency = "–"
    if row.latency_ms_p50 is not None and row.latency_ms_p95 is not None:
        latency = f"{figures.milliseconds(row.latency_ms_p50)} / {figures.milliseconds(row.latency_ms_p95)}"
    artifact = row.lineage if is_here(store, row.lineage) else None
    return Rung(
        row=row,
        name=figures.short_tier(row, words),
        is_chosen=row.name == result.recommended.name,
        score=figures.score(row),
        span=figures.span(row),
        latency=latency,
        cost=figures.cost(row, result.currency, words),
        build="–" if row.build_seconds is None else figures.seconds(row.build_seconds, words),
        artifact=artifact,
        model=artifact if row.ok else None,
        whisker=_whisker(row, scale),
    )


def _whisker(row: Row, scale: tuple[float, float]) -> Whisker | None:
    low, high = scale
    if row.score is None or row.ci_low is None or row.ci_high is None or high <= low:
        return None

    def at(value: float) -> float:
        return round(100 * max(0.0, min(1.0, (value - low) / (high - low))), 1)

    return Whisker(at(row.ci_low), at(row.ci_high), at(row.score))


@dataclass(frozen=True)
class Compared:
    """Another ladder beside this one: `rows` by tier; `differs` names what keeps their scores from being compared."""

    ref: str
    created: str
    rows: tuple[Beside, ...]
    differs: Mapping[str, tuple[str, str]]


def _beside(request: Request, result: LadderResult, store: Store) -> Compared | None:
    """The ladder of `?with=`; None where none is asked for."""
    ref, language = request.query_params.get("with", ""), viewer_of(request).words.language
    if not ref:
        return None
    found = store.artifact(ref)
    _check_stage(found)
    other = ladder_of(found, store, language)
    ours, theirs = (_by_name(_rungs(each, store, language)) for each in (result, other))
    names = list(dict.fromkeys([*ours, *theirs]))
    facts: Sequence[tuple[str, str, str]] = (
        ("ladder_task", result.task, other.task),
        ("ladder_metric", result.metric, other.metric),
        ("ladder_test_rows", f"{result.test_examples:,}", f"{other.test_examples:,}"),
        ("ladder_currency", result.currency, other.currency),
    )
    return Compared(
        found.ref,
        other.created,
        tuple(Beside(name, ours.get(name), theirs.get(name)) for name in names),
        {name: (here, there) for name, here, there in facts if here != there},
    )


def _by_name(rungs: Sequence[Rung]) -> dict[str, Rung]:
    return {rung.row.name: rung for rung in rungs}


VIEWS = (View("/ladders", index), View("/ladders/{ref:path}", one))
