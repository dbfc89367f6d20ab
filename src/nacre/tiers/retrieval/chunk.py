"""Documents into passages: by structure first (headings, paragraphs, lists, sentences), within a budget of size.

Law (tested): every chunk is `text[start:end]` of its document, is within the budget, tears no character apart, and
all that is no white space lies in some chunk. Chunks never cross a heading unless what stands before it is short;
code fences and tables stay whole where they fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from nacre.errors import ConfigError
from nacre.tiers.retrieval.document import Heading, Part
from nacre.tiers.retrieval.graphemes import boundary
from nacre.tiers.retrieval.readers.markdown import fences, in_force

Unit = Literal["auto", "tokens", "words", "characters"]
Measure = Callable[[str], int]


@dataclass(frozen=True)
class ChunkConfig:
    """`size` and `overlap` are counted in `unit`: tokens of the embedding engine, words (of which a Chinese character
    is one), or characters; `auto` takes tokens where the engine's tokenizer is at hand, else words.

    `overlap`: how much of a chunk's end the next one repeats, in whole sentences. `short`: what stands before a heading
    is kept in one chunk with what follows when it is at most this share of the size.
    """

    INSTEAD: ClassVar = (("size", "overlap"),)  # of a size that is given no other size's overlap is kept

    size: int = 220
    overlap: int = 30
    unit: Unit = "auto"
    short: float = 0.15

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ConfigError(f"chunks of {self.size} are too small to be found", remedy="give a size of 8 or more")
        if not 0 <= self.overlap <= self.size // 2:
            raise ConfigError(
                f"an overlap of {self.overlap} for chunks of {self.size}", remedy="give at most half of the size"
            )


@dataclass(frozen=True)
class Chunk:
    """A passage: characters `start` to `end` of its document, the headings above it, its page where there are pages."""

    source: str
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True)
class _Atom:
    """What is never split further. `block`: the size of its whole block where it is the first of it, else its own."""

    start: int
    end: int
    size: int
    block: int
    opens_section: bool = False


_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]|[^\W_\u2e80-\u9fff\uac00-\ud7af]+")
_HEADING_LINE = re.compile(r" {0,3}#{1,6}[ \t]+\S")
_ITEM_LINE = re.compile(r"\s*(?:[-*+•·]|\d{1,3}[.)、]|[（(]?[一二三四五六七八九十]{1,3}[)）、])\s*\S")
_TABLE_LINE = re.compile(r"\s*\|.*\||[^|\n]+ \| [^|\n]+")
# A sentence ends after its mark and the quotation marks behind it; a full stop only before white space.
_SENTENCE_END = re.compile(r"(?:[。！？!?…；]+|\.(?=[\"'”’)\]]*\s))[\"'”’」』）)\]]*\s*|\n")
_CLAUSE_END = re.compile(r"[，、,;:：]\s*|\s+")


def n_words(text: str) -> int:
    """Words of a text; a Chinese, Japanese or Korean character counts as one, so that languages have equal room."""
    return sum(1 for _ in _WORD.finditer(text))


def chunks_of(part: Part, config: ChunkConfig, measure: Measure = n_words) -> Iterator[Chunk]:
    """The chunks of a part, in order."""
    atoms = _atoms(part, config.size, lru_cache(maxsize=4096)(measure))
    for first, end in _packed(atoms, config):
        begin, stop = _trimmed(part.text, atoms[first].start, atoms[end - 1].end)
        if begin < stop:
            yield _chunk(part, begin, stop)


def _chunk(part: Part, begin: int, stop: int) -> Chunk:
    start, end = part.start + begin, part.start + stop
    above = in_force(tuple(one for one in part.headings if one.start <= start))
    titles = tuple(one.title for one in above)
    return Chunk(part.source, start, end, part.text[begin:stop], titles, part.page)


def _packed(atoms: Sequence[_Atom], config: ChunkConfig) -> Iterator[tuple[int, int]]:
    """(first, end) of the atoms of each chunk, filled from the front."""
    first = fresh = 0  # the chunk's begin; the first atom that no chunk has yet
    while fresh < len(atoms):
        end, size = fresh, sum(one.size for one in atoms[first:fresh])
        while end < len(atoms):
            atom = atoms[end]
            if end > fresh and atom.opens_section and size > config.short * config.size:
                break
            # A block that fits a chunk whole is not begun where it does not fit, unless only a heading stands there.
            need = atom.block if config.short * config.size < size and atom.block <= config.size else atom.size
            if end > fresh and size + need > config.size:
                break
            size += atom.size
            end += 1
        yield first, end
        first = end if end < len(atoms) and atoms[end].opens_section else _back(atoms, first, end, config)
        fresh = end


def _back(atoms: Sequence[_Atom], first: int, end: int, config: ChunkConfig) -> int:
    """Where the next chunk begins: as many atoms back as the overlap and the room for the next atom allow."""
    if end >= len(atoms):
        return end
    room = min(config.overlap, config.size - min(atoms[end].block, config.size))
    begin, size = end, 0
    while begin > first + 1 and size + atoms[begin - 1].size <= room:
        begin -= 1
        size += atoms[begin].size
    return begin


def _atoms(part: Part, limit: int, measure: Measure) -> list[_Atom]:
    sections = {one.start - part.start for one in part.headings}
    found: list[_Atom] = []
    for begin, end, whole in _blocks(part.text, sections):
        size = measure(part.text[begin:end])
        opens = begin in sections
        if size <= limit and whole:
            found.append(_Atom(begin, end, size, size, opens))
            continue
        cuts = _split(part.text, begin, end, limit, measure)
        for number, (left, right) in enumerate(cuts):
            own = measure(part.text[left:right])
            found.append(_Atom(left, right, own, size if number == 0 else own, opens and number == 0))
    return found


def _blocks(text: str, sections: set[int]) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, keep whole) of headings, code fences, tables, list items and paragraphs, covering the text."""
    fenced = dict(fences(text))
    at = begin = 0
    kind = ""
    while at < len(text):
        if at in fenced:
            if begin < at:
                yield begin, at, kind == "table"
            yield at, fenced[at], True
            at = begin = fenced[at]
            kind = ""
            continue
        end = text.find("\n", at) + 1 or len(text)
        now = _kind(text[at:end], at in sections)
        turns = now in ("heading", "item") or kind in ("blank", "heading") or (now, kind) in _TURNS
        if begin < at and turns and now != "blank":
            yield begin, at, kind == "table"
            begin = at
        kind = now if now != "blank" or kind in ("", "blank", "text", "item", "table") else kind
        at = end
    if begin < len(text):
        yield begin, len(text), kind == "table"


# A table and running text are different blocks even without a blank line between them.
_TURNS = frozenset({("table", "text"), ("text", "table"), ("table", "item")})


def _kind(line: str, is_section: bool) -> str:
    if not line.strip():
        return "blank"
    if is_section or _HEADING_LINE.match(line):
        return "heading"
    if _TABLE_LINE.match(line):
        return "table"
    return "item" if _ITEM_LINE.match(line) else "text"


def _split(text: str, begin: int, end: int, limit: int, measure: Measure) -> list[tuple[int, int]]:
    """A block as sentences, sentences that are too long as clauses, and those by size; covering begin to end."""
    found: list[tuple[int, int]] = []
    for left, right in _between(_SENTENCE_END, text, begin, end):
        if measure(text[left:right]) <= limit:
            found.append((left, right))
            continue
        clauses = _between(_CLAUSE_END, text, left, right)
        for clause_left, clause_right in _merged(clauses, text, limit, measure):
            found += _by_size(text, clause_left, clause_right, limit, measure)
    return found


def _between(mark: re.Pattern[str], text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    at = begin
    for found in mark.finditer(text, begin, end):
        if found.end() > at and boundary(text, found.end()) == found.end():
            yield at, found.end()
            at = found.end()
    if at < end:
        yield at, end


def _merged(spans: Iterator[tuple[int, int]], text: str, limit: int, measure: Measure) -> Iterator[tuple[int, int]]:
    """Neighbouring spans joined as long as they fit."""
    left = right = -1
    for begin, end in spans:
        if left >= 0 and measure(text[left:end]) > limit:
            yield left, right
            left = begin
        elif left < 0:
            left = begin
        right = end
    if left >= 0:
        yield left, right


def _by_size(text: str, begin: int, end: int, limit: int, measure: Measure) -> Iterator[tuple[int, int]]:
    """Pieces of something without any place to cut, such as an encoded file."""
    at = begin
    while at < end:
        step = min(end - at, 4 * limit)
        while step > 1 and measure(text[at : at + step]) > limit:
            step //= 2
        stop = at + step if at + step >= end else max(boundary(text, at + step), at)
        if stop == at:  # one character of many marks: it is kept whole, however long
            stop = at + step
            while stop < end and boundary(text, stop) != stop:
                stop += 1
        yield at, stop
        at = stop


def _trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    while begin < end and text[begin].isspace():
        begin += 1
    while end > begin and text[end - 1].isspace():
        end -= 1
    return begin, end


def heading_path(title: str, headings: Sequence[str] | Sequence[Heading]) -> str:
    """Title and headings as one line, without saying the title twice."""
    names = [one if isinstance(one, str) else one.title for one in headings]
    return " / ".join([title, *names] if title and title not in names[:1] else names)
