"""Files of rows (CSV, TSV, JSON lines, Parquet): a document per row, its other fields as metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nacre.data.read import ReadConfig, read_located
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row, content, content_fields
from nacre.errors import DataError
from nacre.tiers.retrieval.document import IngestConfig, Part, SourceFile


def read_rows(file: SourceFile, config: IngestConfig, tally: Step) -> Iterator[Part]:
    """A part per row, with the source `FILE#ID`, or `FILE#NUMBER` of the line where rows have no id."""
    report, seen = DropReport(tally.n_samples), set[str]()
    reading = ReadConfig(on_error="drop", encoding=config.encoding)
    for place, row in read_located(Path(file.path), reading, report):
        text, used = _text(row, config)
        if not text.strip():
            tally.note("row without text", where=str(place))
            continue
        name = str(row.get(config.id_field, place.line))
        if name in seen:
            tally.note("id that names several rows: the line's number is added", name, str(place))
            name = f"{name}.{place.line}"
        seen.add(name)
        fields = {key: value for key, value in row.items() if key not in used}
        yield Part(f"{file.name}#{name}", text, title=str(row.get("title", "")), fields=fields)
    for reason, event in report.step("read").dropped.items():
        sample = event.samples[0] if event.samples else {}
        tally.note(f"row left out: {reason}", sample.get("text", ""), sample.get("where", ""), times=event.count)


def _text(row: Row, config: IngestConfig) -> tuple[str, tuple[str, ...]]:
    if config.text_fields:
        absent = [name for name in config.text_fields if name not in row]
        if absent:
            raise DataError(f"a row has no field {absent[0]!r}", remedy=f"it has: {', '.join(map(repr, row))}")
        return "\n".join(str(row[name]) for name in config.text_fields), config.text_fields
    try:
        used = content_fields(row)
    except DataError:
        shown = {name: value for name, value in row.items() if value not in ("", None) and name != config.id_field}
        return "\n".join(f"{name}: {value}" for name, value in shown.items()), ()
    return content(row), used
