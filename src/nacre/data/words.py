"""Words of a text, for masking them whole: Chinese by segmenter, other scripts by their letters.

Numbers, punctuation marks and symbols are words of their own; white space is none.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import cache

from nacre.lazy import require

Span = tuple[int, int]

# Ideographs of all planes, with the iteration mark and the zero that stand in words (人们々, 二〇二六).
HAN = "々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(
    rf"(?P<han>[{HAN}]+)"
    r"|(?P<number>\d+(?:[.,:]\d+)*)"
    rf"|(?P<letters>(?:(?![{HAN}\d_])\w)+(?:['’](?:(?![{HAN}\d_])\w)+)*)"
    r"|(?P<symbol>\S)"
)
_JOINER = "\u200d"  # between the parts of one emoji
_SELECTOR = re.compile("[\ufe00-\ufe0f]")  # says how the symbol before it is drawn


def word_spans(text: str) -> list[Span]:
    """Characters [start, end) of each word, in order, without overlap; every character but white space is in one.

    Raises MissingDependency for text with Chinese characters where the segmenter is not installed.
    """
    spans: list[Span] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        if match.lastgroup == "han":
            spans += _segment(match.group(), start)
        elif spans and spans[-1][1] == start and _attaches(text, start, match.lastgroup):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def token_spans(text: str) -> list[Span]:
    """What taggers read, and tagged data sets hold: words, and Chinese (Japanese, Korean) character by character."""
    spans: list[Span] = []
    for start, end in word_spans(text):
        wide = any("\u2e80" <= character <= "\uffef" or character >= "\U00020000" for character in text[start:end])
        spans += [(at, at + 1) for at in range(start, end)] if wide else [(start, end)]
    return spans


def word_ids(text: str, offsets: Sequence[Span]) -> list[int | None]:
    """For each token (by its characters) the number of its word, counted from 0; None for a token of white space.

    Words that share a token get one number, so that masking all tokens of a number masks whole words.
    """
    words = word_spans(text)
    starts, ends = [start for start, _ in words], [end for _, end in words]
    touched = [(bisect_right(ends, start), bisect_left(starts, end)) for start, end in offsets]
    joined = [False] * len(words)  # joined[i]: word i continues the group of word i - 1
    for first, stop in touched:
        for word in range(first + 1, stop):
            joined[word] = True
    group, groups = -1, []
    for continues in joined:
        group += not continues
        groups.append(group)
    return [groups[first] if first < stop else None for first, stop in touched]


def _attaches(text: str, at: int, group: str | None) -> bool:
    """Whether a character continues the word before it: a mark, a letter after one, a part of a joined emoji."""
    char, before = text[at], text[at - 1]
    if _is_mark(char) or char == _JOINER or before == _JOINER:
        return True
    return group == "letters" and _is_mark(before) and not _SELECTOR.match(before)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def _segment(run: str, start: int) -> list[Span]:
    spans: list[Span] = []
    for word in _segmenter()(run):
        spans.append((start, start + len(word)))
        start += len(word)
    return spans


@cache
def _segmenter() -> Callable[[str], list[str]]:
    cut: Callable[[str], list[str]] = require("rjieba").cut
    return cut
