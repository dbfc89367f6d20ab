"""The artifacts of the store: which there are, and each with how it was made, from what, and what was made of it."""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response

from nacre.errors import IntegrityError, NacreError, ReferenceNotFound
from nacre.lineage.card import model_card
from nacre.lineage.digest import RECORD_NAME
from nacre.lineage.graph import compare, trace
from nacre.lineage.licence import concern
from nacre.lineage.record import BASES, KINDS, Record
from nacre.lineage.store import Resolved, Store, default_root
from nacre.lineage.workspace import unfinished
from nacre.recipe.describe import Description, describe
from nacre.web.areas.reports import REPORT
from nacre.web.contract import View, page_of
from nacre.web.paging import Pages
from nacre.web.pedigree import SIZES, pedigree
from nacre.web.rendering import Links, render
from nacre.web.samples import samples, steps_of
from nacre.web.shelf import Entry, Snapshot, audits_of, children, shelf_of

CARD = "README.md"
_A_PAGE = 200
_MOST_CHILDREN = _MOST_FILES = 200
_MOST_COUNTED = 256 << 20  # a larger data set is not read through to count its rows
SORTS = ("newest", "name", "kind", "size")
_GRAVE = ("integrity", "disagreement")


@dataclass(frozen=True)
class Listed:
    """A row of the list: the newest version of a name, and how many versions there are."""

    entry: Entry
    versions: int


def index(request: Request) -> Response:
    """Every name with its newest version; `?kind=`, `?basis=` and `?text=` narrow, `?sort=` orders."""
    store, asked = page_of(request).store, request.query_params
    entries = shelf_of(store).entries()
    counts: dict[str, int] = {}
    newest: dict[str, Entry] = {}
    for one in entries:
        counts[one.name] = counts.get(one.name, 0) + 1
        newest[one.name] = one
    kind, basis, text = asked.get("kind", ""), asked.get("basis", ""), asked.get("text", "").strip()
    sort = asked.get("sort", "") if asked.get("sort", "") in SORTS else SORTS[0]
    found = [one for one in newest.values() if _fits(one, kind, basis, text)]
    pages = Pages.of(_sorted(found, sort), asked.get("page"), _A_PAGE)
    return render(
        request, "artifacts.html", rows=[Listed(one, counts[one.name]) for one in pages.rows], pages=pages,
        kinds=sorted({one.kind for one in newest.values() if one.kind}), bases=BASES, sorts=SORTS,
        chosen={"kind": kind, "basis": basis, "text": text, "sort": sort}, n_names=len(newest),
        query={"kind": kind or None, "basis": basis or None, "text": text or None, "sort": sort},
        damaged=[one for one in entries if one.fault], n_unfinished=len(unfinished(store)), root=str(store.root),
        concern=concern,
    )  # fmt: skip


def one(request: Request) -> Response:
    """One artifact; `?verify=1` reads every byte of it and of its ancestors again."""
    store, ref = Snapshot(page_of(request).store), str(request.path_params["ref"])
    entries = shelf_of(store).entries()
    try:
        found = store.artifact(ref)
        assert found.record is not None  # artifacts of the store have one
        root = trace(store, ref, verify="verify" in request.query_params, known_audits=audits_of(entries))
    except ReferenceNotFound:
        return _without_record(request, ref, entries)
    except NacreError as error:
        return _damaged(request, ref, entries, error)
    record = found.record
    described, remarks = _described(store, found)
    made = children(entries, found.ref, record.digest)
    files = sorted(record.files.items())
    findings = sorted(root.all_warnings(), key=lambda one: one.kind not in _GRAVE)
    return render(
        request, "artifact.html", record=record, sizes=SIZES, findings=findings, grave=_GRAVE,
        drawn=pedigree(root, {one.ref for one in entries}), described=described, remarks=remarks,
        versions=_versions(entries, record.name), children=made[:_MOST_CHILDREN], n_children=len(made),
        files=files[:_MOST_FILES], n_files=len(files), n_bytes=sum(size for size, _ in record.files.values()),
        config=dict(dotted(record.config)), samples=_samples(found), commands=commands(store, record),
        has_log=any(one.ref == found.ref and one.has_log for one in entries), report=_report(record),
        is_verified="verify" in request.query_params, extra=dict(dotted(record.extra)), concern=concern,
        steps=steps_of(described.drops if described else None),
    )  # fmt: skip


def changes(request: Request) -> Response:
    """What differs in the making of two artifacts, and their metrics side by side; `?from=` names the older one."""
    store, ref = Snapshot(page_of(request).store), str(request.path_params["ref"])
    new = store.artifact(ref)
    old = store.artifact(request.query_params.get("from") or _one_before(store, new))
    assert old.record is not None  # artifacts of the store have one
    assert new.record is not None
    names = dict.fromkeys([*old.record.metrics, *new.record.metrics])
    metrics = [(name, old.record.metrics.get(name), new.record.metrics.get(name)) for name in names]
    return render(
        request, "changes.html", old=old.record, new=new.record, steps=compare(store, old.ref, new.ref),
        metrics=metrics, versions=_versions(shelf_of(store).entries(), new.record.name),
        command_line=command(store, "trace", new.ref, "--diff", old.ref),
    )  # fmt: skip


def record_file(request: Request) -> Response:
    """The record as it stands in the store."""
    store = page_of(request).store
    found = store.artifact(str(request.path_params["ref"]))
    return FileResponse(found.path / RECORD_NAME, media_type="application/json", filename=RECORD_NAME)


def card(request: Request) -> Response:
    """The model card, as `nacre card` writes it."""
    store = Snapshot(page_of(request).store)
    found = store.artifact(str(request.path_params["ref"]))
    text = model_card(trace(store, found.ref, known_audits=audits_of(shelf_of(store).entries())))
    return PlainTextResponse(text, headers={"content-disposition": f'inline; filename="{CARD}"'})


def commands(store: Store, record: Record) -> list[str]:
    """What to type in a terminal to get the same, and to go on from here."""
    told = [command(store, "show", record.ref), command(store, "trace", record.ref)]
    if record.kind == "model":
        told += [command(store, "card", record.ref), command(store, "audit", record.ref)]
    if record.kind in ("model", "rung", "index"):
        told.append(command(store, "serve", record.ref))
    return told


def command(store: Store, *words: str) -> str:
    """A line for a shell; with the store where it is not the one that a terminal would look into."""
    place = [] if store.root == default_root().absolute() else ["--store", str(store.root)]
    return shlex.join(["nacre", *words, *place])


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value and len(prefix) < 200:
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _fits(entry: Entry, kind: str, basis: str, text: str) -> bool:
    words = f"{entry.ref} {entry.kind} {entry.stage} {entry.licence or ''}".casefold()
    return kind in ("", entry.kind) and basis in ("", entry.basis) and all(
        word in words for word in text.casefold().split()
    )  # fmt: skip


def _sorted(entries: Sequence[Entry], sort: str) -> list[Entry]:
    if sort == "newest":
        return sorted(sorted(entries, key=lambda one: one.name), key=lambda one: one.created, reverse=True)
    if sort == "size":
        return sorted(entries, key=lambda one: -one.n_bytes)
    if sort == "kind":
        order = {kind: number for number, kind in enumerate(KINDS)}
        return sorted(entries, key=lambda one: (order.get(one.kind, len(order)), one.kind, one.name))
    return sorted(entries, key=lambda one: one.name)


def _versions(entries: Sequence[Entry], name: str) -> list[Entry]:
    return [one for one in reversed(entries) if one.name == name]


def _one_before(store: Store, new: Resolved) -> str:
    assert new.record is not None  # artifacts of the store have one
    older = [one for one in store.versions(new.record.name) if one < new.record.version]
    if not older:
        raise ReferenceNotFound(f"{new.ref} has no older version", remedy="name one with ?from=NAME@VERSION")
    return f"{new.record.name}@{older[-1]}"


def _described(store: Store, found: Resolved) -> tuple[Description | None, list[str]]:
    """What can be said of a model or a data set, and why the rest cannot."""
    record = found.record
    assert record is not None  # artifacts of the store have one
    n_bytes = sum(size for size, _ in record.files.values())
    if record.kind not in ("model", "dataset") or (record.kind == "dataset" and n_bytes > _MOST_COUNTED):
        return None, []
    try:
        described = describe(store, found.ref)
    except NacreError as error:
        return None, [error.message]
    except (OSError, EOFError, zlib.error) as error:  # a file that was changed: the integrity warning names it
        return None, [str(error)]
    return described, list(described.remarks)


def _samples(found: Resolved) -> list[Any]:
    record = found.record
    return samples(found.path, sorted(record.files)) if record is not None and record.kind == "dataset" else []


def _report(record: Record) -> str | None:
    """Where the page shows the report that this artifact is or holds."""
    if record.stage == "ladder.report":
        return f"/ladders/{record.ref}"
    if record.stage == "audit.report":
        return f"/audits/{record.ref}"
    return f"/reports/{record.ref}/{REPORT}" if REPORT in record.files else None


def _without_record(request: Request, ref: str, entries: Sequence[Entry]) -> Response:
    """A version whose record is gone is damaged; anything else is no artifact."""
    name, _, version = ref.partition("@")
    for one in entries:
        if one.ref == ref or (one.name == name and not version and one.fault):
            remedy = "restore lineage.json from a copy, or delete the folder and run its recipe again"
            return _damaged(request, one.ref, entries, IntegrityError(one.fault, remedy=remedy))
    page_of(request).store.artifact(ref)  # says what is closest
    return RedirectResponse(Links(page_of(request).prefix)(f"/artifacts/{ref}"), 303)  # it was written meanwhile


def _damaged(request: Request, ref: str, entries: Sequence[Entry], error: NacreError) -> Response:
    name = ref.partition("@")[0]
    return render(
        request, "artifact_damaged.html", ref=ref, message=error.message, remedy=error.remedy,
        versions=_versions(entries, name), children=children(entries, ref, None),
        folder=str(page_of(request).store.root / "store" / name),
    )  # fmt: skip


VIEWS = (
    View("/artifacts", index),
    View(f"/artifacts/{{ref:path}}/{RECORD_NAME}", record_file),
    View(f"/artifacts/{{ref:path}}/{CARD}", card),
    View("/artifacts/{ref:path}/changes", changes),
    View("/artifacts/{ref:path}", one),
)
