"""A rung of tier 0, opened: it answers from its folder alone and calls nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError, closest
from nacre.tiers.baseline.bm25 import Bm25
from nacre.tiers.rung import Answer, Manifest, Rung
from nacre.tiers.task import Row

if TYPE_CHECKING:
    from nacre.tiers.baseline.baseline import Linear
    from nacre.tiers.baseline.tagger import Tagger
    from nacre.tiers.baseline.writers import Writer

_SHOWN = 5  # classes whose scores an answer carries


def open_rung(folder: Path, manifest: Manifest, room: EngineRoom) -> Rung:
    """The rung in a folder; `room` is not used. Raises CheckpointError where its files are missing or damaged."""
    solver = str(manifest.how.get("solver"))
    if solver == "linear":
        from nacre.tiers.baseline.baseline import Linear

        return _Classes(Linear.load(folder))
    if solver in ("crf", "majority"):
        from nacre.tiers.baseline.tagger import Crf, Majority, crf_file

        return _Tags(
            Crf(crf_file(folder), str(manifest.how.get("sha256"))) if solver == "crf" else Majority.load(folder)
        )
    if solver == "writer":
        from nacre.tiers.baseline.writers import load_writer

        return _Texts(load_writer(folder))
    if solver == "bm25":
        return _Ranks(Bm25.load(folder), int(manifest.how["depth"]))
    raise CheckpointError(f"{folder}: no classical solver {solver!r}", remedy=closest(solver, _SOLVERS))


_SOLVERS = ("linear", "crf", "majority", "writer", "bm25")


class _Classes:
    """Scores are the softmax of the SVM's decision values: an order, no calibrated probability."""

    def __init__(self, model: Linear) -> None:
        self._model = model

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        if not rows:
            return []
        decided = self._model.scores([str(row["text"]) for row in rows])
        powers = np.exp(decided - decided.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        return [Answer(self._model.labels[int(row.argmax())], scores=self._top(row)) for row in shares]

    def _top(self, shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Mapping[str, float]:
        best = np.argsort(-shares, kind="stable")[:_SHOWN].tolist()
        return {self._model.labels[at]: round(float(shares[at]), 6) for at in best}

    def close(self) -> None:
        pass


class _Tags:
    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        return [Answer(self._tagger.tag(list(row["tokens"]))) for row in rows]

    def close(self) -> None:
        self._tagger.close()


class _Texts:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        return [Answer(text) for text in self._writer.write([str(row["source"]) for row in rows])]

    def close(self) -> None:
        pass


class _Ranks:
    def __init__(self, index: Bm25, depth: int) -> None:
        self._index, self._depth = index, depth

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        ranked = self._index.rank([str(row["query"]) for row in rows], self._depth)
        return [
            Answer([one for one, _ in row]) if row else Answer(None, problem="no word of the query is in the corpus")
            for row in ranked
        ]

    def close(self) -> None:
        pass
