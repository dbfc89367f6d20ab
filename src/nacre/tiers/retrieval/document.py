"""A document as retrieval sees it: stretches of text that know where they stand in their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Heading:
    """A heading: where its line begins (characters from the document's begin), its level from 1, its words."""

    start: int
    level: int
    title: str


@dataclass(frozen=True)
class Part:
    """A stretch of a document's text, at most `IngestConfig.part_characters` long.

    `source`: the file relative to the folder that was ingested, with `#ID` where a file holds many documents.
    `start`: characters of the document before `text`. For text and Markdown the document is the decoded file itself;
    for HTML, PDF and rows it is the text that was taken out of it. `headings`: those in force at the begin and those
    inside, in order. `fields`: metadata to filter by. `last`: nothing of this document follows.
    """

    source: str
    text: str
    start: int = 0
    title: str = ""
    headings: tuple[Heading, ...] = ()
    page: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    last: bool = True


@dataclass(frozen=True)
class SourceFile:
    """A file to ingest: where it is, its name relative to what was given, its suffix without `.gz`."""

    path: Path
    name: str
    suffix: str


@dataclass(frozen=True)
class IngestConfig:
    """How files become documents.

    `text_fields`: the fields of a row that make its text, one line each; none means what `data/rows.py` takes for
    content, else every field as `name: value`. `id_field` names a row. `exclude`: patterns of file names, as in
    `drafts/*`, that are left out. `part_characters` bounds the memory that a long file takes.
    """

    text_fields: tuple[str, ...] = ()
    id_field: str = "id"
    exclude: tuple[str, ...] = ()
    encoding: str | None = None
    part_characters: int = 1 << 20
