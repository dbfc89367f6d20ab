"""A tokenizer in one form, whatever file it came from: tokens as bytes with ids, and the order they were learned in.

A blank before a word is a blank byte, whether the file wrote it `▁`, `Ġ`, or said by the absence of `##`. Special and
added tokens are kept apart from what training found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Algorithm = Literal["bpe", "wordpiece", "unigram", "trie"]
# What a token's smallest unit is: bytes (byte-level BPE), characters (SentencePiece), characters of a word (WordPiece).
Surface = Literal["bytes", "characters", "words"]
Script = Literal["en", "mixed", "zh"]

META = "▁"
_HAN = re.compile(rb"[\xe4-\xe9]")  # the first byte of nearly every Chinese character, whole or cut
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """`ids`: ordinary tokens -> id, the alphabet and byte pieces (`<0x41>`, verbatim) among them.

    `learned`: tokens of more than one unit in the order in which training found them: of merges for BPE, of scores for
    Unigram and SentencePiece, of ids else. `special`: control tokens, `added`: ordinary tokens put in by hand;
    `knows_special` is False where the format cannot say (tiktoken). `merges`: where the file lists them. `scores`: log
    probabilities of Unigram.
    """

    algorithm: Algorithm
    surface: Surface
    ids: Mapping[bytes, int]
    learned: tuple[bytes, ...]
    special: Mapping[str, int] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)
    merges: tuple[tuple[bytes, bytes], ...] = ()
    scores: Mapping[bytes, float] = field(default_factory=dict)
    knows_special: bool = True
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids) + len(self.special) + len(self.added)

    @cached_property
    def place(self) -> dict[bytes, int]:
        """Learned token -> its place in the order of learning."""
        return {token: place for place, token in enumerate(self.learned)}

    @cached_property
    def alphabet(self) -> frozenset[bytes]:
        """Ordinary tokens that nobody learned: bytes or characters."""
        return frozenset(self.ids.keys() - self.place.keys())

    @cached_property
    def folds_case(self) -> bool:
        """Whether text is lowered before it is cut: hardly an ordinary token has an upper-case Latin letter."""
        upper = sum(re.search(rb"[A-Z]", token) is not None for token in self.ids if not _verbatim(token))
        return upper * 1000 < len(self.ids)

    @cached_property
    def script(self) -> Script:
        """Whether learned tokens hold Chinese: `zh` nine tenths of them, `en` hardly any, `mixed` between."""
        han = sum(_HAN.search(token) is not None for token in self.learned) / max(1, len(self.learned))
        return "zh" if han >= 0.9 else "en" if han <= 0.1 else "mixed"

    @cached_property
    def body_digest(self) -> str:
        """SHA-256 of what training gave: algorithm, ordinary tokens with ids, order, scores (to three decimals)."""
        body = [
            self.algorithm,
            sorted((index, token.hex()) for token, index in self.ids.items()),
            [token.hex() for token in self.learned],
            sorted((token.hex(), round(score, 3)) for token, score in self.scores.items()),
        ]
        return _digest(body)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: the body with special and added tokens. Neither file nor key order matters."""
        return _digest([self.body_digest, sorted(self.special.items()), sorted(self.added.items())])

    @cached_property
    def learned_digest(self) -> str:
        """SHA-256 of the learned tokens in their order, whatever their ids are."""
        return _digest([self.algorithm, [token.hex() for token in self.learned]])


def units(token: bytes, surface: Surface) -> int:
    """How many units a token has; byte pieces and `[bracketed]` words count as one, a word's first blank as none."""
    if surface == "bytes":
        return len(token)
    if _verbatim(token):
        return 1
    text = token.decode("utf-8", "replace")
    if surface == "words":
        text = text.removeprefix(" ")
    return len(text)


def in_order(tokens: Iterable[bytes], surface: Surface) -> tuple[bytes, ...]:
    """The tokens of more than one unit, in the order given, each once."""
    return tuple(dict.fromkeys(token for token in tokens if units(token, surface) > 1))


def byte_level(token: str) -> bytes:
    """The bytes that GPT-2's printable alphabet writes as `token`; characters outside it stand for themselves."""
    try:
        return bytes(_TO_BYTE[character] for character in token)
    except KeyError:
        return token.encode("utf-8", "surrogatepass")


def with_blanks(token: str) -> bytes:
    """A SentencePiece token: `▁` is a blank, byte pieces stay as they are written."""
    return token.replace(META, " ").encode("utf-8", "surrogatepass")


def word_piece(token: str) -> bytes:
    """A WordPiece token: a word's beginning gets the blank before it, `##` goes; `[bracketed]` ones stay."""
    if token.startswith("##") and len(token) > 2:
        return token[2:].encode("utf-8", "surrogatepass")
    if len(token) > 2 and token.startswith("[") and token.endswith("]"):
        return token.encode("utf-8", "surrogatepass")
    return b" " + token.encode("utf-8", "surrogatepass")


def _verbatim(token: bytes) -> bool:
    text = token.decode("utf-8", "replace")
    return bool(BYTE_PIECE.fullmatch(text)) or (len(text) > 2 and text[0] == "[" and text[-1] == "]")


def _printable_bytes() -> dict[str, int]:
    """GPT-2's alphabet (Radford et al. 2019): printable bytes as themselves, the others from U+0100 on, in order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + index): byte for index, byte in enumerate(other)}


_TO_BYTE = _printable_bytes()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode("utf-8", "surrogatepass")).hexdigest()
