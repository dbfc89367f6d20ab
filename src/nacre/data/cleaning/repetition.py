"""Repetition and quality filters for documents: Rae et al. 2021 (Gopher), appendix A1.1, tables A1 and its text.

Units are words in English and characters in Chinese (`nacre.data.ngrams`). A Chinese word is about two characters, so
in Chinese text the paper's n words become 2n characters; the thresholds are the paper's. Short texts repeat by
necessity: below `MIN_WORDS` (the paper's shortest document), and for lines below `MIN_LINES`, nothing is judged.
"""

from __future__ import annotations

import re

import numpy as np

from nacre.data.ngrams import Units, rolling, units_of

MIN_WORDS = 50
MIN_LINES = 4
CHARACTERS_PER_WORD = 2
# Largest share of characters in the most frequent n-gram, and in all repeated n-grams (table A1), by n in words.
TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
REPEATED_LINES, REPEATED_LINE_CHARACTERS = 0.30, 0.20
REPEATED_PARAGRAPHS, REPEATED_PARAGRAPH_CHARACTERS = 0.30, 0.20

_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_WORD = re.compile(r"\S+")
_BULLETS = ("-", "*", "•", "‣", "▪", "·")


def repeated_parts(text: str) -> str | None:
    """Reason to drop a text whose lines or paragraphs repeat, by number or by characters; None when it is fine."""
    kinds = (
        ("line", [line.strip() for line in text.split("\n")], REPEATED_LINES, REPEATED_LINE_CHARACTERS),
        ("paragraph", re.split(r"\n\s*\n", text), REPEATED_PARAGRAPHS, REPEATED_PARAGRAPH_CHARACTERS),
    )
    for name, parts, most, most_characters in kinds:
        filled = [part for part in parts if part]
        if len(filled) < MIN_LINES:
            continue
        again = len(filled) - len(set(filled))
        if again / len(filled) > most:
            return f"repeated {name}s: more than {most:.0%} of them"
        extra = sum(map(len, filled)) - sum(map(len, set(filled)))
        if extra / max(1, len(text)) > most_characters:
            return f"repeated {name}s: more than {most_characters:.0%} of the characters"
    return None


def repeated_ngrams(text: str) -> str | None:
    """Reason to drop a text in which one n-gram, or repeated n-grams together, cover too many characters."""
    if len(text) < MIN_WORDS:  # no text has more units than characters
        return None
    units = units_of(text)
    factor = CHARACTERS_PER_WORD if units.mostly_han else 1
    if len(units.ids) < MIN_WORDS * factor:
        return None
    unit = "characters" if units.mostly_han else "words"
    for n, most in TOP_NGRAM.items():
        if _top_share(units, n * factor) > most:
            return f"one {n * factor}-gram of {unit} covers more than {most:.0%} of the characters"
    for n, most in REPEATED_NGRAMS.items():
        if _repeated_share(units, n * factor) > most:
            return f"repeated {n * factor}-grams of {unit} cover more than {most:.0%} of the characters"
    return None


def _top_share(units: Units, n: int) -> float:
    """Characters covered by the occurrences of the most frequent n-gram that occurs at least twice, over all."""
    grams = rolling(units.ids, n)
    if not len(grams):
        return 0.0
    _, first, counts = np.unique(grams, return_index=True, return_counts=True)
    top = counts.max()
    if top < 2:
        return 0.0
    longest = max(int(units.lengths[begin : begin + n].sum()) for begin in first[counts == top])
    return min(1.0, float(top) * longest / units.n_characters)


def _repeated_share(units: Units, n: int) -> float:
    """Characters inside n-grams that occurred before, each character counted once, over all."""
    grams = rolling(units.ids, n)
    if not len(grams):
        return 0.0
    again = np.ones(len(grams), dtype=bool)
    again[np.unique(grams, return_index=True)[1]] = False
    edges = np.zeros(len(units.ids) + 1, dtype=np.int64)
    edges[:-n] += again
    edges[n:] -= again
    covered = np.cumsum(edges[:-1]) > 0
    return float(units.lengths[covered].sum()) / units.n_characters


def quality(text: str) -> str | None:
    """Reason to drop a document that does not read like prose: the quality rules of the same appendix.

    The rules on words (their length, stop words, letters in them) are judged on English only.
    """
    if len(text) < MIN_WORDS:
        return None
    units = units_of(text)
    if len(units.ids) < MIN_WORDS * (CHARACTERS_PER_WORD if units.mostly_han else 1):
        return None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    has_lines = len(lines) >= MIN_LINES
    if has_lines and sum(line.startswith(_BULLETS) for line in lines) > 0.9 * len(lines):
        return "more than 90% of the lines are list items"
    if has_lines and sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        return "more than 30% of the lines end in an ellipsis"
    symbols = text.count("#") + text.count("...") + text.count("…")
    if symbols > 0.1 * len(units.ids):
        return "more than one hash or ellipsis per ten words"
    return None if units.mostly_han else _english_quality(text)


def _english_quality(text: str) -> str | None:
    words = _WORD.findall(text)
    mean = sum(map(len, words)) / max(1, len(words))
    if not 3 <= mean <= 10:
        return "words are shorter than 3 or longer than 10 characters on average"
    if sum(any(map(str.isalpha, word)) for word in words) < 0.8 * len(words):
        return "fewer than 80% of the words have a letter"
    bare = {word.strip(".,;:!?\"'()").lower() for word in words}
    return None if sum(stop in bare for stop in _STOP_WORDS) >= 2 else "fewer than two of the stop words of English"
