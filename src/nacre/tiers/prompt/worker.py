"""Makes a prompt: opens the engine, searches in the way that it allows, writes the prompt, its log, and the rung."""

from __future__ import annotations

from collections.abc import Mapping

from nacre.engine.protocol import Engine
from nacre.progress import Scalar
from nacre.recipe.config import plain
from nacre.recipe.stage import Work
from nacre.tiers.asking.kept import keep_task
from nacre.tiers.prompt.optimising import optimise_words
from nacre.tiers.prompt.outcome import Outcome
from nacre.tiers.prompt.stages import PromptConfig, Way
from nacre.tiers.prompt.ways import way_for
from nacre.tiers.rung import ENGINE_FOLDER, Manifest, keep_engine, write_manifest
from nacre.tiers.task import Task, load


def prompt_solve(config: PromptConfig, work: Work) -> Mapping[str, Scalar]:
    """Writes the rung: engine, `prompt.md`, `choices.json`, and for similarity the vectors."""
    task, paid_before = load(work.inputs["task"]), work.engines.spent.requests
    keep_engine(work.inputs["engine"], work.out)
    with work.engines.open(work.out / ENGINE_FOLDER, remote=True) as engine:
        way, outcome = _search(engine, task, config, work, keep=True)
        name = engine.name
    outcome.save(work.out)
    write_manifest(
        work.out,
        Manifest.of(
            task,
            "prompt",
            f"{name}: {_solver(way, outcome)}",
            owns={
                "kernel": "called",
                "weights": "called",
                "data": "own" if outcome.n_demonstrations else "none",
                "prompt": "own",
                "index": "none",
            },
            how={"task": keep_task(task), "way": way, "config": plain(config)},
        ),
    )
    return _figures(way, name, outcome) | {"requests_paid": work.engines.spent.requests - paid_before}


def prompt_optimise(config: PromptConfig, work: Work) -> Mapping[str, Scalar]:
    """Writes `prompt.md` and `choices.json`."""
    task, paid_before = load(work.inputs["task"]), work.engines.spent.requests
    with work.engines.open(work.inputs["engine"], remote=True) as engine:
        way, outcome = _search(engine, task, config, work, keep=False)
        name = engine.name
    outcome.save(work.out)
    return _figures(way, name, outcome) | {"requests_paid": work.engines.spent.requests - paid_before}


def _search(engine: Engine, task: Task, config: PromptConfig, work: Work, *, keep: bool) -> tuple[Way, Outcome]:
    way = way_for(config.way, task, engine)
    if way == "words":
        return way, optimise_words(engine, task, config, work.seed, work.progress)
    from nacre.tiers.prompt.wording_search import optimise_similarity

    return way, optimise_similarity(engine, task, config, work.seed, work.out if keep else None)


def _solver(way: Way, outcome: Outcome) -> str:
    shown = f", {outcome.n_demonstrations} demonstrations" if outcome.n_demonstrations else ""
    return f"optimised {'prompt' if way == 'words' else 'wording for nearness'}{shown}"


def _figures(way: Way, name: str, outcome: Outcome) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {
        "way": way,
        "engine": name,
        "winner": outcome.winner,
        "valid_score": round(outcome.score, 4),
        "candidates": len(outcome.log["candidates"]),
        "not_tried": len(outcome.log["not_tried"]),
        "requests_asked": outcome.log["requests"]["asked"],
        "requests_budget": outcome.log["requests"]["budget"],
    }
    if outcome.default is not None:
        found["valid_default"] = round(outcome.default, 4)
    return found
