"""Sentences that know what they were made of, so that a report can say them in another language.

A stage writes `say("{n} of {all} rows are equal", n=n, all=all)` where it would have written an f-string; it gets the
English sentence, a `str` like any other. The Chinese stands beside it in `messages.py`. A sentence without
placeholders needs no `say`: a row in the table is enough. What has no row is shown in English and marked as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from string import Formatter
from typing import NamedTuple, Self

from nacre.lifecycle.audit.messages import MESSAGES
from nacre.lifecycle.audit.words import LANGUAGES, Words

_TERM = "{word}"
_JOINS: Mapping[str, tuple[str, str]] = {"{clauses}": ("; ", "；"), "{sentences}": (" ", "")}
_PROSE = re.compile(r"[A-Za-z'-]{2,} [a-z'-]+ [a-z'-]+")  # three words in a row: a sentence, not a name


class Said(str):
    """An English sentence with its template and values. Values may be sentences themselves."""

    template: str
    values: Mapping[str, object]

    def __new__(cls, text: str, template: str = "", values: Mapping[str, object] | None = None) -> Self:
        one = super().__new__(cls, text)
        one.template, one.values = template, dict(values or {})
        return one


class Piece(NamedTuple):
    """A part of a sentence in a language; `is_english` where it stands in English for want of a translation."""

    text: str
    is_english: bool


def say(template: str, /, **values: object) -> Said:
    """The sentence of a template (`str.format`'s syntax). A list or tuple is written as a list of its language."""
    shown = {name: ", ".join(map(str, one)) if isinstance(one, list | tuple) else one for name, one in values.items()}
    return Said(template.format(**shown), template, values)


def term(word: str) -> Said:
    """A word of `words.py` (a kind, a stage, a side) within a sentence."""
    return Said(Words(LANGUAGES[0])(word), _TERM, {"word": word})


def clauses(parts: Iterable[str]) -> Said:
    """Sentences in a row, with semicolons between them; empty ones are left out."""
    return _joined("{clauses}", parts)


def paragraph(parts: Iterable[str]) -> Said:
    """Whole sentences one after another; empty ones are left out."""
    return _joined("{sentences}", parts)


def _joined(template: str, parts: Iterable[str]) -> Said:
    kept = tuple(one for one in parts if one)
    return Said(_JOINS[template][0].join(kept), template, {"parts": kept})


def in_language(text: str, language: str) -> tuple[Piece, ...]:
    """A sentence in the language, in pieces: what is not translated is marked. Raises ConfigError for an unknown
    language."""
    if Words(language).language == LANGUAGES[0]:
        return (Piece(text, False),)
    return tuple(_merged(_pieces(text, language)))


def spoken(text: str, language: str) -> str:
    """A sentence in the language, as far as it is translated."""
    return "".join(piece.text for piece in in_language(text, language))


def is_whole(text: str, language: str) -> bool:
    """Whether nothing of a sentence stays in English."""
    return not any(piece.is_english for piece in in_language(text, language))


def _pieces(text: str, language: str) -> Iterator[Piece]:
    template = text.template if isinstance(text, Said) else text
    values: Mapping[str, object] = text.values if isinstance(text, Said) else {}
    if template == _TERM and isinstance(text, Said):
        yield Piece(Words(language)(str(values["word"])), False)
    elif template in _JOINS and isinstance(text, Said):
        yield from _listed(values["parts"], language, _JOINS[template][1])
    elif template in MESSAGES:
        yield from _filled(MESSAGES[template], values, language)
    else:
        yield Piece(str(text), True)


def _filled(template: str, values: Mapping[str, object], language: str) -> Iterator[Piece]:
    for literal, name, spec, _ in Formatter().parse(template):
        if literal:
            yield Piece(literal, False)
        if name is not None:
            yield from _value(values[name], spec or "", language)


def _value(value: object, spec: str, language: str) -> Iterator[Piece]:
    if isinstance(value, list | tuple):
        yield from _listed(value, language, "、")
    elif isinstance(value, Said) or (isinstance(value, str) and (value in MESSAGES or _PROSE.search(value))):
        yield from _pieces(value, language)
    else:
        yield Piece(format(value, spec), False)


def _listed(values: object, language: str, between: str) -> Iterator[Piece]:
    assert isinstance(values, list | tuple)
    for place, one in enumerate(values):
        if place:
            yield Piece(between, False)
        yield from _value(one, "", language)


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours of one language as one piece."""
    last: Piece | None = None
    for piece in pieces:
        if last is not None and last.is_english == piece.is_english:
            last = Piece(last.text + piece.text, piece.is_english)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last
