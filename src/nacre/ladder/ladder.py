"""One task, every tier, one table: `climb` runs what `nacre ladder` shows."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nacre.data.read import read
from nacre.engine.protocol import BudgetReached, Unsupported
from nacre.engine.room import Budget, EngineRoom
from nacre.errors import ConfigError, MissingDependency, NacreError, ReferenceNotFound
from nacre.ladder import measured
from nacre.ladder.answering import PREDICTIONS
from nacre.ladder.between import between
from nacre.ladder.compare import compare
from nacre.ladder.publish import keep
from nacre.ladder.recommend import Asked, recommend
from nacre.ladder.result import LadderResult, Row, Status
from nacre.ladder.steps import TRAINED, Ground, Solved, check_tiers, chosen, lay_ground, solve
from nacre.ladder.task_file import TaskFile
from nacre.ladder.words import Words
from nacre.lineage.store import Store
from nacre.metrics.quality import Quality
from nacre.recipe.failures import translate
from nacre.recipe.machine import describe_machine, resolve_device
from nacre.recipe.run import Unwatched, Watcher
from nacre.tiers.rung import TIERS
from nacre.train.result import Interrupted

logger = logging.getLogger(__name__)

_SEEDS = 2**32  # numpy's generators and scikit-learn take no larger ones
# What keeps a tier from running at all, as against failing while it runs.
_CANNOT = (Unsupported, MissingDependency, ReferenceNotFound, BudgetReached)


@runtime_checkable
class ClimbWatcher(Protocol):
    """A watcher that wants to know, while the others still run, that a tier could not be measured, and why."""

    def not_measured(self, tier: str, status: Status, error: NacreError) -> None: ...


@dataclass(frozen=True)
class LadderOptions:
    """How to climb.

    `tiers`: only these (empty: all). `language` is that of the words of the result (default: the task's). `margin`: the
    shortfall from the best that is accepted, in 0..1. `cached` keeps and uses an engine's answers; `through_http`
    calls local engines over loopback.
    """

    tiers: tuple[str, ...] = ()
    device: str = "auto"
    seed: int = 0
    language: str | None = None
    margin: float = 0.0
    cached: bool = True
    through_http: bool = True
    watcher: Watcher = field(default_factory=Unwatched)


def climb(file: TaskFile, store: Store, options: LadderOptions | None = None) -> LadderResult:
    """Solves the task at every tier and compares them on the same test rows.

    A tier that cannot run, or fails, is a row with its reason. What is complete is not made again: after a kill, or
    with a larger budget, the same call goes on. Raises ConfigError and DataError for what is wrong with the task, and
    Interrupted when it is asked to stop.
    """
    options = options or LadderOptions()
    check_tiers(file)
    file = chosen(file, options.tiers)
    _check_budget(file)
    _check_seeds(options.seed, file.seeds)
    Asked(file.task.metric, file.task.language, file.prices.currency, options.margin)  # raises for a wrong margin
    device = resolve_device(options.device)
    cache = store.root / "cache" / "answers" if options.cached else None
    engines = EngineRoom(cache, file.budget, file.prices, options.through_http, device)
    ground = lay_ground(file, store, engines, device, options.watcher, options.seed)
    language = options.language or file.task.language
    climbed = [_tier(ground, number, tier, language) for number, tier in enumerate(TIERS)]
    result = _result(ground, climbed, language, options.margin)
    return keep(result, ground, [one for each in climbed for one in each.solved], options.margin)


def _check_budget(file: TaskFile) -> None:
    for name, limit in asdict(file.budget).items():
        if limit is not None and not (limit > 0 and math.isfinite(limit)):
            raise ConfigError(f"the budget of {name} is {limit}", remedy="give more than 0, or leave it out")
    prices = file.prices
    known = (prices.input_per_million, prices.output_per_million, prices.embedding_per_million)
    if file.budget.money is not None and all(one is None for one in known):
        raise ConfigError(
            f"the budget is {file.budget.money:g} {prices.currency}, but no price of a token is known",
            remedy="add prices: {input_per_million, output_per_million, embedding_per_million}, or limit tokens",
        )


def _check_seeds(first: int, count: int) -> None:
    if first < 0 or first + count > _SEEDS:
        raise ConfigError(
            f"{count:,} seeds from {first:,} on: out of range",
            remedy=f"whole numbers from 0 to {_SEEDS - 1:,}",
        )


@dataclass(frozen=True)
class _Climbed:
    """A tier's row as far as it is known alone, and what stands behind it, per seed."""

    row: Row
    solved: Sequence[Solved] = ()

    @property
    def values(self) -> list[list[Any]]:
        """Its answers to the test rows, per seed."""
        return [[one["value"] for one in read(each.answers.path / PREDICTIONS)] for each in self.solved]


def _tier(ground: Ground, number: int, tier: str, language: str) -> _Climbed:
    if tier in ground.file.tiers and ground.file.tiers[tier] is None:
        words = Words(language)
        reason, remedy = words("left_out"), words("left_out_remedy", tier=tier)
        return _Climbed(Row(number, tier, status="skipped", reason=reason, remedy=remedy))
    solved: list[Solved] = []
    try:
        ground.engines.check()
        for repetition in range(ground.file.seeds if tier in TRAINED else 1):
            solved.append(solve(ground, tier, repetition))
    except Interrupted:
        raise
    except NacreError as error:
        if not solved:  # else: the seeds that are there count
            return _failed(ground, number, tier, error)
        logger.warning("%s: %d of %d seeds: %s", tier, len(solved), ground.file.seeds, error.message)
    except Exception as error:
        if logger.isEnabledFor(logging.DEBUG):
            logger.exception("the tier %s failed", tier)
        known = translate(error, ground.store.root)
        fault = NacreError(f"{type(error).__name__}: {error}", remedy="a fault in Nacre; see it with --debug")
        return _failed(ground, number, tier, known or fault)
    return _Climbed(measured.row(ground, number, tier, solved, language), solved)


def _failed(ground: Ground, number: int, tier: str, error: NacreError) -> _Climbed:
    status: Status = "skipped" if isinstance(error, _CANNOT) else "failed"
    if isinstance(ground.watcher, ClimbWatcher):
        ground.watcher.not_measured(tier, status, error)
    return _Climbed(Row(number, tier, status=status, reason=error.message, remedy=error.remedy))


def _result(ground: Ground, climbed: Sequence[_Climbed], language: str, margin: float) -> LadderResult:
    task = ground.file.task
    quality = Quality(task.kind, task.metric, task.target_language or task.language)
    tests = list(read(ground.test.path / "test.jsonl"))
    answers = {one.row.name: one.values for one in climbed if one.solved}
    compared = compare([one.row for one in climbed], quality, tests, answers)
    asked = Asked(task.metric, language, ground.file.prices.currency, margin)
    return LadderResult(
        task=task.name,
        metric=task.metric,
        kind=task.kind,
        language=language,
        machine=describe_machine(ground.device),
        rows=compared,
        recommended=recommend(compared, asked),
        test_examples=len(tests),
        about=task.about,
        prices=ground.file.prices,
        between=between(compared, quality, tests, answers, language),
        data=dict(ground.test.record.metrics),
        spent=asdict(ground.engines.spent),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def with_budget(file: TaskFile, **limits: float | int | None) -> TaskFile:
    """The task under another budget; None leaves a limit as the task has it."""
    given = {name: value for name, value in limits.items() if value is not None}
    return replace(file, budget=Budget(**{**asdict(file.budget), **given}))


def here(ref: str) -> str:
    """A REF from a command line: a path is relative to the working folder, not to the task's file."""
    path = Path(ref).expanduser()
    return str(path.absolute()) if path.exists() else ref
