"""Words that stand in the same company: an embedding of the texts' own words, and its neighbourhoods.

Positive pointwise mutual information of words within a window, factorised (Levy and Goldberg 2014, "Neural word
embedding as implicit matrix factorization"; context distribution smoothed by 0.75 as Levy et al. 2015, section 3.2).
Neighbours share contexts, not always meaning: opposites do too (good, bad). Where the label hangs on such words,
measure what synonyms do to it before training on them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nacre.data.words import HAN, word_spans
from nacre.errors import ConfigError, DataError
from nacre.lazy import require

_SMOOTHING = 0.75
_HAN = re.compile(f"[{HAN}]")


@dataclass(frozen=True)
class NeighbourConfig:
    """`least_count`: rarer words have no neighbours. `dimensions` of the embedding, `window` words to each side.
    A neighbour has a cosine of at least `similarity`; at most `most` are kept."""

    least_count: int = 5
    dimensions: int = 100
    window: int = 4
    similarity: float = 0.6
    most: int = 8

    def __post_init__(self) -> None:
        for name in ("least_count", "dimensions", "window", "most"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="give 1 or more")
        if not 0 < self.similarity < 1:
            raise ConfigError(f"similarity is {self.similarity}", remedy="give a cosine between 0 and 1; 0.6, say")


def neighbours(texts: Iterable[str], config: NeighbourConfig | None = None) -> dict[str, list[str]]:
    """Words in lower case to their nearest, nearest first; the same for the same texts. DataError for too few words."""
    config = config or NeighbourConfig()
    lines = [[text[start:end].lower() for start, end in word_spans(text)] for text in texts]
    counted = Counter(word for line in lines for word in line if word[:1].isalpha())
    known = sorted(word for word, count in counted.items() if count >= config.least_count)
    if len(known) < config.dimensions + 2:
        raise DataError(
            f"only {len(known):,} words stand {config.least_count} times or more: too few for neighbours",
            remedy="lower least_count or dimensions, give more rows, or leave synonyms out",
        )
    vectors = _embedded(lines, {word: index for index, word in enumerate(known)}, config)
    return _nearest(known, vectors, config)


def _embedded(lines: list[list[str]], index: Mapping[str, int], config: NeighbourConfig) -> NDArray[np.float64]:
    """(words, dimensions) of unit length."""
    pairs: Counter[tuple[int, int]] = Counter()
    for line in lines:
        ids = [index.get(word, -1) for word in line]
        for at, one in enumerate(ids):
            for other in ids[at + 1 : at + 1 + config.window]:
                if one >= 0 and other >= 0:
                    pairs[one, other] += 1
                    pairs[other, one] += 1
    if not pairs:
        raise DataError("no two known words stand together", remedy="give longer texts, or leave synonyms out")
    rows, columns = np.array(list(pairs)).T
    counts = np.fromiter(pairs.values(), np.float64, len(pairs))
    by_word = np.bincount(rows, counts, len(index))
    context = by_word**_SMOOTHING
    shares = counts / counts.sum()
    expected = (by_word / by_word.sum())[rows] * (context / context.sum())[columns]
    positive = np.maximum(np.log(shares / expected), 0)
    matrix = require("scipy.sparse").csr_matrix((positive, (rows, columns)), shape=(len(index), len(index)))
    start = np.random.default_rng(0).standard_normal(len(index))
    left, values, _ = require("scipy.sparse.linalg").svds(matrix, k=config.dimensions, v0=start)
    vectors = left * np.sqrt(values)
    found: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def _nearest(known: list[str], vectors: NDArray[np.float64], config: NeighbourConfig) -> dict[str, list[str]]:
    is_han = np.array([bool(_HAN.match(word)) for word in known])
    found: dict[str, list[str]] = {}
    for start in range(0, len(known), 1024):
        cosines = vectors[start : start + 1024] @ vectors.T
        for row, values in enumerate(cosines, start):
            values[row] = -1
            values[is_han != is_han[row]] = -1  # no English word for a Chinese one
            best = np.argsort(-values, kind="stable")[: config.most]
            near = [known[other] for other in best if values[other] >= config.similarity]
            if near:
                found[known[row]] = near
    return found
