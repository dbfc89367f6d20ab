"""Executes a plan: each step under the lock of its name, timed, and published whole or not at all.

Killed at any moment and run again, the store ends with the same digests as after an uninterrupted run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError, DataError, NacreError, UsageError, closest
from nacre.lineage.digest import LOGS_NAME
from nacre.lineage.graph import LICENCE_STOPS
from nacre.lineage.record import Cost, Parent, Record
from nacre.lineage.store import Resolved, Store
from nacre.lineage.workspace import Workspace, begin, lock, publish, recover, sweep, unfinished
from nacre.progress import Fanout, JsonLines, Progress, Scalar, Silent, TensorBoard
from nacre.recipe import machine
from nacre.recipe.failures import translate
from nacre.recipe.plan import CACHED, WAITING, Draft, Plan, PlannedStep, make, settle
from nacre.recipe.recipe import Recipe
from nacre.recipe.stage import Work


@dataclass(frozen=True)
class StepResult:
    """A complete step: `state` is `cached` (nothing was done), `recovered` (only published) or `done`."""

    step: str
    state: str
    ref: str
    path: Path
    record: Record

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "state": self.state,
            "ref": self.ref,
            "digest": self.record.digest,
            "path": str(self.path),
            "seconds": self.record.cost.seconds,
            "metrics": dict(self.record.metrics),
        }


class Watcher(Protocol):
    """Who is told what a run does."""

    def planned(self, plan: Plan) -> None: ...
    def begins(self, step: PlannedStep) -> Progress: ...
    def waits(self, step: str, holder: str) -> None: ...
    def ends(self, result: StepResult) -> None: ...


class Unwatched:
    """Tells nobody."""

    def planned(self, plan: Plan) -> None:
        pass

    def begins(self, step: PlannedStep) -> Progress:
        return Silent()

    def waits(self, step: str, holder: str) -> None:
        pass

    def ends(self, result: StepResult) -> None:
        pass


@dataclass(frozen=True)
class RunOptions:
    """`only` runs one step (those before it must be complete); `tensorboard` writes `logs/tensorboard` too.

    `engines` is where stages open engines: its budget and cache are shared by all steps.
    """

    only: str | None = None
    device: str = "auto"
    tensorboard: bool = False
    watcher: Watcher = field(default_factory=Unwatched)
    engines: EngineRoom = field(default_factory=EngineRoom)


def run(recipe: Recipe, store: Store, options: RunOptions | None = None) -> list[StepResult]:
    """Makes what is not made yet; gives every step's result, in order.

    Raises UsageError in one of several processes, ConfigError for the mistakes of all steps before any work, then
    whatever a stage raises: complete steps stay, the one cut short goes on from its scratch folder when run again.
    """
    _check_alone()
    options = options or RunOptions()
    plan = make(recipe, store)
    options.watcher.planned(plan)
    steps = _chosen(plan, options.only)
    device = machine.resolve_device(options.device)
    for step in steps:
        if step.state not in (CACHED, WAITING):
            _check(step)
    _make_root(store)
    products = {step.name: step.product for step in plan.steps if step.product is not None}
    results = []
    for step in steps:
        result = _complete(step.draft, products, store, device, options)
        products[step.name] = Resolved(result.ref, result.path, result.record)
        options.watcher.ends(result)
        results.append(result)
    with _translated(store.root):
        store.hashes.save()
    return results


def _check_alone() -> None:
    """Several processes of `torchrun` would wait for each other: one holds the step, all are needed to train it."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size != "1":
        raise UsageError(
            f"steps are made by one process, and this is one of {size} (WORLD_SIZE is {size})",
            remedy="start it without torchrun, or unset WORLD_SIZE; nacre.train.loop.train trains by several, in a "
            "script of your own",
        )


def _chosen(plan: Plan, only: str | None) -> list[PlannedStep]:
    if only is None:
        return list(plan.steps)
    chosen = [step for step in plan.steps if step.name == only]
    if not chosen:
        raise ConfigError(f"no step {only!r} in {plan.recipe.name}", remedy=closest(only, plan.recipe.steps))
    if chosen[0].state == WAITING:
        raise ConfigError(
            f"{only} cannot run alone: {chosen[0].why} is complete", remedy="run the recipe without --only"
        )
    return chosen


def _make_root(store: Store) -> None:
    """Raises UsageError where nothing can be written, before work that could not be kept; a full disk is told apart."""
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        why = None if os.access(store.root, os.W_OK) else "no permission"
    except OSError as error:
        known = translate(error, store.root)
        if known is not None:
            raise known from error
        why = error.strerror
    if why is not None:
        remedy = "give a folder of your own: --store DIR, or NACRE_HOME"
        raise UsageError(f"the store {store.root} cannot be written: {why}", remedy=remedy)


def _check(step: PlannedStep) -> None:
    if step.draft.stage.check is not None:
        step.draft.stage.check(step.draft.config, step.inputs)


def _complete(
    draft: Draft, products: Mapping[str, Resolved], store: Store, device: str, options: RunOptions
) -> StepResult:
    planned = settle(draft, products, store)
    if planned.product is not None:
        _tidy(store, draft.artifact)
        return _result(draft.name, CACHED, planned.product)
    with (
        _translated(store.root / "work"),
        lock(store, draft.artifact, lambda holder: options.watcher.waits(draft.name, holder)),
    ):
        planned = settle(draft, products, store)  # another process may have made it meanwhile
        if planned.product is not None:
            return _result(draft.name, CACHED, planned.product)
        recovered = recover(store, draft.artifact, str(planned.record.fingerprint))
        if recovered is not None:
            return _result(draft.name, "recovered", store.get(recovered.name, recovered.version))
        _check(planned)
        record = _execute(planned, store, device, options)
        return _result(draft.name, "done", store.get(record.name, record.version))


def _execute(planned: PlannedStep, store: Store, device: str, options: RunOptions) -> Record:
    space = begin(store, planned.draft.artifact, str(planned.record.fingerprint))
    machine.reset_peak_memory()
    began = time.monotonic()
    with _sinks(space, options.watcher.begins(planned), options.tensorboard) as progress:
        if space.attempts > 1:
            progress.note("resumed", attempt=space.attempts)
        work = Work(planned.inputs, space.out, space.scratch, planned.draft.seed, progress, device, options.engines)
        try:
            metrics = planned.draft.stage(planned.draft.config, work)
        except (ConfigError, DataError):  # the mended config or data is another step: nobody goes on from here
            sweep(store, planned.draft.artifact, str(planned.record.fingerprint))
            raise
    cost = Cost(round(time.monotonic() - began, 3), work.tokens, work.flops, machine.peak_memory_mib())
    if space.attempts > 1:
        work.notes.append(f"resumed: seconds and memory are those of attempt {space.attempts}")
    record = replace(
        planned.record,
        cost=cost,
        versions=machine.describe_versions(),
        machine=machine.describe_machine(device),
        metrics=_plain_metrics(metrics, planned.draft.stage.name),
        licence=work.licence or _inherited_licence(planned.record.parents),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=tuple(work.notes),
    )
    return publish(store, space, record)


@contextmanager
def _sinks(space: Workspace, shown: Progress, tensorboard: bool) -> Iterator[Progress]:
    logs = space.out / LOGS_NAME
    lines = JsonLines(logs / "metrics.jsonl")
    board: TensorBoard | None = None
    try:
        board = TensorBoard(logs / "tensorboard") if tensorboard else None
        yield Fanout([lines, shown, *([board] if board else [])])
    finally:
        lines.close()
        if board is not None:
            board.close()


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """A full disk or exhausted memory becomes a ResourceError; faults in programs pass as they are."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        known = translate(error, folder)
        if known is None:
            raise
        raise known from error


def _plain_metrics(metrics: Mapping[str, Any], stage: str) -> dict[str, Scalar]:
    plain: dict[str, Scalar] = {}
    for name, value in metrics.items():
        convert: Callable[[], Any] | None = getattr(value, "item", None)  # numpy and torch scalars
        scalar = convert() if callable(convert) else value
        if scalar is not None and not isinstance(scalar, bool | int | float | str):
            raise NacreError(
                f"{stage} gave the metric {name} as a {type(value).__name__}",
                remedy="report this: a fault of the stage",
            )
        plain[name] = scalar
    return plain


def _inherited_licence(parents: tuple[Parent, ...]) -> str | None:
    """Every licence that comes in through content, joined by AND."""
    inherited = {one.licence for one in parents if one.licence and one.relation not in LICENCE_STOPS}
    return " AND ".join(sorted({part for licence in inherited for part in licence.split(" AND ")})) or None


def _tidy(store: Store, name: str) -> None:
    """Removes what a process that was killed right after publishing left behind, unless someone is working there."""
    if not unfinished(store, name):
        return
    try:
        with lock(store, name, _give_up):
            sweep(store, name)
    except _Busy:
        return


class _Busy(Exception):
    pass


def _give_up(holder: str) -> None:
    raise _Busy(holder)


def _result(step: str, state: str, product: Resolved) -> StepResult:
    assert product.record is not None  # artifacts of the store have one
    return StepResult(step, state, product.ref, product.path, product.record)
