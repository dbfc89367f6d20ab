"""What of a row is compared: its texts, whatever fields they stand in, and hashes of them.

Renamed or reordered fields, another file format, other labels or ids do not change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.data.ngrams import units_of
from nacre.data.normal import normal
from nacre.data.read import ReadConfig, data_files, read_located
from nacre.data.report import DropReport
from nacre.data.rows import Row, digest64, join_tokens
from nacre.errors import DataError
from nacre.lifecycle.audit.said import say

# What names a row, or its class, is no text of it.
NO_TEXT = {
    "label",
    "labels",
    "id",
    "idx",
    "index",
    "tag",
    "tags",
    "role",
    "from",
    "lang",
    "language",
    "split",
    "source_id",
}
# A text from this length on is its author's own: shorter ones occur in unrelated sets (thanks, yes, 你好).
OWN_WORDS, OWN_CHARACTERS = 8, 12
LONG_WORDS = 24
SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "val": "valid", "test": "test"}


@dataclass(frozen=True)
class Texts:
    """A row's texts: `whole` hashes all of them, in any order; `own` hashes those long enough to be telling."""

    whole: int
    own: tuple[int, ...]
    text: str


def texts_of(row: Row) -> Texts:
    """The texts of a row. A row of labels alone has none: its `text` is empty."""
    found = [normal(text) for text in leaves(row)]
    found = [text for text in found if text]
    hashes = sorted({digest64(text) for text in found})
    own = tuple(sorted({digest64(text) for text in found if is_own(text)}))
    return Texts(digest64(" ".join(f"{value:016x}" for value in hashes)), own, "\n".join(found))


def plain_text(row: Row) -> str:
    """The texts of a row as they are written, a line each; empty exactly where `texts_of` finds none."""
    return "\n".join(text for text in leaves(row) if text.strip())


def leaves(row: Row) -> Iterator[str]:
    """The strings of a row at any depth, without names, roles and labels; tokens as running text."""
    for name, value in row.items():
        if str(name).lower() not in NO_TEXT:
            yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        yield join_tokens(value)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):
        yield from leaves(value)


def is_own(text: str) -> bool:
    """Whether a text is too long to be written twice by chance."""
    if len(text) < OWN_CHARACTERS:
        return False
    if text.count(" ") >= LONG_WORDS:  # no need to count units one by one
        return True
    units = units_of(text)
    return len(units.ids) >= (OWN_CHARACTERS if units.mostly_han else OWN_WORDS)


def pick(row: Row, fields: tuple[str, ...]) -> Row:
    """What a row holds in `fields`; all of it where none is named. A field is a name, or a path into objects and lists:
    `answers.text`, or `messages.user` for the turns of one role."""
    if not fields:
        return row
    found = {f"{place} {name}": _at(row, name.split(".")) for place, name in enumerate(fields)}
    return {name: value for name, value in found.items() if value not in (None, [])}


def _at(value: Any, path: list[str]) -> Any:
    if not path:
        return value
    if isinstance(value, list):
        turns = [one for one in value if isinstance(one, dict)]
        if any(path[0] in one for one in turns):
            return [_at(one, path) for one in turns if path[0] in one]
        return [_at(one, path[1:]) for one in turns if one.get("role", one.get("from")) == path[0]]
    return _at(value[path[0]], path[1:]) if isinstance(value, dict) and path[0] in value else None


@dataclass
class DataSet:
    """A file or folder of rows, read anew by each pass. `fields`: what of a row is looked at, all where empty. `report`
    is of the last pass over all rows: what could not be read was dropped and counted there."""

    path: Path
    fields: tuple[str, ...] = ()
    report: DropReport = field(default_factory=DropReport)
    names: tuple[str, ...] = ()

    def files(self, split: str | None = None) -> list[Path]:
        """The files of a split, of all where None; a file that names no split counts as train."""
        files = data_files(self.path)
        return [file for file in files if split is None or split_of(file) == split]

    def located(self, split: str | None = None) -> Iterator[tuple[str, Row]]:
        """Whole rows in order, with the file and line of each. Raises DataError where nothing can be read at all."""
        report = DropReport()
        for file in self.files(split):
            for place, row in read_located(file, ReadConfig(on_error="drop"), report):
                self.names = self.names or tuple(row)
                yield f"{place.path.name}, {place.unit} {place.line:,}", row
        if split is None:
            self.report = report

    def splits(self) -> tuple[str, ...]:
        """The splits that the names of the files tell of."""
        return tuple(dict.fromkeys(split_of(file) for file in self.files()))

    @property
    def n_unread(self) -> int:
        """Rows that cannot be read."""
        return sum(step.rows_dropped for step in self.report.steps.values())

    @property
    def noted(self) -> tuple[str, ...]:
        """What reading took as found: encodings, empty files, blank lines."""
        return tuple(sorted({what for step in self.report.steps.values() for what in step.noted}))


class View:
    """The rows of a split (all where None) of a data set, at every pass: whole, each with its place."""

    def __init__(self, data: DataSet, split: str | None = None) -> None:
        self.data, self._split = data, split

    @property
    def fields(self) -> tuple[str, ...]:
        """What of a row is compared."""
        return self.data.fields

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in self.located())

    def located(self) -> Iterator[tuple[str, Row]]:
        """(file and line, row)."""
        return self.data.located(self._split)


Rows = View | Iterable[Row]


def located(rows: Rows) -> Iterator[tuple[str, Row]]:
    """What is compared of every row, with its place: file and line where it is from a file, else its number."""
    if isinstance(rows, View):
        return ((place, pick(row, rows.fields)) for place, row in rows.located())
    return ((f"row {number:,}", row) for number, row in enumerate(rows, 1))


def split_of(file: Path) -> str:
    """train, valid or test, by the parts of a file's name; train where it says nothing."""
    parts = file.name.lower().replace("-", ".").replace("_", ".").split(".")
    return next((SPLITS[part] for part in parts if part in SPLITS), "train")


def require_rows(path: Path, fields: tuple[str, ...] = ()) -> DataSet:
    """The data set at `path`. Raises DataError where there is none."""
    if not path.exists():
        raise DataError(say("there is no data set at {path}", path=str(path)), remedy="check the path")
    data_files(path)
    return DataSet(path, fields)
