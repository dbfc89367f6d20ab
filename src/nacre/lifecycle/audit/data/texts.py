"""What of a row is compared: its texts, whatever fields they stand in, and hashes of them.

Renamed or reordered fields, another file format, other labels or ids do not change them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.data.ngrams import units_of
from nacre.data.normal import normal
from nacre.data.read import ReadConfig, data_files, read
from nacre.data.report import DropReport
from nacre.data.rows import Row, digest64, join_tokens
from nacre.errors import DataError

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


@dataclass
class DataSet:
    """A file or folder of rows, read anew by each pass. What cannot be read is dropped and counted in `report`."""

    path: Path
    report: DropReport = field(default_factory=DropReport)

    def files(self, split: str | None = None) -> list[Path]:
        """The files of a split, of all where None; a file that names no split counts as train."""
        files = data_files(self.path)
        return [file for file in files if split is None or split_of(file) == split]

    def rows(self, split: str | None = None) -> Iterator[Row]:
        """Rows in order. Raises DataError where nothing can be read at all."""
        for file in self.files(split):
            yield from read(file, ReadConfig(on_error="drop"), self.report)

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split_of(file) for file in self.files()))

    @property
    def n_unread(self) -> int:
        return sum(step.rows_dropped for step in self.report.steps.values())


def split_of(file: Path) -> str:
    """train, valid or test, by the parts of a file's name; train where it says nothing."""
    parts = file.name.lower().replace("-", ".").replace("_", ".").split(".")
    return next((SPLITS[part] for part in parts if part in SPLITS), "train")


def require_rows(path: Path) -> DataSet:
    """The data set at `path`. Raises DataError where there is none."""
    if not path.exists():
        raise DataError(f"there is no data set at {path}", remedy="check the path")
    data_files(path)
    return DataSet(path)
