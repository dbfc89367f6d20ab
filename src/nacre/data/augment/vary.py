"""Texts with words dropped, exchanged and replaced, and characters mistyped.

Deletion and swaps are those of "easy data augmentation" (Wei and Zou 2019, section 2), at a rate per word. Mistyped
characters follow how each script is typed: letters by the keyboard, Chinese by sound (a character of the same
toneless pinyin). Numbers, addresses and symbols stay as they are: they mean something else when they change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from nacre.data.words import HAN, word_spans
from nacre.errors import ConfigError
from nacre.lazy import require

Draws = np.random.Generator
_HAN = re.compile(f"[{HAN}]")
_KEPT = re.compile(r"[!-~]*(?:://|@|\d)[!-~]*")  # addresses and whatever holds a digit; Chinese has no spaces
_WORDLIKE = re.compile(r"[^\W\d_]")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LEAST_LETTERS = 4  # shorter words do not survive a slip of the finger


@dataclass(frozen=True)
class Rates:
    """Chance of each word to be deleted, exchanged with the next, or replaced by a `synonym`; and of each Chinese
    character, or each letter word, to be mistyped."""

    delete: float = 0.0
    swap: float = 0.0
    synonyms: float = 0.0
    characters: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            if not 0 <= getattr(self, one.name) < 1:
                raise ConfigError(
                    f"{one.name} is {getattr(self, one.name)}",
                    remedy="give a share from 0 (off) up to, not including, 1",
                )
        if not any(getattr(self, one.name) for one in fields(self)):
            raise ConfigError("every rate is 0: nothing would change", remedy="give one a share, such as delete: 0.1")


@dataclass(frozen=True)
class Sources:
    """What replacements are taken from: `synonyms` by word, `homophones` by character."""

    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    homophones: Mapping[str, str] = field(default_factory=dict)


def vary(text: str, rates: Rates, sources: Sources, draws: Draws, tally: Counter[str] | None = None) -> str:
    """Another version of a text; what was done is counted in `tally`. A text never becomes empty."""
    tally = Counter() if tally is None else tally
    kept = [match.span() for match in _KEPT.finditer(text)]
    spans = [(start, end) for start, end in word_spans(text) if _WORDLIKE.search(text, start, end)]
    free = [span for span in spans if not any(start <= span[0] < end for start, end in kept)]
    words = {span: _replaced(text[slice(*span)], rates, sources, draws, tally) for span in free}
    _swap(words, free, text, rates.swap, draws, tally)
    if rates.delete:
        gone = [span for span in free if draws.random() < rates.delete]
        if len(gone) == len(spans):
            gone = gone[1:]
        tally["words deleted"] += len(gone)
        words |= dict.fromkeys(gone, "")
    return _joined(text, words) if any(words.values()) or len(words) < len(spans) else text


def vary_tokens(
    tokens: Sequence[str], tags: Sequence[str], rates: Rates, sources: Sources, draws: Draws, tally: Counter[str]
) -> tuple[list[str], list[str]]:
    """The same of tagged tokens. Only tokens outside every entity (`O`) change, so that the tags stay true."""
    if rates.synonyms:
        raise ConfigError("tokens have no synonyms: they may be parts of words", remedy="leave synonyms out")
    found = list(zip(tokens, tags, strict=True))
    at = 0
    while at + 1 < len(found):
        if found[at][1] == found[at + 1][1] == "O" and draws.random() < rates.swap:
            found[at], found[at + 1] = found[at + 1], found[at]
            tally["words swapped"] += 1
            at += 1
        at += 1
    kept = [one for one in found if not (one[1] == "O" and _is_plain(one[0]) and draws.random() < rates.delete)]
    tally["words deleted"] += len(found) - len(kept) if kept else 0
    changed = [
        (_mistyped(token, rates.characters, sources, draws, tally) if tag == "O" and _is_plain(token) else token, tag)
        for token, tag in kept or found
    ]
    return [token for token, _ in changed], [tag for _, tag in changed]


def homophones(texts: Iterable[str]) -> dict[str, str]:
    """Chinese characters of `texts` to the others with the same toneless pinyin, the most frequent first.

    Only characters that the texts themselves use are offered: a slip gives a common character. Raises
    MissingDependency without the package `pypinyin`.
    """
    pinyin: Callable[..., list[str]] = require("pypinyin").lazy_pinyin
    counted = Counter(character for text in texts for character in _HAN.findall(text))
    by_sound: dict[str, list[str]] = {}
    for character, _ in counted.most_common():
        by_sound.setdefault(pinyin(character)[0], []).append(character)
    together = {one: group for group in by_sound.values() for one in group if len(group) > 1}
    return {one: "".join(other for other in group if other != one) for one, group in together.items()}


def _replaced(word: str, rates: Rates, sources: Sources, draws: Draws, tally: Counter[str]) -> str:
    near = sources.synonyms.get(word.lower()) if rates.synonyms else None
    if near and draws.random() < rates.synonyms:
        tally["words replaced"] += 1
        other = str(near[int(draws.integers(len(near)))])
        return other[:1].upper() + other[1:] if word[:1].isupper() else other
    return _mistyped(word, rates.characters, sources, draws, tally) if rates.characters else word


def _swap(
    words: dict[tuple[int, int], str], free: Sequence[tuple[int, int]], text: str, rate: float, draws: Draws,
    tally: Counter[str],
) -> None:  # fmt: skip
    """Exchanges neighbours that nothing but white space stands between."""
    at = 0
    while rate and at + 1 < len(free):
        one, two = free[at], free[at + 1]
        if not text[one[1] : two[0]].strip() and draws.random() < rate:
            words[one], words[two] = words[two], words[one]
            tally["words swapped"] += 1
            at += 1
        at += 1


def _mistyped(word: str, rate: float, sources: Sources, draws: Draws, tally: Counter[str]) -> str:
    if not _HAN.search(word):
        return _slipped(word, rate, draws, tally)
    typed = []
    for character in word:
        others = sources.homophones.get(character, "")
        if others and draws.random() < rate:
            tally["characters mistyped"] += 1
            others = others[: max(1, len(others) // 2)]  # the commoner half
            character = others[int(draws.integers(len(others)))]
        typed.append(character)
    return "".join(typed)


def _slipped(word: str, rate: float, draws: Draws, tally: Counter[str]) -> str:
    """A word of letters with one slip: two letters exchanged, one left out, doubled, or a neighbouring key."""
    if len(word) < _LEAST_LETTERS or draws.random() >= rate:
        return word
    tally["characters mistyped"] += 1
    at = int(draws.integers(1, len(word) - 1))  # the first letter is seldom wrong
    keys = neighbours_of(word[at])
    kind = int(draws.integers(4 if keys else 3))
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    return (
        word[:at] + word[at] + word[at:]
        if kind == 2
        else word[:at] + keys[int(draws.integers(len(keys)))] + word[at + 1 :]
    )


def neighbours_of(letter: str) -> str:
    """The letters left and right of one on a QWERTY keyboard; none for other scripts."""
    for row in _ROWS:
        at = row.find(letter.lower())
        if letter and at >= 0:
            near = row[max(0, at - 1) : at] + row[at + 1 : at + 2]
            return near.upper() if letter.isupper() else near
    return ""


def _is_plain(token: str) -> bool:
    return bool(_WORDLIKE.search(token)) and not _KEPT.fullmatch(token)


def _joined(text: str, words: Mapping[tuple[int, int], str]) -> str:
    """The text with its words replaced; a deleted word takes the white space before it along."""
    pieces, last = [], 0
    for (start, end), word in sorted(words.items()):
        between = text[last:start]
        pieces.append(between if word or not between.endswith(" ") else between[:-1])
        pieces.append(word)
        last = end
    return "".join([*pieces, text[last:]]).strip() or text
