"""Rows of a task as its sources have them: read, renamed, checked, and each given an id and a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nacre.data.lines import Place
from nacre.data.normal import normal
from nacre.data.read import read_located
from nacre.data.report import DropReport
from nacre.data.rows import Row
from nacre.data.split import SPLITS, SplitConfig, split_of
from nacre.errors import DataError, NacreError
from nacre.ladder.stages import FIELDS, TaskConfig
from nacre.lifecycle.prepare.sources import SPLIT_NAMES, mapped, problem_of, source_files
from nacre.metrics.entities import split_tag
from nacre.metrics.quality import Kind
from nacre.tiers.task import text_of

# What `data.prepare` calls the kinds whose rows it knows.
_TASKS: Mapping[Kind, str] = {"classify": "classify", "tag": "tag", "generate": "translate"}
_ANSWERS: Mapping[Kind, str] = {"classify": "label", "tag": "tags", "generate": "target", "rank": "relevant"}


def read_rows(config: TaskConfig, inputs: Mapping[str, Path], report: DropReport) -> dict[str, list[Row]]:
    """Rows of `train`, `valid` and `test`, in the order of their sources, empty ones dropped and counted.

    Raises DataError, with file and row, for rows that do not fit the kind of the task.
    """
    if "all" in inputs:
        found = _of_one(config, inputs["all"], report)
    else:
        found = {name: list(_of_split(config, inputs[name], name, report)) for name in SPLITS if name in inputs}
    rows = {name: found.get(name, []) for name in SPLITS}
    if "valid" not in found:
        rows["train"], rows["valid"] = _cut_valid(config, rows["train"])
    _name_rows(rows)
    return rows


def read_corpus(config: TaskConfig, path: Path, report: DropReport) -> list[Row]:
    """What `rank` ranks: rows of `id` and `text`. Raises DataError for an id that stands twice."""
    tally = report.step("corpus")
    fields = {"id": config.theirs("corpus_id"), "text": config.theirs("corpus_text")}
    seen: dict[str, Place] = {}
    rows: list[Row] = []
    for place, raw in read_located(path, report=report):
        row = mapped(raw, fields, place)
        size, name, text = tally.enter(row), str(row["id"]), row["text"]
        if not isinstance(text, str):
            raise DataError(f"{place}: field {fields['text']!r} is no text", remedy="mend the row")
        if name in seen:
            raise DataError(f"{place}: the id {name!r} stands in {seen[name]} too", remedy="give every row its own id")
        seen[name] = place
        if not text.strip():
            tally.drop("empty text", where=name)
            continue
        tally.leave(size=size)
        rows.append({"id": name, "text": text})
    return rows


def answers_of(row: Row, kind: Kind) -> str:
    """The expected answer as one comparable text."""
    answer = row[_ANSWERS[kind]]
    return answer if isinstance(answer, str) else "\t".join(map(str, answer))


def _of_split(config: TaskConfig, source: Path, split: str, report: DropReport) -> Iterator[Row]:
    """Rows of one split: a file's, or those of a folder's files that are named so (of all where none is)."""
    files = source_files(source)
    if any(file.split for file in files):
        files = [file for file in files if file.split == split]
        if not files:
            raise DataError(f"{source} has no file named {split}", remedy="give the file, or another folder")
    for file in files:
        for place, raw in read_located(file.path, report=report):
            row = _checked(raw, config, place, report)
            if row is not None:
                yield row


def _of_one(config: TaskConfig, source: Path, report: DropReport) -> dict[str, list[Row]]:
    """Rows of a source that holds all splits: in files named so, by a field, or cut by the shares of the task."""
    found: dict[str, list[Row]] = {}
    field, shares = config.theirs("split"), _shares(config)
    for file in source_files(source):
        for place, raw in read_located(file.path, report=report):
            row = _checked(raw, config, place, report)
            if row is None:
                continue
            name = file.split or (_named_split(raw, field, place) if field in raw else None)
            if name is None:
                name = split_of(normal(text_of(row, config.kind)), _cut(config, shares, place))
            elif config.splits.test is not None:
                raise DataError(f"{place}: the row names its split", remedy="take splits: {test: ...} out of the task")
            found.setdefault(name, []).append(row)
    if "test" not in found:
        raise DataError(
            f"{source}: no row is named test", remedy="name some, or take the split field away: splits: {test: 0.2}"
        )
    return found


def _shares(config: TaskConfig) -> dict[str, float] | None:
    if config.splits.test is None:
        return None
    valid, test = config.splits.valid, config.splits.test
    return {"train": 1 - valid - test, "valid": valid, "test": test}


def _cut(config: TaskConfig, shares: dict[str, float] | None, place: Place) -> SplitConfig:
    if shares is None:
        raise DataError(
            f"{place}: neither file nor row says which split it is",
            remedy="add a field split (train, valid, test), or say how much to test on: splits: {test: 0.2}",
        )
    return SplitConfig(shares, salt=str(config.splits.seed))


def _named_split(raw: Row, field: str, place: Place) -> str:
    name = SPLIT_NAMES.get(str(raw[field]).lower())
    if name is None:
        raise DataError(f"{place}: {field} is {raw[field]!r}", remedy=f"use {', '.join(SPLITS)}")
    return name


def _cut_valid(config: TaskConfig, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Training rows with a share taken out by content, equal texts together."""
    share = config.splits.valid
    cut = SplitConfig({"train": 1 - share, "valid": share}, salt=str(config.splits.seed))
    parts: dict[str, list[Row]] = {"train": [], "valid": []}
    for row in rows:
        parts[split_of(normal(text_of(row, config.kind)), cut)].append(row)
    return parts["train"], parts["valid"]


def _checked(raw: Row, config: TaskConfig, place: Place, report: DropReport) -> Row | None:
    """The row in our fields alone: what else a source says of it might give the answer away. None where it is empty."""
    kind, tally = config.kind, report.step("check")
    fields = {name: config.theirs(name) for name in FIELDS[kind]}
    targets = raw.get(config.theirs("targets")) if kind == "generate" else None
    if targets is not None:
        if not isinstance(targets, list) or not targets or not all(isinstance(one, str) for one in targets):
            raise DataError(f"{place}: the references are no list of texts", remedy="mend the row")
        raw = {**raw, fields["target"]: targets[0]}
    row = mapped(raw, fields, place)
    size = tally.enter(row)
    kept: Row = {name: row[name] for name in fields} | ({"targets": targets} if targets else {})
    for name in ("id", "lang"):
        if raw.get(config.theirs(name)) is not None:
            kept[name] = str(raw[config.theirs(name)])
    what = _empty(kept, kind)
    if what is not None:
        tally.drop(what, where=f"{place.path.name}, {place.unit} {place.line:,}")
        return None
    problem = _rank_problem(kept) if kind == "rank" else problem_of(kept, _TASKS[kind]) or _tag_problem(kept)
    if problem is not None:
        raise DataError(f"{place}: {problem}", remedy="mend the row, or map the fields (fields: {ours: theirs})")
    tally.leave(size=size)
    return kept


def _empty(row: Row, kind: Kind) -> str | None:
    asked = {"classify": "text", "tag": "tokens", "generate": "source", "rank": "query"}[kind]
    for name, what in ((asked, "nothing asked"), ("target", "no target"), ("relevant", "no relevant id")):
        value = row.get(name, "-")
        if value in ([], "") or (isinstance(value, str) and not value.strip()):
            return f"{what}: {name} is empty"
    return None


def _rank_problem(row: Row) -> str | None:
    if isinstance(row["relevant"], str | int):
        row["relevant"] = [row["relevant"]]
    if not isinstance(row["query"], str) or not isinstance(row["relevant"], list):
        return "query is no text, or relevant no list of ids"
    row["relevant"] = list(dict.fromkeys(map(str, row["relevant"])))
    return None


def _tag_problem(row: Row) -> str | None:
    try:
        for tag in row.get("tags", ()):
            split_tag(tag)
    except NacreError as error:
        return error.message
    return None


def _name_rows(rows: Mapping[str, Sequence[Row]]) -> None:
    """A row keeps its id where no other row of the task has it; else it is called by split and number."""
    seen = Counter(row.get("id") for some in rows.values() for row in some)
    for split, some in rows.items():
        for number, row in enumerate(some, 1):
            own = row.pop("id", None)
            name = own if own is not None and seen[own] == 1 else f"{split}-{number}"
            while name != own and name in seen:  # a source's own id has that very form
                name += "'"
            content = dict(row)
            row.clear()
            row.update({"id": name, **content})
