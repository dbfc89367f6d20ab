"""Texts to unit vectors by an engine, with what that used; and the tokenizer that chunks are measured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nacre.engine.protocol import Engine, Usage, unsupported
from nacre.errors import NacreError
from nacre.tiers.asking.vectors import embed
from nacre.tiers.retrieval.chunk import Measure
from nacre.tiers.retrieval.vectors import Vectors

BATCH = 256


@dataclass
class Embedder:
    """An engine that embeds. `usage` is the sum of what it used, `usages` that of the last call, by its places;
    `truncated` counts texts that were read only in part."""

    engine: Engine
    usage: Usage = field(default_factory=Usage)
    usages: dict[int, Usage] = field(default_factory=dict)
    truncated: int = 0
    model: str | None = None

    def __post_init__(self) -> None:
        if not self.engine.capabilities.embed:
            raise unsupported(self.engine, "embed")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (N, D). Raises EngineError for what are no finite vectors, one per text."""
        if not texts:
            return np.empty((0, self.engine.capabilities.dimensions or 0), np.float32)
        found = embed(self.engine, texts, BATCH)
        self.usages = dict(found.usages)
        self.usage, self.truncated = self.usage + found.usage, self.truncated + found.truncated
        self.model = found.model
        return found.vectors


def token_measure(folder: Path) -> Measure | None:
    """Tokens of a text by the tokenizer in an engine's folder; None where there is none that Nacre can read."""
    if not (folder / "tokenizer.json").is_file():
        return None
    from nacre.data.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.load(folder)
    except NacreError:  # of a kind that is not ours: the manifest says which unit was taken instead
        return None
    return lambda text: len(tokenizer.encode(text, add_special=False))
