"""HTML: the text of the page, its title and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from nacre.data.cleaning.markup import html_markup
from nacre.data.encoding import chunks
from nacre.data.report import Step
from nacre.errors import DataError
from nacre.tiers.retrieval.document import Heading, IngestConfig, Part, SourceFile
from nacre.tiers.retrieval.readers.decoded import paragraph_cut, pieces
from nacre.tiers.retrieval.readers.markdown import in_force

MAX_MIB = 32  # a tag may close anywhere, so a page is read whole
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?\s*([A-Za-z0-9_-]+)", re.I)
_HIDDEN = re.compile(r"<(script|style|noscript|template|head)\b[^>]*>.*?</\1\s*>|<!--.*?-->", re.S | re.I)
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title\s*>", re.S | re.I)
_HEADING = re.compile(r"<h([1-6])\b[^>]*>(.*?)</h\1\s*>", re.S | re.I)
_PRE = re.compile(r"<pre\b[^>]*>(.*?)</pre\s*>", re.S | re.I)
_BREAK = re.compile(r"</?(?:p|div|ul|ol|table|blockquote|section|article)\b[^>]*>", re.I)
_ITEM = re.compile(r"<li\b[^>]*>", re.I)
_CELL = re.compile(r"</t[dh]\s*>\s*(?=<t[dh]\b)", re.I)
_INDENTED = re.compile(r"[^\S\n]*\n[^\S\n]*")


def read_html(file: SourceFile, config: IngestConfig, tally: Step) -> Iterator[Part]:
    """Parts of the text of a page. Offsets count the characters of that text, not of the markup."""
    page = _page(file, config, tally)
    named = _TITLE.search(page)
    title = _flat(named[1]) if named else ""
    text, found = _text(_HIDDEN.sub("", page))
    title = title or (found[0].title if found else PurePosixPath(file.name).name.partition(".")[0])
    start = 0
    while True:
        rest = text[start : start + config.part_characters]
        end = start + (len(rest) if start + len(rest) >= len(text) else paragraph_cut(rest))
        inside = tuple(one for one in found if start <= one.start < end)
        carried = in_force(tuple(one for one in found if one.start < start))
        yield Part(file.name, text[start:end], start, title, carried + inside, last=end >= len(text))
        if end >= len(text):
            return
        start = end


def _page(file: SourceFile, config: IngestConfig, tally: Step) -> str:
    if file.path.stat().st_size > MAX_MIB << 20:
        raise DataError(
            f"{file.path}: a page of more than {MAX_MIB} MiB", remedy="split it, or convert it to text or Markdown"
        )
    declared = _CHARSET.search(next(chunks(file.path, 2048), b""))
    whole = replace(config, part_characters=1 << 40)
    if config.encoding is None and declared and declared[1].lower() not in (b"utf-8", b"utf8"):
        whole = replace(whole, encoding=_codec(declared[1].decode("ascii")))
    try:
        return "".join(text for _, text, _ in pieces(file, whole, tally, len))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file.path}: not in the encoding that the page names", remedy="correct its meta tag"
        ) from error


def _codec(declared: str) -> str:
    """gb2312 and gbk are written where their superset GB18030 is meant."""
    return "gb18030" if declared.lower() in ("gb2312", "gbk", "gb18030") else declared


def _text(page: str) -> tuple[str, tuple[Heading, ...]]:
    """The page's text and its headings with their places in it."""
    text, headings, at = "", list[Heading](), 0
    for found in _HEADING.finditer(page):
        text = _join(text, _block(page[at : found.start()]))
        title = _flat(found[2])
        if title:
            begin = len(text) + 2 if text else 0
            text = _join(text, title)
            headings.append(Heading(begin, int(found[1]), title))
        at = found.end()
    return _join(text, _block(page[at:])), tuple(headings)


def _join(text: str, more: str) -> str:
    return f"{text}\n\n{more}" if text and more else text or more


def _block(markup: str) -> str:
    """Running text: paragraphs apart by a blank line, items with a dash, cells apart by a bar, `pre` as it stands."""
    pieces_of, at = [], 0
    for found in _PRE.finditer(markup):
        pieces_of += [_prose(markup[at : found.start()]), html_markup(found[1]).strip("\n")]
        at = found.end()
    return "\n\n".join(piece for piece in (*pieces_of, _prose(markup[at:])) if piece.strip())


def _prose(markup: str) -> str:
    one_line = re.sub(r"\s+", " ", markup)
    marked = _CELL.sub(" | ", _ITEM.sub("<br>- ", _BREAK.sub("<br><br>", one_line)))
    lines = _INDENTED.sub("\n", html_markup(marked))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def _flat(markup: str) -> str:
    return " ".join(html_markup(markup).split())
