"""Rows from files and folders: text, JSON lines, CSV, TSV, Parquet, each also gzipped; streaming, strict, located.

Errors name file, line, byte offset and a remedy. By default the first bad row stops the reading; `on_error="drop"`
drops it and counts it in the report. The encoding that was found is noted in the report.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nacre.data.lines import Place
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row
from nacre.errors import ConfigError, DataError, closest

Documents = Literal["lines", "paragraphs", "files"]
OnError = Literal["raise", "drop"]
STEP = "read"
DROP = "config: read: {on_error: drop}"  # how a recipe says it


@dataclass(frozen=True)
class ReadConfig:
    """How files become rows.

    `documents`: what a row of a text file is: a line, a paragraph (lines between blank lines) or the file.
    `text_field`: the field that a text file's text goes to. `required`: fields that every row must have.
    `header`: names of the columns of a CSV or TSV file that has no header line. `encoding`: detected when None.
    `max_row_mib`: a longer row is refused, so that memory stays bounded.
    """

    documents: Documents = "lines"
    text_field: str = "text"
    required: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    encoding: str | None = None
    on_error: OnError = "raise"
    max_row_mib: int = 64

    def __post_init__(self) -> None:
        for name, allowed in (("documents", get_args(Documents)), ("on_error", get_args(OnError))):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name}: {value!r} is unknown", remedy=closest(str(value), allowed))


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used: what a format's reader yields instead of it."""

    reason: str
    remedy: str
    sample: str = ""


Located = tuple[Place, Row]
# A format's reader: (path, config, tally for notes) -> rows, or Bad ones, with their places.
Reader = Callable[[Path, ReadConfig, Step], Iterator[tuple[Place, Row | Bad]]]

# Adding a format: one function and one line here.
FORMATS: Mapping[str, str] = {
    ".txt": "read_text",
    ".md": "read_markdown",
    ".jsonl": "read_jsonl",
    ".ndjson": "read_jsonl",
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".parquet": "read_parquet",
}
# Read where such a file is named itself; in a folder it may be anything.
ALONE: Mapping[str, str] = {".json": "read_json"}
# Files beside the data that are no data: passed over in folders without a word.
BESIDE = {"lineage.json", "labels.json", "report.json", "readme.md", "license", "sha256sums", "manifest.json"}


def read(path: Path | str, config: ReadConfig | None = None, report: DropReport | None = None) -> Iterator[Row]:
    """The rows of a file, or of all data files of a folder in the order of their names. Raises DataError."""
    for _, row in read_located(path, config, report):
        yield row


def read_located(
    path: Path | str, config: ReadConfig | None = None, report: DropReport | None = None
) -> Iterator[Located]:
    """As `read`, each row with the place where it stands."""
    config = config or ReadConfig()
    tally = (report or DropReport()).step(STEP)
    n_rows = 0
    for file in data_files(Path(path), tally):
        for located in _read_file(file, config, tally):
            n_rows += 1
            yield located
    if n_rows == 0:
        raise DataError(f"{path} holds no rows", remedy="check that this is the right file or folder")


def data_files(path: Path, tally: Step | None = None) -> list[Path]:
    """The data files that `path` stands for, sorted; other files are noted. Raises DataError when there is none."""
    if path.is_file():
        format_of(path)
        return [path]
    if not path.is_dir():
        near = (
            closest(path.name, os.listdir(path.parent))
            if path.parent.is_dir()
            else f"{path.parent} does not exist either"
        )
        raise DataError(f"no file or folder {path}", remedy=near)
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "logs"]
        found += [Path(folder, name) for name in files if not name.startswith(".") and name.lower() not in BESIDE]
    data = [file for file in found if suffix_of(file) in FORMATS]
    for other in sorted(set(found) - set(data)):
        if tally is not None:
            tally.note("passed over: not a data file", where=str(other))
    if not data:
        raise DataError(f"{path} holds no data file", remedy=f"put files there that end in {_known_suffixes()}")
    return sorted(data, key=lambda file: file.relative_to(path).as_posix())


def suffix_of(path: Path) -> str:
    """The lower-case suffix of a file, with .gz taken off."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return bare.suffix.lower()


def format_of(path: Path) -> Reader:
    """The reader for a file's format. Raises DataError for an unknown suffix."""
    from nacre.data import formats

    suffix, known = suffix_of(path), {**FORMATS, **ALONE}
    if suffix not in known:
        raise DataError(f"{path}: unknown format {suffix or '(no suffix)'!r}", remedy=f"known: {_known_suffixes()}")
    reader: Reader = getattr(formats, known[suffix])
    return reader


def _known_suffixes() -> str:
    return f"{', '.join([*FORMATS, *ALONE])} (each also .gz)"


def _read_file(path: Path, config: ReadConfig, tally: Step) -> Iterator[Located]:
    n_rows = n_seen = 0
    for place, row in format_of(path)(path, config, tally):
        n_seen += 1
        bad = row if isinstance(row, Bad) else _lacking(row, config.required)
        if bad is not None:
            if config.on_error == "raise":
                raise DataError(f"{place}: {bad.reason}", remedy=f"{bad.remedy}; or drop and count such rows ({DROP})")
            tally.enter(size=len(bad.sample.encode("utf-8", "replace")))
            tally.drop(bad.reason.partition(":")[0], bad.sample, str(place))
            continue
        assert not isinstance(row, Bad)
        n_rows += 1
        tally.leave(size=tally.enter(row))
        yield place, row
    if n_rows == 0:
        what = (
            f"none of its {n_seen:,} rows can be used"
            if n_seen
            else "the file is empty" + ("" if not path.stat().st_size else " (it holds no rows)")
        )
        if config.on_error == "raise" or n_seen:
            raise DataError(f"{path}: {what}", remedy="check that this is the right file, and its format")
        tally.note("empty file", where=str(path))


def _lacking(row: Row, required: tuple[str, ...]) -> Bad | None:
    for name in required:
        if name not in row:
            fields = ", ".join(map(repr, row)) or "(none)"
            return Bad(
                f"no field {name!r}: the row has {fields}",
                f"map the field (config: fields); {closest(name, row)}",
                str(row),
            )
    return None
