"""Sliding windows over long texts, by hand: the library's overflow windows leave out text (tokenizers#2098)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nacre.errors import ConfigError

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer

Span = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A part of a text.

    ids: with the special tokens around them, at most the declared size. tokens: which tokens of the text [start, end)
    these are. characters: which characters of the text [start, end) the window stands for. offsets: characters
    of each id in the whole text, None for special tokens.
    """

    ids: list[int]
    tokens: Span
    characters: Span
    offsets: list[Span | None]


def token_windows(n_tokens: int, size: int, stride: int) -> list[Span]:
    """Token spans [start, end): each starts `stride` after the one before, none is longer than `size`.

    Law: every token is in a window, all but the last are full, and the last one adds at least one token.
    Two neighbours share `size - stride` tokens. No token gives one empty window. Raises ConfigError.
    """
    if size < 1 or not 1 <= stride <= size:
        raise ConfigError(
            f"windows of {size} tokens with stride {stride} would skip text or stand still",
            remedy="choose 1 <= stride <= size; the stride is how far each window moves on",
        )
    starts = [0]
    while starts[-1] + size < n_tokens:
        starts.append(starts[-1] + stride)
    return [(start, min(start + size, n_tokens)) for start in starts]


def text_windows(tokenizer: Tokenizer, text: str, size: int, stride: int) -> list[Window]:
    """Windows of at most `size` ids, special tokens included; `stride` counts tokens of the text.

    Law: the character spans cover the text from 0 to its end without a gap; white space and characters that the
    normalizer drops belong to the token before them.
    """
    framing = len(tokenizer.frame([]))
    if size <= framing:
        raise ConfigError(
            f"windows of {size} leave no room for text beside {framing} special tokens", remedy="raise the size"
        )
    ids, offsets = tokenizer.spans(text)
    edges = _edges(offsets, len(text))
    before = tokenizer.frame([-1]).index(-1)
    windows = []
    for start, end in token_windows(len(ids), size - framing, stride):
        own: list[Span | None] = [None] * before + list(offsets[start:end]) + [None] * (framing - before)
        characters = (edges[start] if start else 0, edges[end])
        windows.append(Window(tokenizer.frame(ids[start:end]), (start, end), characters, own))
    return windows


def _edges(offsets: list[Span], n_chars: int) -> list[int]:
    """The characters at which tokens part, one more than tokens: 0 first, the end of the text last, never falling.

    A character whose bytes are several tokens belongs to the edge before it: a window that opens in its middle
    names the whole character, the window that closes there leaves it to that one.
    """
    if not offsets:
        return [n_chars]
    edges = [0]
    for start, _ in offsets[1:]:
        edges.append(max(start, edges[-1]))
    return [*edges, n_chars]
