"""Answers by nearness: the label whose text, or the passage that, lies nearest to a row in an engine's embedding."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nacre.engine.protocol import Engine, EngineError, Usage
from nacre.engine.protocol import unsupported as cannot
from nacre.errors import CheckpointError, DataError
from nacre.tiers.asking.asking import batches, likeliest, total_usage
from nacre.tiers.rung import Answer
from nacre.tiers.task import Row, Task, text_of

Vectors = NDArray[np.float32]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedding:
    """Vectors (N, D) of length 1, the usage of each call with its place, and how many texts were read only in part."""

    vectors: Vectors
    usages: tuple[tuple[int, Usage], ...] = ()  # (the first text of a call, what the call used)
    model: str = ""
    truncated: int = 0

    @property
    def usage(self) -> Usage:
        """What all calls used."""
        return total_usage(usage for _, usage in self.usages)


@dataclass(frozen=True)
class NamedVectors:
    """Names (labels, or ids of a corpus) and their vectors (N, D) of length 1; `truncated` texts were read in part."""

    names: tuple[str, ...]
    vectors: Vectors
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    truncated: int = 0

    def save(self, file: Path) -> None:
        """Writes names and vectors as `.npz`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, allow_pickle=False, names=np.array(self.names, dtype=np.str_), vectors=self.vectors)

    @classmethod
    def load(cls, file: Path) -> NamedVectors:
        """Reads what `save` wrote; raises CheckpointError where it is missing or damaged."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                names, vectors = tuple(map(str, arrays["names"])), np.asarray(arrays["vectors"], dtype=np.float32)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise CheckpointError(f"{file} holds no vectors: {error}", remedy="make the rung again") from error
        if vectors.ndim != 2 or len(vectors) != len(names) or not len(names):
            raise CheckpointError(
                f"{file} has {len(names)} names for vectors {vectors.shape}", remedy="make the rung again"
            )
        return cls(names, vectors)


def embed(engine: Engine, texts: Sequence[str], batch: int = 64) -> Embedding:
    """Vectors of length 1 in the order of the texts. EngineError unless the engine returns a finite one per text."""
    if not engine.capabilities.embed:
        raise cannot(engine, "embed")
    if not texts:
        raise DataError("there is no text to embed", remedy="give one or more rows")
    parts, usages, models, truncated = [], [], [], 0
    for number, part in enumerate(batches(texts, batch)):
        found = engine.embed(part)
        _check(engine, found.vectors, len(part))
        parts.append(_unit(np.asarray(found.vectors, dtype=np.float32)))
        usages.append((number * max(batch, 1), found.usage))
        models.append(found.model)
        truncated += found.truncated
    if truncated:
        _LOG.warning("%s read only the beginning of %d of %d texts", engine.name, truncated, len(texts))
    return Embedding(np.concatenate(parts), tuple(usages), ", ".join(dict.fromkeys(models)), truncated)


def label_vectors(engine: Engine, label_texts: Mapping[str, Sequence[str]], batch: int = 64) -> NamedVectors:
    """A vector per label: the mean of the unit vectors of its texts, of length 1 again."""
    empty = [label for label, texts in label_texts.items() if not texts]
    if empty or not label_texts:
        raise DataError(f"no text stands for the label {empty[0]!r}" if empty else "no labels", remedy="describe it")
    found = embed(engine, [text for texts in label_texts.values() for text in texts], batch)
    ends = np.cumsum([len(texts) for texts in label_texts.values()])[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(found.vectors, ends)])
    return NamedVectors(tuple(label_texts), _unit(means), found.usage, found.model, found.truncated)


def corpus_vectors(engine: Engine, corpus: Sequence[Row], batch: int = 64) -> NamedVectors:
    """A vector per passage (`id`, `text`)."""
    found = embed(engine, [str(row["text"]) for row in corpus], batch)
    ids = tuple(str(row["id"]) for row in corpus)
    return NamedVectors(ids, found.vectors, found.usage, found.model, found.truncated)


def similarity(
    engine: Engine, task: Task, rows: Sequence[Row], labels: NamedVectors, *, temperature: float = 0.05, batch: int = 64
) -> list[Answer]:
    """The label nearest by cosine; `scores` are a softmax of cosine over `temperature`.

    Rows are embedded in batches; what a batch used is in the usage of its first answer.
    """
    if not rows:
        return []
    found, nearness = _nearness(engine, task, rows, labels, batch)
    usages = dict(found.usages)
    answers = []
    for index, row in enumerate(nearness):
        shares = likeliest(labels.names, row.astype(np.float64) / temperature)
        answers.append(
            Answer(next(iter(shares)), scores=shares, usage=usages.get(index, Usage()), served_by=found.model)
        )
    return answers


def rank_by_vectors(
    engine: Engine, task: Task, rows: Sequence[Row], corpus: NamedVectors, *, top: int = 100, batch: int = 64
) -> list[Answer]:
    """The `top` passages nearest by cosine, the nearest first; ties in the order of the corpus. Usage as above."""
    if not rows:
        return []
    found, nearness = _nearness(engine, task, rows, corpus, batch)
    usages = dict(found.usages)
    return [
        Answer(
            [corpus.names[one] for one in np.argsort(-row, kind="stable")[:top]],
            usage=usages.get(index, Usage()),
            served_by=found.model,
        )
        for index, row in enumerate(nearness)
    ]


def _nearness(
    engine: Engine, task: Task, rows: Sequence[Row], named: NamedVectors, batch: int
) -> tuple[Embedding, Vectors]:
    """Cosines (N, M) of rows and names."""
    found = embed(engine, [text_of(row, task.kind) for row in rows], batch)
    if found.vectors.shape[1] != named.vectors.shape[1]:
        raise EngineError(
            f"{engine.name} gave vectors of {found.vectors.shape[1]} dimensions, the rung was made with "
            f"{named.vectors.shape[1]}",
            remedy="make the rung again with this engine, or call the model it was made with",
        )
    return found, found.vectors @ named.vectors.T


def _check(engine: Engine, vectors: Vectors, n: int) -> None:
    if np.ndim(vectors) == 2 and len(vectors) == n and bool(np.isfinite(vectors).all()):
        return
    raise EngineError(
        f"{engine.name} gave {np.shape(vectors)} for {n} texts, or values that are not finite",
        remedy="check the model behind the address: it must return one vector per text",
    )


def _unit(vectors: Vectors) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0), dtype=np.float32)
