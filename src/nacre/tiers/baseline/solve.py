"""The work behind `baseline.solve`: per kind of task the classical solver, its variants chosen on validation rows.

A rung of tier 0 holds its solver's files, `rung.json`, and `choices.json`: every variant with its validation figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from nacre.data.write import write_json
from nacre.lineage.digest import hash_file
from nacre.metrics.quality import Kind
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.baseline.stages import SolveConfig
from nacre.tiers.rung import Manifest, write_manifest
from nacre.tiers.task import Row, Task, load


@dataclass(frozen=True)
class Solved:
    """What a solver says of itself. `weights` counts fitted numbers; `variants` maps each to its validation figure."""

    solver: str
    chosen: str
    variants: Mapping[str, float]
    weights: int = 0
    index: bool = False  # the rung holds an index of data rather than weights
    how: Mapping[str, Any] = field(default_factory=dict)


def solve_task(config: SolveConfig, work: Work) -> Mapping[str, Scalar]:
    """Solves the task, writes the rung, gives what was chosen and what it reached on validation rows."""
    task = load(work.inputs["task"])
    solved = _SOLVERS[task.kind](task, config, work)
    manifest = Manifest.of(
        task,
        "baseline",
        solved.solver,
        trained_parameters=solved.weights,
        owns={
            "kernel": "none",
            "weights": "own" if solved.weights else "none",
            "data": "own",
            "prompt": "none",
            "index": "own" if solved.index else "none",
        },
        how=solved.how,
    )
    write_manifest(work.out, manifest)
    metric = task.metric
    choices = {"metric": metric, "chosen": solved.chosen, "validation": dict(solved.variants), "refit": config.refit}
    write_json(work.out / "choices.json", choices)
    best = {f"valid_{metric}": round(solved.variants[solved.chosen], 6)} if solved.variants else {}
    rows: dict[str, Scalar] = {"train_rows": len(task.train), "valid_rows": len(task.valid)}
    return {"solver": solved.solver, "chosen": solved.chosen, **best, **rows, "trained_parameters": solved.weights}


def _classify(task: Task, config: SolveConfig, work: Work) -> Solved:
    from nacre.tiers.baseline.baseline import Examples, Grams, Search, fit, units_of

    def examples(rows: Sequence[Row]) -> Examples:
        return Examples([str(row["text"]) for row in rows], [str(row["label"]) for row in rows])

    train, choice = examples(task.train), config.classify
    grams = Grams(units_of(train.texts) if choice.units == "auto" else choice.units)
    work.progress.note("n-grams", units=grams.units)
    search = Search(grams, "svm", choice.candidates, choice.max_features, config.refit, work.seed)
    found = fit(train, examples(task.valid), search, lambda _, guesses: task.quality.judge(task.valid, guesses).score)
    found.model.save(work.out)
    return Solved(
        solver=f"TF-IDF ({'words and characters' if grams.units == 'both' else grams.units}) + linear SVM",
        chosen=f"C={found.model.c:g}",
        variants={f"C={c:g}": figure for c, figure in found.validation.items()},
        weights=found.model.weights.size + found.model.bias.size,
        how={"solver": "linear"},
    )


def _tag(task: Task, config: SolveConfig, work: Work) -> Solved:
    from nacre.tiers.baseline.tagger import Majority, Regularisation, Tagged, Tagger, crf_file, fit_crf

    def tagged(rows: Iterable[Row]) -> Tagged:
        rows = list(rows)
        return Tagged([row["tokens"] for row in rows], [row["tags"] for row in rows])

    def score(tagger: Tagger) -> float:
        return task.quality.judge(task.valid, [tagger.tag(row["tokens"]) for row in task.valid]).score

    everything = tagged([*task.train, *task.valid] if config.refit else task.train)
    if config.tag.solver == "majority":
        tried = {"majority": score(Majority.of(tagged(task.train)))}
        majority = Majority.of(everything)
        majority.save(work.out)
        return Solved("commonest tag per token", "majority", tried, majority.n_weights, how={"solver": "majority"})
    grid = {f"c1={c1:g} c2={c2:g}": Regularisation(c1, c2) for c1, c2 in product(config.tag.c1, config.tag.c2)}
    scores: dict[str, float] = {}
    train = tagged(task.train)
    for number, (name, how) in enumerate(grid.items(), 1):
        crf = fit_crf(train, how, config.tag.iterations, work.scratch / "candidate.model")
        scores[name] = score(crf)
        crf.close()
        work.progress.update(number, len(grid) + 1, **{task.metric: scores[name]})
    best = _best(scores)
    crf = fit_crf(everything, grid[best], config.tag.iterations, crf_file(work.out))
    weights = crf.n_weights
    crf.close()
    how_opened = {"solver": "crf", "sha256": hash_file(crf_file(work.out))[1]}
    return Solved("CRF over characters and word shapes", best, scores, weights, how=how_opened)


def _generate(task: Task, config: SolveConfig, work: Work) -> Solved:
    from nacre.tiers.baseline.writers import Pairs, fit_writer

    def pairs(rows: Sequence[Row]) -> Pairs:
        return Pairs([str(row["source"]) for row in rows], [str(row["target"]) for row in rows])

    train, asked = pairs(task.train), [str(row["source"]) for row in task.valid]
    most = config.generate.max_features
    scores: dict[str, float] = {}
    for name in config.generate.writers:
        scores[name] = task.quality.judge(task.valid, fit_writer(name, train, most).write(asked)).score
    best = _best(scores)
    chosen = next(name for name in config.generate.writers if name == best)
    fit_writer(chosen, pairs([*task.train, *task.valid]) if config.refit else train, most).save(work.out)
    solvers = {
        "lead": "the first sentence", "copy": "the source as it is", "frequent": "the commonest target",
        "memory": "the target of the nearest source (TF-IDF)",
    }  # fmt: skip
    return Solved(solvers[chosen], chosen, scores, index=chosen == "memory", how={"solver": "writer"})


def _rank(task: Task, config: SolveConfig, work: Work) -> Solved:
    from nacre.tiers.baseline.bm25 import Bm25

    index = Bm25.of({"id": str(row["id"]), "text": str(row["text"])} for row in task.corpus)
    asked, depth = [str(row["query"]) for row in task.valid], config.rank.depth
    scores: dict[str, float] = {}
    grid = {f"k1={k1:g} b={b:g}": (k1, b) for k1, b in product(config.rank.k1, config.rank.b)}
    for number, (name, (k1, b)) in enumerate(grid.items(), 1):
        ranked = [[one for one, _ in row] for row in index.tuned(k1, b).rank(asked, depth)]
        scores[name] = task.quality.judge(task.valid, ranked).score
        work.progress.update(number, len(grid), **{task.metric: scores[name]})
    best = _best(scores)
    index.tuned(*grid[best]).save(work.out)
    return Solved(
        "BM25 over words and pairs of characters", best, scores, index=True, how={"solver": "bm25", "depth": depth}
    )


def _best(scores: Mapping[str, float]) -> str:
    """The variant with the highest validation figure, the first among equals."""
    return max(scores, key=lambda name: scores[name])


_Solver = Callable[[Task, SolveConfig, Work], Solved]
_SOLVERS: Mapping[Kind, _Solver] = {"classify": _classify, "tag": _tag, "generate": _generate, "rank": _rank}
