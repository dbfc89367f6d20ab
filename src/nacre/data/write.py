"""Rows into files: streaming, atomic (complete under the final name or not there), the same bytes for the same rows."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from nacre.data.rows import Row
from nacre.errors import DataError, ResourceError
from nacre.lineage.durable import write_atomic


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Writes rows as JSON lines in UTF-8 (gzipped when the name ends in .gz); returns how many.

    Raises DataError for a row that is no JSON, ResourceError for a full disk; either way nothing is left at `path`
    that was not there before.
    """
    with JsonlWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return writer.n_rows


class JsonlWriter:
    """A JSON lines file that appears under its name when the `with` block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> JsonlWriter:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
        # mtime 0: a gzip header carries the time, and the same rows must give the same bytes.
        self._sink = gzip.GzipFile("", "wb", 6, self._file, mtime=0) if self.path.suffix == ".gz" else self._file
        return self

    def write(self, row: Row) -> None:
        line = to_json(row, f"row {self.n_rows + 1:,} for {self.path}") + "\n"
        with disk_errors(self.path):
            self._sink.write(line.encode("utf-8"))
        self.n_rows += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with disk_errors(self.path):
                if self._sink is not self._file:
                    self._sink.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                if kind is None:
                    os.replace(self._part, self.path)
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON document, indented, atomically."""
    text = to_json(value, str(path), indent=2) + "\n"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode("utf-8"))


def to_json(value: Any, where: str, indent: int | None = None) -> str:
    """Strict JSON as text. Raises DataError for what JSON or UTF-8 cannot hold (NaN, bytes, half a character)."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
        text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where} cannot be written as JSON: {error}", remedy="keep to text, numbers, lists and objects"
        ) from error
    return text


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns errors of the disk into ResourceError (full, quota) or DataError (anything else)."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"no space left on the disk while writing {path}", remedy="free some space and run again"
            ) from error
        raise DataError(
            f"cannot write {path}: {error.strerror or error}", remedy="check the folder and its permissions"
        ) from error


class Spool:
    """Rows kept on disk so that they can be passed over more than once in bounded memory.

    `Spool(path).fill(rows)` writes them; iterating reads them back in the same order. The file is scratch: whoever
    gave the path owns it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0

    def fill(self, rows: Iterable[Row]) -> Spool:
        self.n_rows = write_jsonl(self.path, rows)
        return self

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[Row]:
        with self.path.open("rb") as file:
            for line in file:
                row: Row = json.loads(line)
                yield row
