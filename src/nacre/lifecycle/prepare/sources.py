"""A source as rows in Nacre's fields: its files by split, its fields mapped, every row checked against the task."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.data.lines import Place
from nacre.data.read import DROP, ReadConfig, data_files, read_located
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row
from nacre.errors import DataError, closest
from nacre.lifecycle.prepare.data import TASK_FIELDS, PrepareConfig

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "eval": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class SourceFile:
    """A data file and the split that its name says, None when it says none."""

    path: Path
    split: str | None


def source_files(source: Path) -> list[SourceFile]:
    """The data files of a source with their splits. Raises DataError for a folder where only some files name one."""
    if source.is_file():
        return [SourceFile(path, None) for path in data_files(source)]
    files = [SourceFile(path, _split_in(path, source)) for path in data_files(source)]
    named = [file for file in files if file.split]
    if named and len(named) < len(files):
        other = next(file.path for file in files if not file.split)
        raise DataError(
            f"{source}: {named[0].path.name} names its split and {other.name} does not",
            remedy="give one file or sub-folder as the source, or name every file train, valid or test",
        )
    return files


def _split_in(path: Path, source: Path) -> str | None:
    words = re.split(r"[^a-z]+", path.relative_to(source).as_posix().lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def rows_of(file: SourceFile, config: PrepareConfig, task: str, report: DropReport) -> Iterator[tuple[Place, Row]]:
    """Rows of one file: fields mapped, filtered by `where`, checked against the task. Raises DataError, located."""
    wanted = report.step("select") if config.where else None
    checked = report.step("check")
    for place, raw in read_located(file.path, config.read, report):
        row = mapped(raw, config.fields, place)
        if wanted is not None and not _selected(row, raw, config, wanted, place):
            continue
        size = checked.enter(row)
        problem = problem_of(row, task)
        if problem is None:
            checked.leave(size=size)
            yield place, row
        elif config.read.on_error == "raise":
            raise DataError(f"{place}: {problem}", remedy=f"mend the row, or drop and count such rows ({DROP})")
        else:
            checked.drop(problem.partition(":")[0], str(row), str(place))


def mapped(raw: Row, fields: Mapping[str, str], place: Place) -> Row:
    """The row with the source's fields under our names; a label that is a number becomes text."""
    for name in fields.values():
        if name not in raw:
            raise DataError(
                f"{place}: no field {name!r}; the row has {', '.join(map(repr, raw))}", remedy=closest(name, raw)
            )
    taken = set(fields.values())
    row = {name: raw[theirs] for name, theirs in fields.items()} | {
        name: value for name, value in raw.items() if name not in taken and name not in fields
    }
    if isinstance(row.get("label"), int | float):
        row["label"] = str(row["label"])
    return row


def _selected(row: Row, raw: Row, config: PrepareConfig, tally: Step, place: Place) -> bool:
    size = tally.enter(row)
    for name, value in config.where.items():
        given: Any = raw.get(name, row.get(name, _ABSENT))
        if given is _ABSENT:
            raise DataError(
                f"{place}: no field {name!r} to filter by; there are {', '.join(map(repr, raw))}",
                remedy=closest(name, raw),
            )
        wanted = value if isinstance(value, tuple) else (value,)
        if given not in wanted:
            tally.drop(f"{name} is not {' or '.join(map(str, wanted))}")
            return False
    tally.leave(size=size)
    return True


_ABSENT = object()


def task_of(row: Row, place: Place) -> str:
    """The task that a row's fields fit. Raises DataError when they fit none."""
    for task, fields in TASK_FIELDS.items():
        if all(name in row for name in fields):
            return task
    raise DataError(
        f"{place}: the fields {', '.join(map(repr, row))} make no row: "
        "needed are text, text and label, tokens and tags, source and target, or messages",
        remedy="map the source's fields, such as fields: {text: sentence, label: category}",
    )


def problem_of(row: Row, task: str) -> str | None:
    """What is wrong with a row of a task, None when nothing is."""
    for name in TASK_FIELDS[task]:
        if name not in row:
            return f"no field {name!r}: the row has {', '.join(map(repr, row))}"
        value = row[name]
        if name in ("tokens", "tags"):
            if not isinstance(value, list) or not value or not all(isinstance(part, str) and part for part in value):
                return f"field {name!r} is no list of texts"
        elif name == "messages":
            if not isinstance(value, list) or not value or not all(_is_message(part) for part in value):
                return "field 'messages' is no list of messages: each needs role and content"
        elif not isinstance(value, str):
            return f"field {name!r} is no text: it is {type(value).__name__}"
        elif name == "label" and not value.strip():
            return "field 'label' is empty"
    if task == "tag" and len(row["tokens"]) != len(row["tags"]):
        return f"tokens and tags differ in number: {len(row['tokens'])} and {len(row['tags'])}"
    return None


def _is_message(part: object) -> bool:
    return isinstance(part, dict) and all(isinstance(part.get(name), str) for name in ("role", "content"))


def first_row(file: SourceFile, read: ReadConfig) -> tuple[Place, Row]:
    """The first row of a file. Raises DataError when there is none or it cannot be read."""
    return next(iter(read_located(file.path, read)))
