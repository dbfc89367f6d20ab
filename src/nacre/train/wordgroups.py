"""Tokens of a text together with the words they belong to: what whole-word masking masks as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nacre.data.words import word_ids
from nacre.train.arrays import Int32s

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class WordTokens:
    """`ids` (n,); `groups` (n,): tokens of one word share a number, ascending from 0; special tokens have -1."""

    ids: Int32s
    groups: Int32s

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def maskable(self) -> bool:
        """Whether there is a token that may be masked."""
        return bool((self.groups >= 0).any())

    def part(self, start: int, stop: int) -> WordTokens:
        """Tokens [start, stop), their words numbered from 0 again."""
        groups = self.groups[start:stop]
        found, dense = np.unique(groups, return_inverse=True)
        dense -= int((found < 0).any())
        return WordTokens(self.ids[start:stop], dense.astype(np.int32))


def grouped(tokenizer: Tokenizer, text: str, whole_words: bool) -> WordTokens:
    """The tokens of `text`, without special ones around; each is its own word unless `whole_words`.

    Words are those of `nacre.data.words`, Chinese ones by segmenter. What the tokenizer does not know ([UNK]) counts
    as special: there is nothing to learn from predicting it.
    """
    spans = tokenizer.spans(text)
    ids = np.array(spans.ids, dtype=np.int32)
    groups = np.arange(len(ids), dtype=np.int32)
    if whole_words and len(ids):
        words = word_ids(text, spans.offsets)
        begins = [word is None or word != before for before, word in pairwise([None, *words])]
        groups = (np.cumsum(begins) - 1).astype(np.int32)
    special = np.isin(ids, list(tokenizer.special_ids))
    return WordTokens(ids, np.where(special, np.int32(-1), groups))


def joined(parts: Sequence[WordTokens]) -> WordTokens:
    """The parts one after the other, no word shared between them."""
    lengths = [len(part) for part in parts]
    groups = np.concatenate([part.groups for part in parts])
    # Numbers need not be dense, only below the number of tokens.
    shift = np.repeat(np.cumsum(lengths) - lengths, lengths).astype(np.int32)
    return WordTokens(np.concatenate([part.ids for part in parts]), np.where(groups < 0, groups, groups + shift))


def cut_evenly(tokens: WordTokens, room: int) -> list[WordTokens]:
    """Parts of nearly equal length, none longer than `room`, cut between words where that does not halve a part."""
    parts: list[WordTokens] = []
    start = 0
    while start < len(tokens):
        stop = _cut(tokens.groups, start, room)
        parts.append(tokens.part(start, stop))
        start = stop
    return parts


def _cut(groups: Int32s, start: int, room: int) -> int:
    left = len(groups) - start
    even = start + -(-left // -(-left // room))
    for cut in range(even, (start + even) // 2, -1):
        if cut == len(groups) or groups[cut] < 0 or groups[cut] != groups[cut - 1]:
            return cut
    return even
