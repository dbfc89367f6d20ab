"""Cleaning: edits that change a text and filters that drop a row, named in two catalogues, counted in the report.

A rule costs one function in `nacre/data/cleaning/` and one line here. Rules run in the order of their catalogue,
whatever the order in which a config names them: markup goes before boilerplate, spaces are tidied last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nacre.data.cleaning.boilerplate import boilerplate, repeated_lines, without_lines
from nacre.data.cleaning.characters import controls, nfc, spaces, zero_width
from nacre.data.cleaning.language import language
from nacre.data.cleaning.markup import html_markup, markdown_markup, wiki_markup
from nacre.data.cleaning.repetition import quality, repeated_ngrams, repeated_parts
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row, content, content_fields
from nacre.errors import ConfigError, closest

STEP = "clean"


@dataclass(frozen=True)
class CleanConfig:
    """Which rules apply. The default is safe for every task: it changes only what nobody sees, and drops empty rows.

    `min_characters` and `max_characters` bound a text for the filter `length`, `languages` lists the ISO 639-1 codes
    that the filter `language` keeps. `fields` are the fields to clean; empty means the row's content.
    """

    edits: tuple[str, ...] = ("controls", "zero_width", "nfc", "spaces")
    filters: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    min_characters: int = 1
    max_characters: int = 1_000_000
    languages: tuple[str, ...] = ("zh", "en")

    def __post_init__(self) -> None:
        for kind, named, known in (("edit", self.edits, EDITS), ("filter", self.filters, FILTERS)):
            for name in named:
                if name not in known:
                    raise ConfigError(f"unknown {kind} {name!r} in cleaning", remedy=closest(name, known))
        if not 0 <= self.min_characters <= self.max_characters:
            raise ConfigError(
                f"min_characters {self.min_characters} and max_characters {self.max_characters} leave nothing",
                remedy="0 <= min_characters <= max_characters",
            )


Edit = Callable[[str], str]
# A filter answers with the reason to drop, or None.
Filter = Callable[[str, CleanConfig], "str | None"]


def _length(text: str, config: CleanConfig) -> str | None:
    if len(text) < config.min_characters:
        return f"shorter than {config.min_characters:,} characters"
    return f"longer than {config.max_characters:,} characters" if len(text) > config.max_characters else None


def _language(text: str, config: CleanConfig) -> str | None:
    found = language(text)
    return None if found in config.languages else f"language {found}"


EDITS: Mapping[str, Edit] = {
    "controls": controls,
    "zero_width": zero_width,
    "nfc": nfc,
    "html": html_markup,
    "wiki": wiki_markup,
    "markdown": markdown_markup,
    "boilerplate": boilerplate,
    "spaces": spaces,
}
FILTERS: Mapping[str, Filter] = {
    "length": _length,
    "language": _language,
    "repeated_parts": lambda text, config: repeated_parts(text),
    "repeated_ngrams": lambda text, config: repeated_ngrams(text),
    "quality": lambda text, config: quality(text),
}
# What to name for documents that a language model is pretrained on.
DOCUMENT_EDITS = tuple(EDITS)
DOCUMENT_FILTERS = tuple(FILTERS)


def clean(rows: Iterable[Row], config: CleanConfig, report: DropReport) -> Iterator[Row]:
    """Rows with every edit applied, without those that a filter refuses or that have nothing left."""
    tally = report.step(STEP)
    edits = {name: edit for name, edit in EDITS.items() if name in config.edits}
    filters = {name: judge for name, judge in FILTERS.items() if name in config.filters}
    for row in rows:
        size = tally.enter(row)
        cleaned = _edited(row, edits, config, tally)
        reason = _reason(cleaned, filters, config)
        if reason is not None:
            tally.drop(reason, content(row, config.fields or None))
        elif cleaned is row:
            tally.leave(size=size)
            yield row
        else:
            tally.leave(cleaned)
            yield cleaned


def _edited(row: Row, edits: Mapping[str, Edit], config: CleanConfig, tally: Step) -> Row:
    """The row with its texts edited; the same object when nothing changed. Each edit that changed a text is counted."""
    result = row
    for field in config.fields or content_fields(row):
        value = row[field]
        new: Any = value
        if isinstance(value, str):
            new = _apply(value, edits, tally)
        elif field == "messages":
            new = [message | {"content": _apply(str(message["content"]), edits, tally)} for message in value]
        elif field == "tokens":
            new = _tokens(value, edits, tally)
        if new != value:
            result = result | {field: new}
    return result


def _apply(text: str, edits: Mapping[str, Edit], tally: Step) -> str:
    for name, edit in edits.items():
        edited = edit(text)
        if edited != text:
            tally.change(name, text)
            text = edited
    return text


def _tokens(tokens: list[str], edits: Mapping[str, Edit], tally: Step) -> list[str]:
    """Tokens carry tags one to one: a token that an edit would empty stays as it is, and is noted."""
    edited = []
    for token in tokens:
        new = _apply(token, edits, tally)
        if token and not new:
            tally.note("a token that cleaning would empty was kept: its tag needs it", repr(token))
        edited.append(new or token)
    return edited


def _reason(row: Row, filters: Mapping[str, Filter], config: CleanConfig) -> str | None:
    for field in config.fields or content_fields(row):
        text = row[field] if isinstance(row[field], str) else content(row, (field,))
        if not text.strip():
            return f"empty {field}"
        for judge in filters.values():
            reason = judge(text, config)
            if reason is not None:
                return reason
    return None


def drop_repeated_lines(rows: Iterable[Row], min_rows: int, report: DropReport) -> Iterator[Row]:
    """Rows without the lines that stand in `min_rows` rows or more (headers, footers, disclaimers).

    Passes over `rows` twice: give a list or a `Spool`, not an iterator. Only rows with one `text` are touched.
    """
    tally = report.step("repeated lines")
    if iter(rows) is rows:
        raise ConfigError("repeated lines need two passes over the rows", remedy="give a list or a Spool")
    known = repeated_lines((row for row in rows if "text" in row), ("text",), min_rows)
    for row in rows:
        tally.enter(row)
        text = without_lines(row["text"], known) if "text" in row else None
        if text is not None and text != row["text"]:
            tally.change(f"lines that stand in {min_rows:,} rows or more", row["text"])
            if not text.strip():
                tally.drop("nothing but repeated lines", row["text"])
                continue
            row = row | {"text": text.strip("\n")}
        tally.leave(row)
        yield row
