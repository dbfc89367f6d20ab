"""The file formats, one function each: (path, config, tally) -> rows with their places, or `Bad` with the reason."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, time
from pathlib import Path
from typing import Any

from nacre.data.encoding import Encoding, detect, named, open_bytes
from nacre.data.lines import Line, Place, lines
from nacre.data.markdown import front_matter
from nacre.data.read import Bad, ReadConfig, suffix_of
from nacre.data.report import Step
from nacre.data.rows import Row
from nacre.errors import DataError
from nacre.lazy import require

Rows = Iterator[tuple[Place, Row | Bad]]

UNDECODABLE = Bad(
    "bytes that are not valid in the file's encoding", "repair the line, or name the file's encoding (encoding: ...)"
)
AS_LINES = "write JSON lines: one object a line, in a file that ends in .jsonl"
# An escaped surrogate in JSON: a pair is an emoji, a lone one is no text and could never be written as UTF-8.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _lines(path: Path, config: ReadConfig, tally: Step) -> Iterator[Line]:
    encoding = named(path, config.encoding) if config.encoding else detect(path, tolerant=config.on_error == "drop")
    if encoding != Encoding("utf-8"):
        tally.note(f"encoding {encoding}", where=str(path))
    return lines(path, encoding, config.max_row_mib << 20)


def read_text(path: Path, config: ReadConfig, tally: Step) -> Rows:
    """A row per line, paragraph or file. Blank lines between documents are no rows."""
    limit, kept, size = config.max_row_mib << 20, list[str](), 0
    begin: Place | None = None
    for line in _lines(path, config, tally):
        place = Place(path, line.number, line.offset)
        if line.text is None:
            yield place, Bad(UNDECODABLE.reason, UNDECODABLE.remedy, repr(line.raw[:80]))
            continue
        text = line.text.rstrip("\r\n")
        ends = config.documents == "lines" or (config.documents == "paragraphs" and not text.strip())
        if text.strip() or kept:
            begin = begin or place
            kept.append(text)
            size += len(line.raw)
        if size > limit:
            raise DataError(
                f"{begin}: a document is longer than {config.max_row_mib} MiB",
                remedy="read it by lines or paragraphs (config: documents), or raise the limit (config: max_row_mib)",
            )
        if ends and kept:
            yield begin or place, {config.text_field: "\n".join(kept).strip("\r\n")}
            begin, kept, size = None, [], 0
    if kept and begin:
        yield begin, {config.text_field: "\n".join(kept).rstrip()}


def read_markdown(path: Path, config: ReadConfig, tally: Step) -> Rows:
    """A row per file: the body as its text, the front matter's fields beside it, the file's name as `id`."""
    for place, row in read_text(path, replace(config, documents="files"), tally):
        if isinstance(row, Bad):
            yield place, row
            continue
        try:
            fields, body = front_matter(row[config.text_field])
        except ValueError as error:
            yield place, Bad(str(error), "mend the lines between the two lines of ---")
            continue
        yield place, {"id": path.name.partition(".")[0], **fields, config.text_field: body.strip()}


def read_jsonl(path: Path, config: ReadConfig, tally: Step) -> Rows:
    """A row per line, each a JSON object. Blank lines are passed over and noted."""
    for line in _lines(path, config, tally):
        place = Place(path, line.number, line.offset)
        if line.text is None:
            yield place, Bad(UNDECODABLE.reason, UNDECODABLE.remedy, repr(line.raw[:80]))
        elif not line.text.strip():
            tally.note("blank line", where=str(place))
        else:
            yield place, parse_object(line.text)


def read_json(path: Path, config: ReadConfig, tally: Step) -> Rows:
    """A row per object of one JSON array. The file is read whole, up to 16 times `max_row_mib`."""
    texts, size = list[str](), 0
    for line in _lines(path, config, tally):
        if line.text is None:
            yield (
                Place(path, line.number, line.offset),
                Bad(UNDECODABLE.reason, UNDECODABLE.remedy, repr(line.raw[:80])),
            )
            return
        texts.append(line.text)
        size += len(line.raw)
        if size > config.max_row_mib << 24:
            raise DataError(f"{path} is longer than {config.max_row_mib << 4:,} MiB", remedy=AS_LINES)
    try:
        rows = json.loads("".join(texts), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", remedy=f"mend it, or {AS_LINES}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a JSON {type(rows).__name__}, not an array of rows", remedy=AS_LINES)
    for number, row in enumerate(rows, 1):
        yield Place(path, number, unit="row"), parse_object(json.dumps(row))


def parse_object(text: str) -> Row | Bad:
    """One line of JSON as a row. NaN, Infinity and lone surrogates are refused: they are neither JSON nor text."""
    try:
        row = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return Bad(f"malformed JSON: {error.msg} at character {error.pos + 1:,}", "mend the line", text)
    except (ValueError, RecursionError) as error:
        return Bad(f"malformed JSON: {error}", "mend the line", text)
    if not isinstance(row, dict):
        return Bad(f"not a JSON object: {type(row).__name__}", 'write one object a line, such as {"text": "..."}', text)
    if SURROGATE.search(text):
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return Bad(
                "lone surrogate: an escape that is half a character", "write the character itself, in UTF-8", text
            )
    return row


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_csv(path: Path, config: ReadConfig, tally: Step) -> Rows:
    """A row per record, all values strings. The first record names the columns unless `config.header` does.

    A .tsv file has no quoting: a quotation mark there is a character. Sets the `csv` module's field limit to
    `max_row_mib`, which is the module's own global.
    """
    csv.field_size_limit(config.max_row_mib << 20)
    source = _Numbered(path, _lines(path, config, tally))
    tabs = suffix_of(path) == ".tsv"
    records = csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(source, strict=True)
    header = list(config.header)
    while True:
        place = source.next_place()
        source.undecodable = False
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, Bad(f"malformed CSV: {error}", "mend the quotation marks of the record")
            continue
        if source.undecodable:
            yield place, UNDECODABLE
        elif not any(record):
            tally.note("blank line", where=str(place))
        elif not header:
            header = _header(record, place)
        elif len(record) != len(header):
            reason = f"wrong number of fields: {len(record)} where the header has {len(header)}"
            yield place, Bad(reason, "mend the record, or its separators and quotation marks", ",".join(record))
        else:
            yield place, dict(zip(header, record, strict=True))


def _header(record: list[str], place: Place) -> list[str]:
    names = [name.strip() for name in record]
    if "" in names or len(set(names)) != len(names):
        raise DataError(
            f"{place}: the header has an empty or repeated name: {', '.join(map(repr, names))}",
            remedy="name every column once, or give the names (config: header) where the file has no header line",
        )
    return names


class _Numbered:
    """Feeds text lines to `csv.reader` and remembers where the next record begins."""

    def __init__(self, path: Path, source: Iterator[Line]) -> None:
        self.path, self.source = path, source
        self.number, self.offset = 1, 0
        self.undecodable = False

    def __iter__(self) -> _Numbered:
        return self

    def __next__(self) -> str:
        line = next(self.source)
        self.number, self.offset = line.number + 1, line.offset + len(line.raw)
        self.undecodable |= line.text is None
        return line.raw.decode("latin-1") if line.text is None else line.text

    def next_place(self) -> Place:
        return Place(self.path, self.number, self.offset)


def read_parquet(path: Path, config: ReadConfig, tally: Step) -> Rows:
    """A row per record, in batches. Times become ISO strings; a binary column is refused. Needs pyarrow."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    with tempfile.TemporaryDirectory(prefix="nacre-") as folder:
        local = _unpacked(path, Path(folder)) if path.suffix.lower() == ".gz" else path
        number = 0
        try:
            with parquet.ParquetFile(local) as file:
                for batch in file.iter_batches(batch_size=256):
                    for row in batch.to_pylist():
                        number += 1
                        yield Place(path, number, unit="row"), _plain_row(row)
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{path}: not readable as Parquet past row {number:,}: {str(error).splitlines()[0]}",
                remedy="the file is damaged or of another format: write or download it again",
            ) from error


def _unpacked(path: Path, folder: Path) -> Path:
    local = folder / "data.parquet"
    try:
        with open_bytes(path) as packed, local.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: a damaged gzip file: {error}", remedy="copy or download it again") from error
    return local


def _plain_row(row: Row) -> Row | Bad:
    for name, value in row.items():
        if isinstance(value, bytes):
            return Bad(f"binary value: field {name!r} holds bytes", "write that column as text")
        if isinstance(value, date | time):
            row[name] = value.isoformat()
    return row
