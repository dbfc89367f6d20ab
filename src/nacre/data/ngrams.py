"""Texts as sequences of units and their n-grams, as arrays: what repetition, near-duplicates and contamination share.

A unit is one Chinese (or kana) character, or one run of other letters and digits: characters in Chinese, words in
English, both in mixed text. Punctuation and spacing are no units, and case does not matter.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nacre.data.normal import normal

Ids = NDArray[np.uint64]

_RANGES = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_CJK = "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES)
_UNIT = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_WORD = re.compile(f"[^\\W_{_CJK}]")
_IS_CJK = np.zeros(0x110000, dtype=bool)
for _first, _last in _RANGES:
    _IS_CJK[_first : _last + 1] = True
# The id of a word lies above every code point, so that no word is taken for a character.
_ABOVE = 1 << 32
# splitmix64 (Steele et al. 2014): a bijection that spreads every input bit.
_MIX_1, _MIX_2, _GAMMA = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Units:
    """`ids` (U,), equal for equal units; `lengths` (U,) in characters; `n_han`: how many are single characters."""

    ids: Ids
    lengths: NDArray[np.int64]
    n_han: int

    @property
    def n_characters(self) -> int:
        """Characters of all units together, at least 1."""
        return max(1, int(self.lengths.sum()))

    @property
    def mostly_han(self) -> bool:
        return 2 * self.n_han >= len(self.ids) > 0


@lru_cache(maxsize=2)
def units_of(text: str) -> Units:
    """The units of a text in its normal form. Cached for rules that look at one text in turn: read only."""
    text = normal(text)
    if _WORD.search(text) is None:  # only Chinese and punctuation: no loop over characters needed
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids = codes[_IS_CJK[codes]].astype(np.uint64)
        return Units(ids, np.ones(len(ids), dtype=np.int64), len(ids))
    found = _UNIT.findall(text)
    ids = np.fromiter(map(_unit_id, found), dtype=np.uint64, count=len(found))
    lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    return Units(ids, lengths, int((ids < _ABOVE).sum()))


@lru_cache(maxsize=1 << 16)
def _unit_id(unit: str) -> int:
    if len(unit) == 1 and _WORD.match(unit) is None:
        return ord(unit)
    return _ABOVE | zlib.crc32(unit.encode("utf-8", "surrogatepass"))


def mix(values: Ids) -> Ids:
    """Each value hashed to 64 bits that look random; equal values stay equal."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def rolling(ids: Ids, n: int) -> Ids:
    """(U - n + 1,) a 64-bit hash of every n consecutive ids; empty when there are fewer."""
    return next((hashes for _, hashes in rolling_each(ids, (n,))), np.empty(0, dtype=np.uint64))


def rolling_each(ids: Ids, lengths: Collection[int]) -> Iterator[tuple[int, Ids]]:
    """(n, `rolling(ids, n)`) for every n of `lengths` up to U, for the price of the largest."""
    hashes = np.zeros(len(ids), dtype=np.uint64)
    for n in range(1, min(max(lengths, default=0), len(ids)) + 1):
        count = len(ids) - n + 1
        hashes = mix(hashes[:count] + _GAMMA) ^ ids[n - 1 :]
        if n in lengths:
            yield n, mix(hashes + _GAMMA)
