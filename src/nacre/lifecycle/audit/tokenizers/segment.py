"""Where a vocabulary cuts a text, by the vocabulary alone: words are split in one way for every tokenizer.

The files' own word splitting is left out, so that a GGUF header, a tiktoken file and a tokenizer.json are comparable.
"""

from __future__ import annotations

import itertools
import math
import re
from functools import cache
from importlib.resources import files

from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary

# A blank belongs to the word after it; Chinese stays in runs, digits by three, symbols in runs.
_WORDS = re.compile(r" ?[㐀-鿿]+| ?[^\W\d_㐀-鿿]+| ?\d{1,3}| ?[^\w\s]+|_+|\s")
_ABSENT = -20.0  # log probability of a character that Unigram lacks


@cache
def probe_text() -> str:
    """The text that segmentations are compared on: English, Chinese, code, digits, emoji."""
    return files(__package__).joinpath("probe.txt").read_text(encoding="utf-8")


def boundaries(vocabulary: Vocabulary, text: str) -> set[int]:
    """Byte offsets at which a token begins, over the words of `text`; those at which a word begins are left out."""
    text = text.lower() if vocabulary.folds_case else text
    cut = {"unigram": _viterbi, "bpe": _by_rank}.get(vocabulary.algorithm, _longest_first)
    found, at = set[int](), 0
    position = 0
    for match in _WORDS.finditer(text):
        at += len(text[position : match.start()].encode())
        word, position = match.group(), match.end()
        begin = at
        for piece in cut(vocabulary, word)[:-1]:
            begin += len(piece)
            found.add(begin)
        at += len(word.encode())
    return found


def agreement(one: Vocabulary, other: Vocabulary) -> float:
    """Share of the cuts inside words that both make, among those that either makes, on the probe text (Jaccard)."""
    a, b = boundaries(one, probe_text()), boundaries(other, probe_text())
    return len(a & b) / len(a | b) if a | b else 1.0


def _by_rank(vocabulary: Vocabulary, word: str) -> list[bytes]:
    """BPE: the neighbours whose union was learned first are joined first (Sennrich et al. 2016)."""
    if vocabulary.surface == "bytes":
        parts = [bytes([byte]) for byte in word.encode()]
    else:
        text = word if word.startswith(" ") or not _blanks_lead(vocabulary) else f" {word}"
        parts = [character.encode() for character in text]
    place = vocabulary.place
    while len(parts) > 1:
        ranks = [place.get(left + right, math.inf) for left, right in itertools.pairwise(parts)]
        best = min(ranks)
        if best == math.inf:
            break
        at = ranks.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return _without_blank(parts, word)


def _viterbi(vocabulary: Vocabulary, word: str) -> list[bytes]:
    """Unigram: the most probable cut (Kudo 2018, section 3.2)."""
    text = word if word.startswith(" ") or not _blanks_lead(vocabulary) else f" {word}"
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(text) + 1):
        options = [(best[end - 1][0] + _ABSENT, end - 1)]
        for begin in range(max(0, end - 24), end):
            score = vocabulary.scores.get(text[begin:end].encode())
            if score is not None:
                options.append((best[begin][0] + score, begin))
        best.append(max(options))
    parts, end = [], len(text)
    while end:
        begin = best[end][1]
        parts.append(text[begin:end].encode())
        end = begin
    return _without_blank(parts[::-1], word)


def _longest_first(vocabulary: Vocabulary, word: str) -> list[bytes]:
    """WordPiece and tries: the longest token that fits, from the left. WordPiece takes Chinese by characters."""
    words = vocabulary.surface == "words"
    text = f" {word.strip()}" if words else word
    parts, begin = [], 0
    while begin < len(text):
        han = words and "㐀" <= text[max(begin, 1) : max(begin, 1) + 1] <= "鿿"
        least = begin + (2 if words and begin == 0 else 1)
        longest = least if han else min(len(text), begin + 32)
        end = next((e for e in range(longest, least, -1) if text[begin:e].encode() in vocabulary.ids), least)
        parts.append(text[begin:end].encode())
        begin = end
    return _without_blank(parts, word)


def _blanks_lead(vocabulary: Vocabulary) -> bool:
    """Whether words begin with a blank in this vocabulary, so that one is put before the first."""
    return sum(token.startswith(b" ") for token in vocabulary.learned[:200]) > 20


def _without_blank(parts: list[bytes], word: str) -> list[bytes]:
    """The parts of the word itself: a blank that was put before it is no part of it."""
    surplus = sum(map(len, parts)) - len(word.encode())
    while surplus > 0 and parts:
        if len(parts[0]) <= surplus:
            surplus -= len(parts[0])
            parts = parts[1:]
        else:
            parts = [parts[0][surplus:], *parts[1:]]
            surplus = 0
    return parts
