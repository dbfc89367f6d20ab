"""What is being made now, and how steps went: loss and whatever else their logs hold, live while they run."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nacre.errors import IntegrityError, ReferenceNotFound
from nacre.lineage.store import Store
from nacre.lineage.workspace import Workspace, holder, unfinished
from nacre.web.contract import View, page_of, viewer_of
from nacre.web.curves import Chart, Line, chart
from nacre.web.paging import Pages
from nacre.web.rendering import Links, number, render, seconds
from nacre.web.runlog import Curve, Reading, read_log
from nacre.web.shelf import LOG, Entry, shelf_of

State = Literal["running", "interrupted", "finished"]
UNDER_WAY = "~"  # before the name of a work folder, where an artifact's reference has none
MOST_RUNS = 6
_A_PAGE = 100
_MOST_CHARTS = 40
_FIRST = ("loss", "lr", "grad_norm", "tokens_per_s")


@dataclass(frozen=True)
class Run:
    """A step with a log. `ref` is its address on the page: an artifact's reference, or `~` and a work folder's name.

    `holder` says which process works on it; `problem` why its log cannot be read.
    """

    ref: str
    name: str
    state: State
    log: Reading
    holder: str = ""
    attempts: int = 0
    entry: Entry | None = None
    problem: str = ""

    @property
    def key(self) -> str:
        """Changes when there is something new to show."""
        return f"{self.ref} {self.state} {self.log.size} {self.log.rows} {self.problem}"

    @property
    def is_live(self) -> bool:
        return self.state == "running"

    @property
    def done(self) -> float | None:
        """The share that is done, 0..1; None where the log does not say."""
        log = self.log
        return min(1.0, log.step / log.total) if log.step is not None and log.total else None

    @property
    def left_s(self) -> float | None:
        """How long it will still take at the speed so far."""
        done = self.done
        return self.log.seconds * (1 - done) / done if done and self.log.seconds and self.is_live else None

    @property
    def go_on(self) -> str:
        """What to type so that a step that was cut short goes on where it stopped."""
        first, *rest = self.name.split("/")
        if first == "ladder" and rest:
            return shlex.join(["nacre", "ladder", rest[0]])
        known = Path("recipes") / f"{first}.yaml"
        return shlex.join(["nacre", "run", str(known if known.is_file() else known.name)])


@dataclass(frozen=True)
class Figure:
    """A chart with its title; `missing` are the series that had values which are no numbers."""

    title: str
    chart: Chart
    missing: Sequence[tuple[str, Curve]]


def index(request: Request) -> Response:
    """What runs, what was cut short, and finished steps, newest first; `?all=1` lists more than what trains."""
    store = page_of(request).store
    chosen = request.query_params.getlist("with")[:MOST_RUNS]
    if chosen:
        return RedirectResponse(_address(request, chosen[0], chosen[1:]), 303)
    finished = [one for one in shelf_of(store).entries() if one.has_log and not one.fault]
    trained = [one for one in finished if one.kind in ("model", "rung")]
    every = "all" in request.query_params
    order = sorted(finished if every else trained, key=lambda one: one.created, reverse=True)
    return render(
        request, "runs.html", under_way=list(under_way(store)), every=every, n_all=len(finished),
        pages=Pages.of(order, request.query_params.get("page"), _A_PAGE), most=MOST_RUNS,
    )  # fmt: skip


def one(request: Request) -> Response:
    """A run's curves. `?with=` lays others over them, `?axis=time` and `?scale=log` change the axes; `?part=curves`
    gives the curves alone, or 304 where nothing is new (If-None-Match)."""
    store, asked = page_of(request).store, request.query_params
    ref = str(request.path_params["ref"])
    found = find(store, ref)
    if found is None:
        later = _made_of(store, ref)
        if later is None or asked.get("part") == "curves":
            raise ReferenceNotFound(f"{ref!r} is no run of this store", remedy="choose one of the list of runs")
        return RedirectResponse(_address(request, later.ref, asked.getlist("with")), 303)
    others = [one for other in asked.getlist("with")[: MOST_RUNS - 1] if (one := find(store, other)) and other != ref]
    runs = [found, *others]
    by_time, log = asked.get("axis") == "time", asked.get("scale") == "log"
    view: dict[str, Any] = {
        "run": found, "runs": runs, "figures": list(figures(runs, by_time=by_time, log=log)), "by_time": by_time,
        "log": log, "with_": [other.ref for other in others], "n_charts": _MOST_CHARTS,
    }  # fmt: skip
    if asked.get("part") == "curves":
        tag = _tag(request, runs)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        fragment = render(request, "run_curves.html", **view)
        fragment.headers.update({"etag": tag, "x-nacre-live": "yes" if any(run.is_live for run in runs) else "no"})
        return fragment
    return render(
        request, "run.html", **view, choices=_choices(store, runs), query=_query(asked),
        address=partial(with_others, page_of(request).prefix),
    )  # fmt: skip


def under_way(store: Store) -> Iterator[Run]:
    """Work folders: those being worked in, then those that were cut short."""
    runs = [run for folder in unfinished(store) if (run := _in_work(store, folder))]
    yield from sorted(runs, key=lambda run: (run.state != "running", -(run.log.last or 0.0), run.ref))


def find(store: Store, ref: str) -> Run | None:
    """The run at an address; None where there is none, or it keeps no log."""
    if ref.startswith(UNDER_WAY):
        folder = next((one for one in unfinished(store) if one.name == ref[1:]), None)
        return _in_work(store, folder) if folder is not None else None
    try:
        found = store.artifact(ref)
    except (ReferenceNotFound, IntegrityError):
        return None
    log = found.path / LOG
    if not log.is_file():
        return None
    entry = next((one for one in shelf_of(store).entries() if one.ref == found.ref), None)
    return _read(log, partial(Run, found.ref, found.ref, "finished", entry=entry))


def figures(runs: Sequence[Run], *, by_time: bool = False, log: bool = False) -> Iterator[Figure]:
    """The charts of one or several runs: all losses in one, every other metric in its own."""
    single = len(runs) == 1
    for title, names in _groups(runs):
        lines: list[Line] = []
        missing: list[tuple[str, Curve]] = []
        for place, run in enumerate(runs):
            for curve in run.log.curves:
                if curve.name not in names:
                    continue
                label = curve.name if single else f"{run.name} · {curve.name}" if len(names) > 1 else run.name
                colour = names.index(curve.name) if single else place + 6 * names.index(curve.name)
                pieces = [[(p.seconds if by_time else p.step, p.value) for p in piece] for piece in curve.lines]
                note = number(curve.last.value) if curve.last else "–"
                lines.append(Line(label, pieces, colour, note))
                missing += [(label, curve)] if curve.missing else []
        drawn = chart(lines, log=log and title != "lr", x_text=seconds if by_time else None)
        if drawn is not None or missing:
            yield Figure(title, drawn or Chart([], [], []), missing)


def _groups(runs: Iterable[Run]) -> list[tuple[str, list[str]]]:
    """(title, names of metrics) of each chart, those that people look at first coming first."""
    names = dict.fromkeys(curve.name for run in runs for curve in run.log.curves)
    losses = sorted((name for name in names if name.endswith("loss")), key=lambda name: (len(name), name))
    groups = {"loss": losses} if losses else {}
    groups |= {name: [name] for name in names if name not in losses}
    order = {name: place for place, name in enumerate(_FIRST)}
    ranked = sorted(groups, key=lambda name: (order.get(name, 1.5 if name.startswith("valid") else len(order)), name))
    return [(name, groups[name]) for name in ranked][:_MOST_CHARTS]


def _in_work(store: Store, folder: Path) -> Run | None:
    """A work folder as a run; None where it has gone meanwhile."""
    space = Workspace(folder)
    flat, _, mark = folder.name.rpartition("-")
    if not mark or not folder.is_dir():
        return None
    name = flat.replace("+", "/")
    held = holder(store, name)
    state: State = "running" if held and _is_latest(store, name, folder) else "interrupted"
    make = partial(
        Run, UNDER_WAY + folder.name, name, state, holder=held or "" if state == "running" else "",
        attempts=space.attempts,
    )  # fmt: skip
    return _read(folder / "out" / LOG, make)


def _is_latest(store: Store, name: str, folder: Path) -> bool:
    """Whether this is the folder of its name that was begun last: only there can the lock's holder work."""
    return max(unfinished(store, name), key=_begun, default=folder) == folder


def _begun(folder: Path) -> float:
    try:
        return (folder / "attempts").stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path, make: partial[Run]) -> Run:
    try:
        return make(log=read_log(path))
    except FileNotFoundError:
        return make(log=Reading())  # nothing was logged yet
    except OSError as error:
        return make(log=Reading(), problem=str(error))


def _made_of(store: Store, ref: str) -> Entry | None:
    """The artifact that a work folder has become."""
    flat, _, mark = ref.removeprefix(UNDER_WAY).rpartition("-")
    name = flat.replace("+", "/")
    if not ref.startswith(UNDER_WAY) or not mark:
        return None
    made = [
        one for one in shelf_of(store).entries()
        if one.name == name and one.fingerprint.removeprefix("sha256:").startswith(mark)
    ]  # fmt: skip
    return made[-1] if made else None


def _choices(store: Store, runs: Sequence[Run]) -> list[str]:
    """Runs to lay over: those under way and the newest finished ones, of the same stage first."""
    shown = {run.ref for run in runs}
    stage = runs[0].entry.stage if runs[0].entry else ""
    finished = [one for one in shelf_of(store).entries() if one.has_log and one.kind in ("model", "rung")]
    newest = sorted(finished, key=lambda one: one.created, reverse=True)
    ordered = sorted(newest, key=lambda one: one.stage != stage)
    refs = [*(run.ref for run in under_way(store)), *(one.ref for one in ordered)]
    return [ref for ref in refs if ref not in shown][:100]


def _query(asked: Mapping[str, str]) -> dict[str, str]:
    return {name: asked[name] for name in ("axis", "scale") if name in asked}


def _tag(request: Request, runs: Sequence[Run]) -> str:
    """Stands for all that the curves depend on."""
    seen = [*(run.key for run in runs), request.url.query, viewer_of(request).words.language]
    return f'"{hashlib.sha256(repr(seen).encode()).hexdigest()[:20]}"'


def _address(request: Request, ref: str, others: Sequence[str]) -> str:
    return with_others(page_of(request).prefix, ref, others)


def with_others(prefix: str, ref: str, others: Sequence[str], **query: str) -> str:
    """The address of a run with others laid over it."""
    asked = urlencode([*query.items(), *(("with", other) for other in others)])
    return Links(prefix)(f"/runs/{ref}") + (f"?{asked}" if asked else "")


VIEWS = (View("/runs", index), View("/runs/{ref:path}", one))
