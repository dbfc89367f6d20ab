"""Other segmentations of the same text: subword regularisation for any trained vocabulary.

MaxMatch-Dropout (Hiraoka 2022, "MaxMatch-Dropout: Subword Regularization for WordPiece"): segment a word by longest
match and refuse each match with probability p, down to single characters. It needs the vocabulary only, so it serves
WordPiece, BPE and Unigram alike, as BPE-Dropout (Provilkov et al. 2020) does for BPE. Words are split anew, never
joined; every segmentation spells the same text. Draws come from the caller's generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer

CONTINUES = "##"  # WordPiece's mark of a piece that goes on with a word
BEGINS = ("Ġ", "▁")  # a blank before a word, byte-level BPE's and SentencePiece's


class Resegmenter:
    """Splits the words of id sequences anew."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._marked = tokenizer.kind == "wordpiece"
        special = set(tokenizer.special_ids)
        vocabulary = tokenizer.raw.get_vocab()
        self._spelling = {at: piece for piece, at in vocabulary.items() if at not in special}
        self._inner: dict[str, int] = {}
        self._first: dict[str, int] = {}
        for at, piece in self._spelling.items():
            if self._marked and piece.startswith(CONTINUES):
                self._inner[piece.removeprefix(CONTINUES)] = at
            else:
                self._first[piece] = at
        if not self._marked:
            self._inner = self._first
        self._longest = max(map(len, self._first), default=1)

    def sample(self, ids: Sequence[int], refuse: float, rng: np.random.Generator) -> list[int]:
        """`ids` with each word segmented anew; `refuse` is the probability that a match longer than one character is
        passed over. A word that single characters cannot spell stays as it is."""
        found: list[int] = []
        for word in self._words(ids):
            found += self._split(word, refuse, rng) if len(self._surface(word)) > 1 else word
        return found

    def _words(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """Runs of ids that spell one word; an id that spells nothing (special, unknown) is a run of its own."""
        word: list[int] = []
        for at in ids:
            piece = self._spelling.get(at)
            if word and (piece is None or self._begins(piece) or word[-1] not in self._spelling):
                yield word
                word = []
            word.append(at)
        if word:
            yield word

    def _begins(self, piece: str) -> bool:
        return not piece.startswith(CONTINUES) if self._marked else piece.startswith(BEGINS)

    def _surface(self, word: Sequence[int]) -> str:
        pieces = [self._spelling.get(at, "") for at in word]
        return "".join(piece.removeprefix(CONTINUES) for piece in pieces) if self._marked else "".join(pieces)

    def _split(self, word: list[int], refuse: float, rng: np.random.Generator) -> list[int]:
        text, at, found = self._surface(word), 0, list[int]()
        while at < len(text):
            known = self._inner if at else self._first
            chosen: tuple[int, int] | None = None
            for end in range(min(len(text), at + self._longest), at, -1):
                piece = known.get(text[at:end])
                if piece is not None:
                    chosen = (end, piece)
                    if end == at + 1 or rng.random() >= refuse:
                        break
            if chosen is None:
                return word
            at = chosen[0]
            found.append(chosen[1])
        return found
