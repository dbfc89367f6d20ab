"""PDF through pypdf: a part per page. Broken, encrypted and scanned files are told apart."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from nacre.data.report import Step
from nacre.errors import DataError
from nacre.lazy import require
from nacre.tiers.retrieval.document import IngestConfig, Part, SourceFile

# What pypdf lets through of a damaged file, beside errors of its own.
_DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OSError, AssertionError)


def read_pdf(file: SourceFile, config: IngestConfig, tally: Step) -> Iterator[Part]:
    """A part per page that has text; offsets count the extracted text, pages apart by a form feed."""
    pypdf = require("pypdf")
    errors = (pypdf.errors.PyPdfError, pypdf.errors.DependencyError, *_DAMAGE)
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # its remarks on every odd object are no news to a reader
    try:
        reader = pypdf.PdfReader(file.path)
        _unlock(reader, file)
        n_pages, title = len(reader.pages), _title(reader, file)
    except errors as error:
        raise DataError(f"{file.path}: a broken PDF: {_line(error)}", remedy="write or download it again") from error
    start, some = 0, False
    for number in range(1, n_pages + 1):
        try:
            text = _sound(reader.pages[number - 1].extract_text(), file, number, tally)
        except errors as error:
            tally.note("PDF page that cannot be read", _line(error), f"{file.name}, page {number}")
            text = ""
        if not text.strip():
            tally.note("PDF page without text", where=f"{file.name}, page {number}")
        else:
            some = True
            yield Part(file.name, text, start, title, page=number, last=number == n_pages)
        start += len(text) + 1
    if not some:
        raise DataError(f"{file.path}: a PDF without text (scanned?)", remedy="run a text recognition over it first")


def _unlock(reader: Any, file: SourceFile) -> None:
    """Many PDFs are encrypted with an empty password, which every viewer opens."""
    if reader.is_encrypted and not reader.decrypt(""):
        raise DataError(f"{file.path}: an encrypted PDF", remedy="take its password off")


def _title(reader: Any, file: SourceFile) -> str:
    found = reader.metadata.title if reader.metadata else None
    return str(found).strip() if found and str(found).strip() else PurePosixPath(file.name).name.partition(".")[0]


def _sound(text: str, file: SourceFile, number: int, tally: Step) -> str:
    """Halves of characters, which no file can hold, replaced by U+FFFD and noted."""
    sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if sound != text:
        tally.note("PDF page with halves of characters", where=f"{file.name}, page {number}")
    return sound


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
