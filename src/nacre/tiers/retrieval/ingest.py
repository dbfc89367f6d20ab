"""Documents from files and folders: text, Markdown, HTML, PDF, CSV, TSV, JSON lines, Parquet.

What cannot be read is counted with its reason and listed, and the rest goes on; nothing readable at all is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from nacre.data.read import suffix_of
from nacre.data.report import DropReport, Step
from nacre.errors import DataError, closest
from nacre.lazy import named
from nacre.tiers.retrieval.document import IngestConfig, Part, SourceFile

# A format's reader: (file, config, tally for notes) -> parts in order. Raises DataError where the file is of no use.
Reader = Callable[[SourceFile, IngestConfig, Step], Iterator[Part]]
STEP = "ingest"

_HERE = "nacre.tiers.retrieval.readers"
# Adding a format: one file and one line here.
READERS: Mapping[str, str] = {
    ".txt": f"{_HERE}.text:read_text",
    ".md": f"{_HERE}.markdown:read_markdown",
    ".markdown": f"{_HERE}.markdown:read_markdown",
    ".html": f"{_HERE}.html:read_html",
    ".htm": f"{_HERE}.html:read_html",
    ".pdf": f"{_HERE}.pdf:read_pdf",
    ".csv": f"{_HERE}.rows:read_rows",
    ".tsv": f"{_HERE}.rows:read_rows",
    ".jsonl": f"{_HERE}.rows:read_rows",
    ".ndjson": f"{_HERE}.rows:read_rows",
    ".parquet": f"{_HERE}.rows:read_rows",
}
# What artifacts hold beside their data.
_BESIDE = frozenset({"lineage.json", "labels.json", "report.json", "task.json"})


def source_files(root: Path, config: IngestConfig, report: DropReport) -> list[SourceFile]:
    """The documents' files that `root` (a file or a folder) stands for, by name; others are noted in the report.

    Raises DataError where there is none.
    """
    tally = report.step(STEP)
    if root.is_file():
        if suffix_of(root) not in READERS:
            raise DataError(f"{root}: unknown format {suffix_of(root) or '(no suffix)'!r}", remedy=_known())
        return [SourceFile(root, root.name, suffix_of(root))]
    if not root.is_dir():
        names = os.listdir(root.parent) if root.parent.is_dir() else []
        raise DataError(f"no file or folder {root}", remedy=closest(root.name, names))
    found = []
    for path, name in _walk(root):
        if any(fnmatch(name, pattern) for pattern in config.exclude):
            tally.note("left out: excluded by its name", where=name)
        elif suffix_of(path) in READERS:
            found.append(SourceFile(path, name, suffix_of(path)))
        elif path.name.lower() not in _BESIDE:
            tally.note("passed over: not a document", where=name)
    if not found:
        raise DataError(f"{root} holds no document", remedy=f"put files there: {_known()}")
    return found


def _walk(root: Path) -> list[tuple[Path, str]]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "logs"]
        paths = [Path(folder, name) for name in files if not name.startswith(".")]
        found += [(path, path.relative_to(root).as_posix()) for path in paths]
    return sorted(found, key=lambda pair: pair[1])


def parts_of(file: SourceFile, config: IngestConfig, report: DropReport) -> Iterator[Part]:
    """The text of one file, part by part. A file that cannot be used gives nothing and is counted in the report."""
    tally = report.step(STEP)
    size = tally.enter(size=file.path.stat().st_size)
    reader: Reader = named(READERS[file.suffix])
    some = False
    try:
        if size == 0:
            raise DataError("empty file", remedy="")
        for part in reader(file, config, tally):
            if part.text.strip():
                some = True
                yield part
        if not some:
            raise DataError("no text in it", remedy="")
    except DataError as error:
        if some:  # half a document in the index would be worse than none, and cannot be taken back here
            raise
        tally.drop(_reason(error.message, file), where=file.name, sample=error.message)
        return
    tally.leave(size=size)


def ingest(root: Path, config: IngestConfig | None = None, report: DropReport | None = None) -> Iterator[Part]:
    """Every part of every document below `root`, file by file. Raises DataError where nothing can be used."""
    config, report = config or IngestConfig(), report or DropReport()
    for file in source_files(root, config, report):
        yield from parts_of(file, config, report)
    refuse_nothing(root, report)


def refuse_nothing(root: Path, report: DropReport) -> None:
    """Raises DataError, listing the reasons, where files were read and none could be used."""
    tally = report.step(STEP)
    if tally.rows_out:
        return
    reasons = "; ".join(f"{reason}: {event.count}" for reason, event in sorted(tally.dropped.items()))
    raise DataError(f"none of the {tally.rows_in} files of {root} can be used ({reasons})", remedy="mend the files")


def _reason(message: str, file: SourceFile) -> str:
    """The message without the path, so that equal reasons are counted together."""
    bare = message.replace(f"{file.path}: ", "").replace(str(file.path), file.name)
    head, comma, rest = bare.partition(", line ")
    return rest.partition(": ")[2] or bare if comma and head == file.name else bare


def _known() -> str:
    return f"known: {', '.join(READERS)} (text and rows also .gz)"
