"""Markdown: the file itself, with the path of its headings and the fields of its front matter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from nacre.data.markdown import FENCE, front_matter
from nacre.data.report import Step
from nacre.errors import DataError
from nacre.tiers.retrieval.document import Heading, IngestConfig, Part, SourceFile
from nacre.tiers.retrieval.readers.decoded import paragraph_cut, pieces

CODE_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.M)
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*\r?$", re.M)


def read_markdown(file: SourceFile, config: IngestConfig, tally: Step) -> Iterator[Part]:
    """Parts of a Markdown file. The title is the front matter's, else the first heading, else the file's name."""
    fields: dict[str, Any] = {}
    carried: tuple[Heading, ...] = ()
    title = ""
    for start, text, last in pieces(file, config, tally, _cut):
        body = text
        if start == 0:
            fields, body = _split(text, file)
        begin = start + len(text) - len(body)
        found = headings(body, begin)
        if not title:
            first = found[0].title if found else PurePosixPath(file.name).name.partition(".")[0]
            title = str(fields.get("title") or first)
        yield Part(file.name, body, begin, title, (*carried, *found), fields=fields, last=last)
        carried = in_force((*carried, *found))


def _split(text: str, file: SourceFile) -> tuple[dict[str, Any], str]:
    """The front matter's fields, and the rest of the file as it stands there."""
    unified = text.replace("\r\n", "\n") if text.startswith(f"{FENCE}\r\n") else text
    try:
        fields, _ = front_matter(unified)
    except ValueError as error:
        raise DataError(f"{file.path}: {error}", remedy="mend the lines between the two lines of ---") from error
    if not unified.startswith(f"{FENCE}\n"):
        return {}, text
    closed = re.compile(rf"\r?\n{FENCE}\r?\n\s*").search(text, len(FENCE))
    return fields, text[closed.end() :] if closed else text


def headings(text: str, start: int) -> tuple[Heading, ...]:
    """The headings of a Markdown text that begins at `start`; what looks like one inside a code fence is none."""
    fenced = fences(text)
    return tuple(
        Heading(start + found.start(), len(found[1]), found[2])
        for found in _HEADING.finditer(text)
        if not any(begin <= found.start() < end for begin, end in fenced)
    )


def fences(text: str) -> list[tuple[int, int]]:
    """(begin, end) of every code fence, its marks included; one that is not closed goes to the end."""
    found, opened, mark = [], -1, ""
    for line in CODE_FENCE.finditer(text):
        if opened < 0:
            opened, mark = line.start(), line[1]
        elif line[1][0] == mark[0] and len(line[1]) >= len(mark):
            end = text.find("\n", line.end())
            found.append((opened, len(text) if end < 0 else end + 1))
            opened = -1
    return found if opened < 0 else [*found, (opened, len(text))]


def in_force(known: tuple[Heading, ...]) -> tuple[Heading, ...]:
    """The headings that still hold after the last one: each deeper than the one before it."""
    path: list[Heading] = []
    for heading in known:
        path = [one for one in path if one.level < heading.level] + [heading]
    return tuple(path)


def _cut(text: str) -> int:
    """As of paragraphs, but before a code fence that is still open."""
    at = paragraph_cut(text)
    for begin, end in fences(text):
        if begin < at < end and begin > 0:
            return begin
    return at
