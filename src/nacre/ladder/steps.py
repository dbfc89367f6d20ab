"""A task's tiers as recipes of two steps each: a rung, and its answers to the test rows.

Tiers run apart, so that one that fails leaves the others alone; what they share (the task, the test rows, the cache of
an engine's answers) is made once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError, NacreError, ReferenceNotFound
from nacre.ladder.answering import PartlyAnswered
from nacre.ladder.task_file import TaskFile
from nacre.lineage.digest import digest_json
from nacre.lineage.durable import write_atomic
from nacre.lineage.store import Store
from nacre.recipe import catalogue
from nacre.recipe.config import Problem, raise_problems, try_build
from nacre.recipe.recipe import Recipe, Step
from nacre.recipe.run import RunOptions, StepResult, Watcher
from nacre.recipe.run import run as run_recipe
from nacre.tiers.rung import TIERS

logger = logging.getLogger(__name__)

TRAINED = ("tune", "pretrain")  # their result depends on the seed


@dataclass(frozen=True)
class Ground:
    """What all tiers stand on: the task's artifacts, and where and how they run."""

    file: TaskFile
    store: Store
    engines: EngineRoom
    device: str
    watcher: Watcher
    seed: int
    task: StepResult
    test: StepResult
    corpus: StepResult | None = None


@dataclass(frozen=True)
class Solved:
    """A rung and its answers to the test rows; `unmeasured` are the rows that the budget left out."""

    rung: StepResult
    answers: StepResult
    unmeasured: int = 0


def check_tiers(file: TaskFile) -> None:
    """Raises one ConfigError for the mistakes in all tiers' configs, before any work."""
    problems: list[Problem] = []
    for tier, values in file.tiers.items():
        try:
            kind = catalogue.find(f"{tier}.solve").config_type
        except NacreError:
            continue  # a tier whose packages are missing is a row with that reason
        problems += try_build(kind, values or {}, f"tiers.{tier}")[1]
    raise_problems(problems)


def lay_ground(
    file: TaskFile, store: Store, engines: EngineRoom, device: str, watcher: Watcher, seed: int = 0
) -> Ground:
    """Makes the task's rows, the test rows, and the named corpus without them. Raises what is wrong with them."""
    named = {f"data.{key}" if key != "unlabelled" else key: ref for key, ref in file.data.items()}
    wants_corpus = file.corpus is not None and file.tiers.get("pretrain", {}) is not None
    found = _found(named | ({"corpus": str(file.corpus)} if wants_corpus else {}), file, store)
    inputs = {key.removeprefix("data."): found[key] for key in named}
    steps = {"task": Step("task.prepare", inputs, file.config), "test": Step("task.test", inputs, file.config)}
    if wants_corpus:
        given = {"corpus": found["corpus"], "test": "test"}
        steps["corpus"] = Step("task.corpus", given, {"kind": file.kind})
    recipe = Recipe(_name(file), steps, seed, file.task.about, file.folder)
    made = {one.step: one for one in run_recipe(recipe, store, RunOptions(None, device, False, watcher, engines))}
    return Ground(file, store, engines, device, watcher, seed, made["task"], made["test"], made.get("corpus"))


def _found(refs: Mapping[str, str], file: TaskFile, store: Store) -> dict[str, str]:
    """References as the store has them, by the keys of the task file; raises one ConfigError for those it lacks.

    A folder that is called like a step (`data: {test: test}`) is not taken for the step.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for key, ref in refs.items():
        try:
            found[key] = store.resolve(ref, file.folder).ref
        except NacreError as error:
            problems.append(Problem(key, error.message, error.remedy))
    raise_problems(problems)
    return found


def solve(ground: Ground, tier: str, repetition: int = 0) -> Solved:
    """Builds a tier's rung with the `repetition`-th seed and lets it answer. Raises what kept it from that.

    Where the budget ends among the test rows, those answered before are kept, as a fair sample of all.
    """
    try:
        rung, answers = _run(ground, tier, repetition, rows=None)
        return Solved(rung, answers)
    except PartlyAnswered as error:
        if not error.answered:
            raise
        rung, answers = _run(ground, tier, repetition, rows=error.answered)
        return Solved(rung, answers, int(ground.test.record.metrics["test_rows"]) - error.answered)


def _run(ground: Ground, tier: str, repetition: int, rows: int | None) -> list[StepResult]:
    file, name = ground.file, tier if repetition == 0 else f"{tier}-seed{repetition}"
    config = {} if rows is None else {"rows": rows}
    steps = {
        name: Step(f"{tier}.solve", _inputs(ground, tier), file.tiers.get(tier) or {}),
        f"{name}-answers": Step("ladder.answer", {"rung": name, "test": ground.test.ref}, config),
    }
    recipe = Recipe(_name(file), steps, ground.seed + repetition, file.task.about, file.folder)
    options = RunOptions(device=ground.device, watcher=ground.watcher, engines=ground.engines)
    return run_recipe(recipe, ground.store, options)


def _name(file: TaskFile) -> str:
    return f"ladder/{file.name}"


def _inputs(ground: Ground, tier: str) -> dict[str, str]:
    """What a tier's stage takes, of what the task names."""
    offered = {"task": ground.task.ref}
    if ground.corpus is not None:
        offered["corpus"] = ground.corpus.ref
    wanted = catalogue.find(f"{tier}.solve").inputs
    given = {name: ref for name, ref in offered.items() if name in wanted}
    if "base" in wanted:
        given["base"] = _one_found("base", ground.file.base, ground)
    if "engine" in wanted:
        try:
            given["engine"] = _one_found("upstream", engine_ref(ground.file.upstream, ground.store), ground)
        except NacreError as error:
            if not wanted["engine"].optional:
                raise
            logger.warning("%s goes on without an engine: %s", tier, error.message)
    return given


def _one_found(key: str, ref: str, ground: Ground) -> str:
    try:
        return ground.store.resolve(ref, ground.file.folder).ref
    except ReferenceNotFound as error:
        raise ReferenceNotFound(f"{key}: {error.message}", remedy=error.remedy) from error


def engine_ref(upstream: str | Mapping[str, Any], store: Store) -> str:
    """A REF of the engine: as given, or the folder that holds what was given as its `engine.json`."""
    if isinstance(upstream, str):
        return upstream
    plain = {"engine": "openai_http", **upstream}
    folder: Path = store.root / "engines" / digest_json(plain).removeprefix("sha256:")[:12]
    if not (folder / "engine.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "engine.json", (json.dumps(plain, ensure_ascii=False, indent=1) + "\n").encode())
    return str(folder)


def chosen(file: TaskFile, tiers: tuple[str, ...]) -> TaskFile:
    """The task with every tier left out that is not among `tiers` (all, when empty); a tier asked for is not left out,
    whatever the file says."""
    for tier in tiers:
        if tier not in TIERS:
            raise ConfigError(f"no tier {tier!r}", remedy=f"one or more of: {', '.join(TIERS)}")
    if not tiers:
        return file
    return replace(file, tiers={tier: (file.tiers.get(tier) or {}) if tier in tiers else None for tier in TIERS})
