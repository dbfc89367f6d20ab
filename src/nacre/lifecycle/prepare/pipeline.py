"""The work of `data.prepare`: one pass from the source to scratch, then passes over scratch, in bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nacre.data.clean import clean, drop_repeated_lines
from nacre.data.decontaminate import TestIndex, decontaminate
from nacre.data.dedup import Clusters, find_clusters, keep, keep_by_rank
from nacre.data.lines import Place
from nacre.data.masking.rows import mask_rows
from nacre.data.read import read
from nacre.data.report import DropReport
from nacre.data.rows import Row, canonical, digest64, n_bytes
from nacre.data.scrub import scrub
from nacre.data.split import SPLITS, SplitConfig, Stratification, split, split_key, split_of
from nacre.data.write import JsonlWriter, Spool, write_json
from nacre.errors import DataError
from nacre.lifecycle.prepare.data import PrepareConfig
from nacre.lifecycle.prepare.sources import (
    SPLIT_NAMES,
    SourceFile,
    first_row,
    mapped,
    problem_of,
    rows_of,
    source_files,
    task_of,
)
from nacre.progress import Progress, Scalar
from nacre.recipe.stage import Work

# A row's split travels in this field, as its rank, until the row is written: test is protected from valid, both from
# train. A number, so that the report's bytes do not count it.
RANK = "\0rank"
RANKS = {"train": 0, "valid": 1, "test": 2}


@dataclass(frozen=True)
class Look:
    """What the first rows tell: the files, the task, and where the splits come from."""

    files: list[SourceFile]
    task: str
    splits: str


def look_at(config: PrepareConfig, source: Path) -> Look:
    """Reads the first row of every file and resolves what is `auto`. Raises DataError."""
    files = source_files(source)
    firsts = [
        (place, mapped(raw, config.fields, place), raw)
        for place, raw in (first_row(file, config.read) for file in files)
    ]
    place, row, raw = firsts[0]
    task = _one_task(firsts) if config.task == "auto" else config.task
    if config.read.on_error == "raise":
        for place, row, _ in firsts:
            problem = problem_of(row, task)
            if problem is not None:
                raise DataError(
                    f"{place}: {problem}", remedy="map the source's fields (config: fields), or set the task"
                )
    has_files = len({file.split for file in files} - {None}) > 1
    has_field = str(raw.get(config.split_field)) in SPLIT_NAMES
    splits = config.splits
    if splits == "auto":
        splits = "source" if has_files else "field" if has_field else "ratio"
    if splits == "source" and not any(file.split for file in files):
        raise DataError(
            f"{source} has no files named train, valid or test", remedy="splits: ratio, or name the files so"
        )
    if splits == "field" and not has_field:
        raise DataError(
            f"{firsts[0][0]}: the field {config.split_field!r} names no split: {raw.get(config.split_field)!r}",
            remedy=f"one of {', '.join(sorted(SPLIT_NAMES))}; or splits: ratio",
        )
    return Look(files, task, splits)


def _one_task(firsts: list[tuple[Place, Row, Row]]) -> str:
    """The task that the first rows of all files are made for; raises DataError where they differ."""
    found = [(task_of(row, place), place) for place, row, _ in firsts]
    for task, place in found[1:]:
        if task != found[0][0]:
            raise DataError(
                f"{found[0][1]} is a row for the task {found[0][0]}, {place} one for {task}",
                remedy="set task: to one of them, or give one kind of file as the source",
            )
    return found[0][0]


def run(config: PrepareConfig, work: Work) -> dict[str, Scalar]:
    """Makes the artifact in `work.out`; returns rows per split, rows dropped and classes."""
    source, report = work.inputs["source"], DropReport(config.n_samples)
    look = look_at(config, source)
    for name, value in (("task", look.task), ("splits", look.splits)):
        if getattr(config, name) == "auto":
            report.step("read").note(f"{name}: {value} (resolved from auto)")
    if config.mask is not None:  # samples of rows that were dropped before they were masked would show them
        report.step("read").n_samples = report.step("check").n_samples = 0
    spools = [Spool(work.scratch / f"rows-{number}.jsonl") for number in range(2)]
    rows = spools[0].fill(_counted(_cleaned(look, config, report), work.progress))
    if config.repeated_lines is not None:
        rows = spools[1].fill(drop_repeated_lines(rows, config.repeated_lines, report))
    parts, clusters = _split(rows, look, config, report, work.scratch)
    tests = {name: read(path) for name, path in work.inputs.items() if name.startswith("against")}
    index = TestIndex(tests, config.decontaminate) if tests else None
    summary = Summary()
    for name, part in parts.items():
        kept: Iterable[Row] = decontaminate(part, index, report) if index and name == "train" else part
        if name in config.limit:
            kept = _limited(Spool(work.scratch / f"kept-{name}.jsonl").fill(kept), name, config.limit[name], report)
        summary.write(name, kept, work.out)
    summary.judge(look.task, report, config)
    _write_report(work, look, report, summary, clusters)
    for spool in work.scratch.glob("*.jsonl"):
        spool.unlink()
    return summary.metrics(report)


def _cleaned(look: Look, config: PrepareConfig, report: DropReport) -> Iterator[Row]:
    ranked = _ranked(look, config, report)
    seen = ranked if config.mask is None else mask_rows(ranked, config.mask, report)
    rows: Iterator[Row] = clean(seen, config.clean, report)
    return rows if config.scrub is None else scrub(rows, config.scrub, report)


def _ranked(look: Look, config: PrepareConfig, report: DropReport) -> Iterator[Row]:
    for file in look.files:
        for place, row in rows_of(file, config, look.task, report):
            if look.splits == "source":
                row[RANK] = RANKS[file.split or "train"]
            elif look.splits == "field":
                name = SPLIT_NAMES.get(str(row.pop(config.split_field, None)))
                if name is None:
                    raise DataError(
                        f"{place}: the field {config.split_field!r} names no split", remedy="train, valid or test"
                    )
                row[RANK] = RANKS[name]
            yield row


def _counted(rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
    number = 0
    for number, row in enumerate(rows, start=1):
        if number % 1000 == 0:
            progress.update(number, rows=number)
        yield row
    progress.update(number, number, rows=number)


def _split(
    rows: Spool, look: Look, config: PrepareConfig, report: DropReport, scratch: Path
) -> tuple[dict[str, Spool], Clusters | None]:
    """The rows of every split, in scratch, duplicates dealt with."""
    own = look.splits != "ratio"
    # The source's own splits are always compared with each other, exactly at least.
    method = "exact" if own and config.dedup.method == "none" else config.dedup.method
    clusters = find_clusters(_bare(rows), replace(config.dedup, method=method))
    if own:
        pairs = _own_splits(rows, clusters, config, report)
    elif config.duplicates == "keep_together":
        pairs = split(rows, config.split, clusters.keys())
    else:
        pairs = split(keep(rows, clusters, report), config.split)
    writers = {name: JsonlWriter(scratch / f"split-{name}.jsonl") for name in SPLITS}
    spools = {name: Spool(writer.path) for name, writer in writers.items()}
    with writers["train"], writers["valid"], writers["test"]:
        for name, row in pairs:
            row.pop(RANK, None)
            writers[name].write(row)
    for name, writer in writers.items():
        spools[name].n_rows = writer.n_rows
    wanted = [name for name in SPLITS if own or config.split.ratios.get(name)]
    return {name: spools[name] for name in wanted if spools[name].n_rows or not own}, clusters


def _bare(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows without their rank: equal rows of two splits have equal content hashes."""
    for row in rows:
        yield {name: value for name, value in row.items() if name != RANK}


def _own_splits(
    rows: Spool, clusters: Clusters, config: PrepareConfig, report: DropReport
) -> Iterator[tuple[str, Row]]:
    ranks = np.fromiter((row[RANK] for row in rows), dtype=np.int8, count=len(rows))
    within = config.dedup.method != "none" and config.duplicates == "remove"
    kept = keep_by_rank(rows, ranks, clusters, report, within=within, across=config.overlaps == "remove")
    names = {rank: name for name, rank in RANKS.items()}
    carve = SplitConfig(
        {"train": 1 - config.valid_share, "valid": config.valid_share}, salt=config.split.salt, group=config.split.group
    )
    has_valid = bool((ranks == RANKS["valid"]).any())
    for row in kept:
        name = names[row[RANK]]
        if name == "train" and config.valid_share and not has_valid:
            name = split_of(split_key({k: v for k, v in row.items() if k != RANK}, carve), carve)
        yield name, row


def _limited(rows: Spool, name: str, most: int, report: DropReport) -> Iterator[Row]:
    """The `most` rows with the smallest content hashes, in their order: adding rows changes few of the chosen."""
    tally = report.step(f"limit {name}")
    digests = np.array(array("Q", (digest64(canonical(row)) for row in rows)), dtype=np.uint64)
    chosen = np.zeros(len(digests), dtype=bool)
    chosen[np.argsort(digests, kind="stable")[:most]] = True
    for row, taken in zip(rows, chosen.tolist(), strict=True):
        size = tally.enter(row)
        if taken:
            tally.leave(size=size)
            yield row
        else:
            tally.drop(f"over the limit of {most:,} rows")


@dataclass
class Summary:
    """What was written: rows and bytes by split, labels by split, names of all labels."""

    rows: dict[str, int] = field(default_factory=dict)
    n_bytes: dict[str, int] = field(default_factory=dict)
    labels: Stratification = field(default_factory=Stratification)

    def write(self, name: str, rows: Iterable[Row], out: Path) -> None:
        """Writes one split as JSON lines, counting."""
        size = 0
        with JsonlWriter(out / f"{name}.jsonl") as writer:
            for row in rows:
                writer.write(row)
                size += n_bytes(row)
                for label in row.get("tags") or ([row["label"]] if isinstance(row.get("label"), str) else []):
                    self.labels.add(name, label)
        self.rows[name], self.n_bytes[name] = writer.n_rows, size

    @property
    def names(self) -> list[str]:
        """All labels, sorted; for tags with `O`, the tag of no entity, first."""
        found = {label for counts in self.labels.labels.values() for label in counts}
        return sorted(found, key=lambda label: (label != "O", label))

    def judge(self, task: str, report: DropReport, config: PrepareConfig) -> None:
        """Raises DataError when nothing can be trained on this: no rows, an empty split, one class only."""
        if not self.rows.get("train"):
            raise DataError(
                f"no training rows are left:\n{report.table(samples=False)}", remedy="loosen the step that dropped them"
            )
        for name, count in self.rows.items():
            if count == 0:
                lost = "; ".join(
                    f"{step.name} dropped {event.count:,}: {reason}"
                    for step in report.steps.values()
                    for reason, event in step.dropped.items()
                )
                raise DataError(
                    f"the split {name} has no rows of {sum(self.rows.values()):,}" + (f" ({lost})" if lost else ""),
                    remedy=f"more data, a larger share of {name}, or none (split: ratios)",
                )
        trained = sorted(self.labels.labels.get("train", {}))
        if task in ("classify", "tag") and len(trained) < 2:
            raise DataError(
                f"all {self.rows['train']:,} training rows have one and the same label {trained[0]!r}",
                remedy="check the label field, or where: and limit:, which may have taken the other classes away",
            )

    def metrics(self, report: DropReport) -> dict[str, Scalar]:
        metrics: dict[str, Scalar] = {f"{name}_rows": count for name, count in self.rows.items()}
        return metrics | {"dropped": report.rows_dropped} | ({"classes": len(self.names)} if self.names else {})


def _write_report(work: Work, look: Look, report: DropReport, summary: Summary, clusters: Clusters | None) -> None:
    content: dict[str, Any] = {
        "task": look.task,
        "splits": look.splits,
        "rows": summary.rows,
        "bytes": summary.n_bytes,
        "dropped": without_paths(report.to_dict(), work.inputs),
    }
    if clusters is not None:
        sizes = clusters.sizes
        content["duplicates"] = {"clusters": int((sizes > 1).sum()), "largest": int(sizes.max(initial=0))}
    if summary.names and look.task in ("classify", "tag"):
        content["labels"] = summary.labels.to_dict()
        write_json(work.out / "labels.json", summary.names)
        unseen = summary.labels.unseen_in_training()
        if unseen:
            work.progress.note("labels without a training row", labels=", ".join(unseen))
    write_json(work.out / "report.json", content)
    for step in report.steps.values():
        if step.rows_dropped:
            work.progress.note("dropped", step=step.name, **{reason: e.count for reason, e in step.dropped.items()})


def without_paths(value: Any, inputs: Any) -> Any:
    """The report with the input's name for its path: the same bytes wherever the source lies."""
    if isinstance(value, dict):
        return {without_paths(key, inputs): without_paths(item, inputs) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item, inputs) for item in value]
    if isinstance(value, str):
        for name, path in inputs.items():
            value = value.replace(str(path), name)
    return value
