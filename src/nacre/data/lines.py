"""Text files as lines that know where they stand: streaming, with bounded memory whatever the file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nacre.data.encoding import Encoding, chunks
from nacre.errors import DataError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row begins: file, line or row number (from 1), byte offset in the (decompressed) file."""

    path: Path
    line: int
    offset: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        at = "" if self.offset is None else f", byte {self.offset:,}"
        return f"{self.path}, {self.unit} {self.line:,}{at}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its ending; `text` is None where its bytes are not valid in the file's encoding."""

    number: int
    offset: int
    text: str | None
    raw: bytes


def lines(path: Path, encoding: Encoding, limit: int) -> Iterator[Line]:
    """The lines of a file, split at line feeds only. A line longer than `limit` bytes is a DataError.

    U+2028 and its like are characters of a text (JSON allows them in strings) and end no line.
    """
    codec = codecs.lookup(encoding.codec)
    feed = "\n".encode(codec.name)
    number = 1
    for offset, raw in _split(path, feed, encoding.skip, limit):
        try:
            text = codec.decode(raw)[0]
        except UnicodeDecodeError:
            text = None
        yield Line(number, offset, text, raw)
        number += 1


def _split(path: Path, feed: bytes, skip: int, limit: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes with their line feed). `feed` is matched at multiples of its own width (UTF-16 and UTF-32)."""
    width, rest, offset = len(feed), b"", 0
    for chunk in chunks(path):
        data = rest + chunk
        if skip:
            if len(data) < skip:
                rest = data
                continue
            data, offset, skip = data[skip:], skip, 0
        begin = search = 0
        while (end := data.find(feed, search)) >= 0:
            if end % width:
                search = end + 1
                continue
            end += width
            yield offset + begin, data[begin:end]
            begin = search = end
        rest, offset = data[begin:], offset + begin
        if len(rest) > limit:
            raise DataError(
                f"{path}, byte {offset:,}: a line is longer than {limit / 2**20:g} MiB",
                remedy="check that the file has lines (JSON lines, no JSON array), or raise the limit (max_row_mib)",
            )
    if rest and not skip:
        yield offset, rest
