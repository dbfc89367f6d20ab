"""The work of the stages of tier 3: index documents; try ways of looking up on validation rows, keep the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nacre.data.read import read
from nacre.data.write import write_json
from nacre.engine.protocol import Engine
from nacre.errors import ConfigError, DataError
from nacre.metrics.quality import Quality
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.asking.kept import keep_task
from nacre.tiers.retrieval import solver
from nacre.tiers.retrieval.build import BuildConfig, Built, build_index, build_rows
from nacre.tiers.retrieval.embedding import token_measure
from nacre.tiers.retrieval.gazetteer import Gazetteer
from nacre.tiers.retrieval.index import Index, write_manifest
from nacre.tiers.retrieval.modes import choose_mode
from nacre.tiers.retrieval.stages import IndexConfig, RetrievalConfig
from nacre.tiers.retrieval.vote import candidates
from nacre.tiers.rung import Answer, Manifest, keep_engine
from nacre.tiers.rung import write_manifest as write_rung
from nacre.tiers.task import Row, Task, load, text_of

INDEX_FOLDER, CHOICES = "index", "choices.json"


def retrieval_index(config: IndexConfig, work: Work) -> Mapping[str, Scalar]:
    """Builds the index, chooses its mode, writes what was left out."""
    with ExitStack() as open_:
        engine = open_.enter_context(work.engines.open(work.inputs["engine"])) if "engine" in work.inputs else None
        built = build_index(
            work.inputs["documents"],
            work.out,
            BuildConfig(config.ingest, config.chunk),
            engine,
            token_measure(work.inputs["engine"]) if "engine" in work.inputs else None,
            work.inputs.get("previous"),
            work.progress,
        )
        write_json(work.out / "report.json", built.report.to_dict())
        figures = _figures(built)
        if "queries" in work.inputs:
            rows = list(read(_queries(work.inputs["queries"])))
            with Index(work.out, engine, "exact") as index:
                chosen = choose_mode(index, rows, Quality("rank", config.metric))
            write_manifest(work.out, replace(built.manifest, mode=chosen.mode, why=chosen.why))
            figures |= chosen.metrics()
    return figures


def _queries(path: Path) -> Path:
    for name in ("valid.jsonl", "train.jsonl"):
        if (path / name).is_file():
            return path / name
    return path


def _figures(built: Built) -> dict[str, Scalar]:
    tally = built.report.step("ingest")
    return {
        "documents": built.manifest.documents, "passages": built.manifest.chunks, "files_left_out": tally.rows_dropped,
        "files_unchanged": built.unchanged, "documents_vanished": built.vanished, "embedded": built.embedded,
        "vectors_carried_over": built.kept, "truncated": built.embedder.truncated if built.embedder else 0,
    }  # fmt: skip


@dataclass
class Solving:
    """What all kinds of task share while a rung is made. `tried`: each way that was tried and its figure."""

    task: Task
    config: RetrievalConfig
    work: Work
    engine: Engine | None
    tried: dict[str, float] = field(default_factory=dict)

    @property
    def embeds(self) -> bool:
        return self.engine is not None and self.engine.capabilities.embed

    @property
    def writes(self) -> bool:
        return self.engine is not None and (self.engine.capabilities.chat or self.engine.capabilities.complete)

    @property
    def folder(self) -> Path:
        return self.work.out / INDEX_FOLDER

    def judge(self, name: str, rows: Sequence[Row], answers: Sequence[Answer]) -> float:
        """The figure of a way on these rows, kept under its name."""
        score = self.task.quality.judge(rows, [one.value for one in answers]).score
        self.tried[name] = round(score, 6)
        return score


@dataclass(frozen=True)
class Way:
    """The way that was chosen: what the rung's `how` says, in words, and whether the engine is needed to go it."""

    how: Mapping[str, Any]
    solver: str
    calls: bool
    words: bool = False  # the engine writes


def retrieval_solve(config: RetrievalConfig, work: Work) -> Mapping[str, Scalar]:
    """Makes the rung. Raises DataError where there is nothing to look up."""
    task = load(work.inputs["task"])
    if not (task.corpus if task.kind == "rank" else task.train):
        raise DataError(f"{task.name} has nothing to look up", remedy="give training rows, to rank a corpus")
    with ExitStack() as open_:
        given = work.inputs.get("engine")
        engine = None if given is None else open_.enter_context(work.engines.open(given, remote=True))
        solving = Solving(task, config, work, engine)
        way = _SOLVERS[task.kind](solving)
    if way.calls and given is not None:
        keep_engine(given, work.out)
    write_rung(work.out, _manifest(task, way))
    write_json(work.out / CHOICES, {"chosen": dict(way.how), "tried_on_valid": solving.tried})
    best = {f"valid_{name}": score for name, score in solving.tried.items()} if len(solving.tried) <= 12 else {}
    return {"solver": way.solver, "ways_tried": len(solving.tried), **best}


def _manifest(task: Task, way: Way) -> Manifest:
    called = "called" if way.calls else "none"
    prompt = "own" if way.words else "none"
    return Manifest.of(
        task,
        "retrieval",
        way.solver,
        owns={"kernel": called, "weights": called, "data": "own", "prompt": prompt, "index": "own"},
        how={"task": keep_task(task), **way.how},
    )


def _row_index(solving: Solving, *, whole: bool) -> None:
    """An index of the training rows, and, for the end, of the validation rows too; `split` tells them apart."""
    task = solving.task
    splits = {"train": task.train, "valid": task.valid if solving.config.refit else ()}

    def rows() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for split, found in splits.items():
            for number, row in enumerate(found):
                fields = {name: row[name] for name in ("label", "target", "targets", "tokens", "tags") if name in row}
                if task.kind == "generate" and "target" not in fields:
                    fields["target"] = row["targets"][0]
                yield f"{split}/{row.get('id', number)}", text_of(row, task.kind), {**fields, "split": split}

    build_rows(rows(), solving.folder, solving.engine if solving.embeds and whole else None)


_Modes = tuple[Literal["lexical", "dense"], ...]


def _modes(solving: Solving) -> _Modes:
    return ("dense", "lexical") if solving.embeds else ("lexical",)


def _classify(solving: Solving) -> Way:
    _row_index(solving, whole=True)
    task, config = solving.task, solving.config
    rows = task.valid
    with Index(solving.folder, solving.engine if solving.embeds else None, "exact") as index:
        votes = candidates(config.neighbours, _modes(solving))
        found = {
            mode: solver.neighbours(index, task, rows, max(config.neighbours), mode, {"split": "train"})
            for mode in _modes(solving)
        } if rows else {}  # fmt: skip
        best, best_score = votes[0], -1.0
        for vote in votes if rows else []:
            name = f"vote of {vote.k}, {vote.weighting}, {vote.mode}"
            score = solving.judge(name, rows, solver.answers_by_vote(found[vote.mode], vote))
            if score > best_score:
                best, best_score = vote, score
        way = Way(
            {"way": "vote", **best.to_dict()},
            f"vote of the {best.k} nearest ({best.mode}, {best.weighting})",
            calls=best.mode == "dense",
        )
        return _or_demonstrations(
            solving, index, way, lambda trial: solver.answers_by_vote(_cut(found[best.mode], trial), best)
        )


def _cut(found: solver.Neighbours, n: int) -> solver.Neighbours:
    return solver.Neighbours(found.hits[:n], found.usages, found.served_by)


def _or_demonstrations(solving: Solving, index: Index, way: Way, plain: Callable[[int], list[Answer]]) -> Way:
    """Retrieved demonstrations instead of `way`, where an engine that writes does better with them on the same rows."""
    task, config = solving.task, solving.config
    rows = task.valid[: config.trials]
    if not solving.writes or solving.engine is None or not rows or not config.demonstrations:
        return way
    mode = _modes(solving)[0]
    best, best_score = way, solving.judge(f"{way.solver} on {len(rows)} rows", rows, plain(len(rows)))
    found = solver.neighbours(index, task, rows, max(config.demonstrations), mode, {"split": "train"})
    for shots in sorted(set(config.demonstrations)):
        name = f"{shots} nearest rows as examples ({mode})"
        answers = solver.answers_by_demonstrations(solving.engine, task, rows, found, shots)
        score = solving.judge(f"{name} on {len(rows)} rows", rows, answers)
        if score > best_score:
            how = {"way": "demonstrations", "shots": shots, "mode": mode}
            best, best_score = Way(how, f"{solving.engine.name} shown the {name}", calls=True, words=True), score
    return best


def _generate(solving: Solving) -> Way:
    _row_index(solving, whole=True)
    task, rows = solving.task, solving.task.valid
    with Index(solving.folder, solving.engine if solving.embeds else None, "exact") as index:
        best, best_score = _modes(solving)[0], -1.0
        answers: dict[str, list[Answer]] = {}
        for mode in _modes(solving) if rows else ():
            found = solver.neighbours(index, task, rows, 1, mode, {"split": "train"})
            answers[mode] = solver.answers_by_memory(found)
            score = solving.judge(f"target of the nearest source ({mode})", rows, answers[mode])
            if score > best_score:
                best, best_score = mode, score
        way = Way({"way": "memory", "mode": best}, f"target of the nearest source ({best})", calls=best == "dense")
        return _or_demonstrations(solving, index, way, lambda trial: answers[best][:trial])


def _tag(solving: Solving) -> Way:
    task, config, rows = solving.task, solving.config, solving.task.valid
    best, best_score = (config.precisions[0], False), -1.0
    for fold in (False, True):
        learned = Gazetteer.learn(task.train, fold=fold)
        for precision in config.precisions if rows else ():
            answers = solver.answers_by_gazetteer(learned.above(precision), task, rows)
            name = f"gazetteer, precision {precision:g}" + (", case folded" if fold else "")
            score = solving.judge(name, rows, answers)
            if score > best_score:
                best, best_score = (precision, fold), score
    precision, fold = best
    known = [*task.train, *rows] if config.refit else task.train
    gazetteer = Gazetteer.learn(known, fold=fold).above(precision)
    way = Way({"way": "gazetteer", "fold": fold}, f"gazetteer of {len(gazetteer.entries):,} entities", calls=False)
    if solving.writes and rows:
        _row_index(solving, whole=True)
        chosen = Gazetteer.learn(task.train, fold=fold).above(precision)
        with Index(solving.folder, solving.engine if solving.embeds else None, "exact") as index:
            plain = solver.answers_by_gazetteer(chosen, task, rows)
            way = _or_demonstrations(solving, index, way, lambda trial: plain[:trial])
    gazetteer.save(solving.folder)
    return way


def _rank(solving: Solving) -> Way:
    task, config = solving.task, solving.config
    if config.rerank and not solving.writes:
        raise ConfigError("rerank needs an engine that writes", remedy="set rerank to 0, or give a chat engine")
    nothing: Mapping[str, Any] = {}
    corpus = ((str(row["id"]), str(row["text"]), nothing) for row in task.corpus)
    build_rows(corpus, solving.folder, solving.engine if solving.embeds else None, config.chunk)
    rows = task.valid or task.train
    with Index(solving.folder, solving.engine if solving.embeds else None, "exact") as index:
        chosen = choose_mode(index, rows, task.quality)
        solving.tried |= {name: round(score, 6) for name, score in chosen.scores.items()}
        write_manifest(solving.folder, replace(index.manifest, mode=chosen.mode, why=chosen.why))
        names = {"lexical": "full text (BM25)", "dense": "nearness of embeddings", "hybrid": "full text and embeddings"}
        way = Way({"way": "rank", "mode": chosen.mode}, names[chosen.mode], calls=chosen.mode != "lexical")
        return _or_rerank(solving, index, way, rows[: config.trials]) if config.rerank and rows else way


def _or_rerank(solving: Solving, index: Index, way: Way, rows: Sequence[Row]) -> Way:
    """Reordering by an engine that writes, where its paired gain on validation queries is above zero."""
    assert solving.engine is not None  # `_rank` has seen to it
    task, n = solving.task, solving.config.rerank
    before = solver.answers_by_ranking(index, task, rows, way.how["mode"])
    after = solver.reranked(solving.engine, task, rows, before, index, n)
    judged = task.quality.judge_all(
        rows, {"before": [one.value for one in before], "after": [one.value for one in after]}
    )
    solving.tried[f"{way.solver} on {len(rows)} rows"] = round(judged["before"].score, 6)
    solving.tried[f"the first {n} reordered on {len(rows)} rows"] = round(judged["after"].score, 6)
    if judged["before"].against(judged["after"]).low <= 0:
        return way
    return Way({**way.how, "rerank": n}, f"{way.solver}, the first {n} reordered by {solving.engine.name}", True, True)


_SOLVERS: Mapping[str, Callable[[Solving], Way]] = {
    "classify": _classify,
    "generate": _generate,
    "tag": _tag,
    "rank": _rank,
}
