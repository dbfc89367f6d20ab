"""A task made ready: overlaps between splits found and taken out, rows in one shuffled order, everything counted.

Laws (tested): no solver-visible row has the text of a test row, however it is written (NFKC, case, spacing); the same
inputs and config give the same rows, whatever the order of the sources' rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nacre.data.decontaminate import DecontaminateConfig, TestIndex, decontaminate
from nacre.data.dedup import Clusters, DedupConfig, find_clusters
from nacre.data.read import read
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row, canonical, content, digest64
from nacre.data.split import SPLITS
from nacre.data.write import write_json, write_jsonl
from nacre.errors import DataError
from nacre.ladder.stages import TaskConfig
from nacre.ladder.task_rows import answers_of, read_corpus, read_rows
from nacre.lifecycle.prepare.pipeline import without_paths
from nacre.lifecycle.prepare.sources import source_files
from nacre.metrics.entities import split_tag
from nacre.metrics.quality import Kind
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.task import TASK_FILE, text_of


@dataclass
class Prepared:
    """Both halves of a task. `found` are the counts that a user must know, by name; `report` says them step by step."""

    rows: dict[str, list[Row]]
    corpus: list[Row]
    unlabelled: list[Row] | None
    labels: tuple[str, ...]
    report: DropReport
    found: dict[str, int] = field(default_factory=dict)


def prepared(config: TaskConfig, inputs: Mapping[str, Path], n_samples: int = 0) -> Prepared:
    """Reads the inputs and takes them apart. Raises DataError where nothing could be learnt or judged.

    `n_samples` of what was found are kept in the report; without, the report tells nothing of a test row.
    """
    report = DropReport(n_samples)
    rows = read_rows(config, inputs, report)
    corpus = read_corpus(config, inputs["corpus"], report) if "corpus" in inputs else []
    tally = report.step("overlap")
    rows = _without_overlaps(config, rows, tally)
    full_test = rows["test"]
    rows = {name: _limited(_shuffled(some, config.splits.seed), name, config, report) for name, some in rows.items()}
    found = _counts(tally, config)
    _judge(config, rows, report)
    if config.kind == "rank":
        _check_relevant(rows, corpus)
    labels = _labels(config, rows, found, report)
    unlabelled = None
    if "unlabelled" in inputs:
        unlabelled = _clean(read(inputs["unlabelled"], report=report), config.kind, full_test, report)
        found["unlabelled_removed"] = report.step("decontaminate").rows_dropped
    found["empty"] = report.step("check").rows_dropped
    return Prepared(rows, corpus, unlabelled, labels, report, found)


def write_task(config: TaskConfig, work: Work) -> dict[str, Scalar]:
    """The solver-visible half: `task.json`, rows, corpus, labels, and their counts.

    Nothing in it depends on the test rows but which rows are left, so that other test rows leave every rung as it is.
    """
    task = prepared(config, work.inputs)
    plain = {key: getattr(config, key) for key in ("name", "kind", "about", "metric", "language", "target_language")}
    shared = {"labels": task.labels, "descriptions": dict(config.descriptions), "languages": config.languages}
    write_json(work.out / TASK_FILE, plain | shared)
    for name in ("train", "valid"):
        write_jsonl(work.out / f"{name}.jsonl", task.rows[name])
    if task.corpus:
        write_jsonl(work.out / "corpus.jsonl", task.corpus)
    if task.unlabelled is not None:
        write_jsonl(work.out / "unlabelled.jsonl", task.unlabelled)
    if task.labels:
        write_json(work.out / "labels.json", task.labels)
    write_json(work.out / "report.json", _sizes(config, task, ("train", "valid")))
    metrics = _metrics(task)
    work.progress.note("task", **metrics)
    return metrics


def write_test(config: TaskConfig, work: Work) -> dict[str, Scalar]:
    """The other half: `test.jsonl` in an order of which any prefix is a fair sample, and the report with samples."""
    task = prepared(config, work.inputs, n_samples=5)
    write_jsonl(work.out / "test.jsonl", task.rows["test"])
    write_json(work.out / "report.json", _report(config, task, work))
    return _metrics(task)


def write_corpus(kind: Kind, work: Work) -> dict[str, Scalar]:
    """`train.jsonl` of a corpus's texts without the test texts; its own files named valid or test stay out."""
    report = DropReport(0)
    files = [file.path for file in source_files(work.inputs["corpus"]) if file.split in (None, "train")]
    test = read(work.inputs["test"] / "test.jsonl")
    rows = _clean((row for file in files for row in read(file, report=report)), kind, test, report)
    write_jsonl(work.out / "train.jsonl", rows)
    removed = report.step("decontaminate").rows_dropped
    plain = {"task": "text", "rows": {"train": len(rows)}, "dropped": report.to_dict()}
    write_json(work.out / "report.json", without_paths(plain, work.inputs))
    return {"train_rows": len(rows), "removed_test_texts": removed}


def _without_overlaps(config: TaskConfig, rows: dict[str, list[Row]], tally: Step) -> dict[str, list[Row]]:
    """Rows without those whose text a later split has (train < valid < test); test rows always stay."""
    flat = [(rank, row) for rank, name in enumerate(SPLITS) for row in rows[name]]
    texts = [{"text": text_of(row, config.kind)} for _, row in flat]
    ranks = np.array([rank for rank, _ in flat], dtype=np.int8)
    exact = find_clusters(texts, DedupConfig("exact"))
    near = find_clusters(texts, DedupConfig("near", threshold=config.duplicates.threshold))
    highest, resembling = _highest(exact, ranks), _highest(near, ranks)
    kept: dict[str, list[Row]] = {name: [] for name in SPLITS}
    answers: dict[int, str] = {}
    present: set[tuple[int, int]] = set()
    for at, (rank, row) in enumerate(flat):
        name, text, cluster = SPLITS[rank], texts[at]["text"], int(exact.label[at])
        size, answer = tally.enter(row), answers_of(row, config.kind)
        if answers.setdefault(cluster, answer) != answer:
            tally.note(f"same text with another answer in {name}", f"{answers[cluster]} / {answer}: {text}")
        if highest[at] > rank:
            tally.drop(f"{name} row that is also in {SPLITS[highest[at]]}", text)
            continue
        if resembling[at] > rank:
            what = f"{name} row that resembles one in {SPLITS[resembling[at]]}"
            if config.duplicates.near == "exclude":
                tally.drop(what, text)
                continue
            tally.note(what, text)
        if (rank, cluster) in present:
            tally.note(f"duplicate within {name}", text)
        present.add((rank, cluster))
        tally.leave(size=size)
        kept[name].append(row)
    return kept


def _highest(clusters: Clusters, ranks: np.ndarray[Any, np.dtype[np.int8]]) -> list[int]:
    """(N,) the latest split that a row's cluster reaches into."""
    top = np.zeros(len(clusters.sizes), dtype=np.int8)
    np.maximum.at(top, clusters.label, ranks)
    reached: list[int] = top[clusters.label].tolist()
    return reached


def _counts(tally: Step, config: TaskConfig) -> dict[str, int]:
    """What was found between and within splits, by names that fit a record's metrics."""

    def total(*starts: str) -> int:
        events = [*tally.dropped.items(), *tally.noted.items()]
        return sum(event.count for what, event in events if what.startswith(starts))

    return {
        "train_in_test": total("train row that is also in test"),
        "valid_in_test": total("valid row that is also in test"),
        "train_in_valid": total("train row that is also in valid"),
        "near_duplicates": total("train row that resembles", "valid row that resembles"),
        "train_duplicates": total("duplicate within train"),
        "test_duplicates": total("duplicate within test"),
        # Two translations of a sentence are no contradiction; two labels of a text are.
        "conflicting" if config.kind in ("classify", "tag") else "several_answers": total(
            "same text with another answer"
        ),
    }


def _shuffled(rows: Iterable[Row], seed: int) -> list[Row]:
    """Rows ordered by a hash of seed and content: the same whatever order they came in, ids and equal rows aside."""
    return sorted(rows, key=lambda row: digest64(f"{seed}\0{canonical({**row, 'id': ''})}"))


def _limited(rows: list[Row], name: str, config: TaskConfig, report: DropReport) -> list[Row]:
    most = getattr(config.limit, name)
    if most is None or most >= len(rows):
        return rows
    tally = report.step(f"limit {name}")
    for number, row in enumerate(rows):
        size = tally.enter(row)
        if number < most:
            tally.leave(size=size)
        else:
            tally.drop(f"over the limit of {most:,} rows")
    return rows[:most]


def _judge(config: TaskConfig, rows: Mapping[str, Sequence[Row]], report: DropReport) -> None:
    """Raises DataError for a split without rows, and for one class only."""
    remedies = {
        "train": "give training rows that are not all in the test rows",
        "valid": "give valid rows, or a larger share of the training rows (splits: {valid: 0.2})",
        "test": "give test rows: data: {test: REF}",
    }
    for name in SPLITS:
        if not rows[name]:
            dropped = [
                f"{event.count:,}: {reason}" for step in report.steps.values() for reason, event in step.dropped.items()
            ]
            what = f" (dropped {'; '.join(dropped)})" if dropped else ""
            raise DataError(f"{config.name}: no {name} rows are left{what}", remedy=remedies[name])
    if config.kind in ("classify", "tag"):
        trained = _labels_in(rows["train"])
        if len(trained) < 2:
            raise DataError(
                f"{config.name}: all {len(rows['train']):,} training rows have one and the same label {trained[0]!r}",
                remedy="check the label field, or limit:, which may have taken the other classes away",
            )


def _check_relevant(rows: Mapping[str, Sequence[Row]], corpus: Sequence[Row]) -> None:
    """Raises DataError when a query names an id that the corpus lacks."""
    known = {row["id"] for row in corpus}
    absent = [(row["id"], one) for name in SPLITS for row in rows[name] for one in row["relevant"] if one not in known]
    if absent:
        query, one = absent[0]
        raise DataError(
            f"{len(absent):,} relevant ids are not in the corpus: the query {query!r} names {one!r}",
            remedy="give the whole corpus, or map its id: fields: {corpus_id: ...}",
        )


def _labels_in(rows: Iterable[Row]) -> list[str]:
    """Labels or tags of rows, sorted, `O` first."""
    found = {label for row in rows for label in (row["tags"] if "tags" in row else [row["label"]])}
    return sorted(found, key=lambda label: (label != "O", label))


def _labels(
    config: TaskConfig, rows: Mapping[str, Sequence[Row]], found: dict[str, int], report: DropReport
) -> tuple[str, ...]:
    """Classes that solvers may answer with: those of training and validation rows. Others are counted and noted."""
    if config.kind not in ("classify", "tag"):
        return ()
    tally = report.step("labels")
    trained = set(_labels_in(rows["train"]))
    for name in ("valid", "test"):
        for row in rows[name]:
            unseen = set(_labels_in([row])) - trained
            if unseen:
                tally.note(f"{name} row with a label that training lacks", ", ".join(sorted(unseen)))
    found["unanswerable"] = _noted(tally, "test row with a label that training lacks")
    found["valid_unseen_labels"] = _noted(tally, "valid row with a label that training lacks")
    labels = tuple(_labels_in([*rows["train"], *rows["valid"]]))
    names = {split_tag(one)[1] for one in labels if one != "O"} if config.kind == "tag" else set(labels)
    for name in sorted(set(config.descriptions) - names):
        tally.note("described, but neither in train nor in valid", name)
    for name in sorted(names - set(config.descriptions)) if config.descriptions else ():
        tally.note("without a description", name)
    found["described_unknown"] = _noted(tally, "described, but neither in train nor in valid")
    found["undescribed"] = _noted(tally, "without a description") if config.descriptions else len(names)
    return labels


def _noted(tally: Step, what: str) -> int:
    event = tally.noted.get(what)
    return event.count if event else 0


def _clean(texts: Iterable[Row], kind: Kind, test: Iterable[Row], report: DropReport) -> list[Row]:
    """Texts that hold no test text, neither as a whole nor a long run of it. Raises DataError where none is left."""
    index = TestIndex({"test": [{"text": text_of(row, kind)} for row in test]}, DecontaminateConfig())
    tally, rows = report.step("unlabelled"), []
    for row in texts:
        size, text = tally.enter(row), content(row)
        if not text.strip():
            tally.drop("empty text")
            continue
        tally.leave(size=size)
        rows.append({"text": text})
    kept = list(decontaminate(rows, index, report))
    if not kept:
        raise DataError("every text of the corpus is empty or holds a test text", remedy="give other texts")
    return kept


def _report(config: TaskConfig, task: Prepared, work: Work) -> dict[str, Any]:
    limits = {name: most for name, most in vars(config.limit).items() if most is not None}
    plain = _sizes(config, task, SPLITS) | {"found": task.found} | ({"limit": limits} if limits else {})
    reported: dict[str, Any] = without_paths(plain | {"dropped": task.report.to_dict()}, work.inputs)
    return reported


def _sizes(config: TaskConfig, task: Prepared, shown: Sequence[str]) -> dict[str, Any]:
    plain: dict[str, Any] = {"task": config.kind, "rows": {name: len(task.rows[name]) for name in shown}}
    if task.labels:
        counts = {
            name: Counter(one for row in task.rows[name] for one in (row["tags"] if "tags" in row else [row["label"]]))
            for name in shown
        }
        plain["labels"] = {name: dict(sorted(some.items())) for name, some in counts.items()}
    return plain


def _metrics(task: Prepared) -> dict[str, Scalar]:
    metrics: dict[str, Scalar] = {f"{name}_rows": len(some) for name, some in task.rows.items()}
    if task.corpus:
        metrics["corpus_rows"] = len(task.corpus)
    if task.unlabelled is not None:
        metrics["unlabelled_rows"] = len(task.unlabelled)
    if task.labels:
        metrics["classes"] = len(task.labels)
    return metrics | task.found
