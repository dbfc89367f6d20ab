"""Texts to unit vectors by an engine, with what that used; and the tokenizer that chunks are measured by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nacre.engine.protocol import Engine, Usage, unsupported
from nacre.errors import NacreError
from nacre.tiers.retrieval.chunk import Measure
from nacre.tiers.retrieval.vectors import Vectors, unit

BATCH = 256


@dataclass
class Embedder:
    """An engine that embeds, with the sum of what it used and the number of texts it read only in part."""

    engine: Engine
    usage: Usage = field(default_factory=Usage)
    truncated: int = 0
    model: str = ""

    def __post_init__(self) -> None:
        if not self.engine.capabilities.embed:
            raise unsupported(self.engine, "embed")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (N, D)."""
        found = [self._batch(texts[begin : begin + BATCH]) for begin in range(0, len(texts), BATCH)]
        return np.concatenate(found) if found else np.empty((0, self.engine.capabilities.dimensions or 0), np.float32)

    def stream(self, texts: Iterable[str]) -> Iterator[Vectors]:
        """Unit vectors in batches, in bounded memory."""
        kept: list[str] = []
        for text in texts:
            kept.append(text)
            if len(kept) == BATCH:
                yield self._batch(kept)
                kept = []
        if kept:
            yield self._batch(kept)

    def _batch(self, texts: Sequence[str]) -> Vectors:
        found = self.engine.embed(list(texts))
        self.usage, self.truncated, self.model = self.usage + found.usage, self.truncated + found.truncated, found.model
        return unit(found.vectors)


def token_measure(folder: Path) -> Measure | None:
    """Tokens of a text by the tokenizer in an engine's folder; None where there is none to ask."""
    if not (folder / "tokenizer.json").is_file():
        return None
    from nacre.data.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.load(folder)
    except NacreError:  # a tokenizer of a kind that is not ours: the caller reports which unit it took
        return None
    return lambda text: len(tokenizer.encode(text, add_special=False))
