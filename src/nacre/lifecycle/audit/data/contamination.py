"""Held-out rows that stand in training rows: the same texts, and long n-grams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nacre.data.decontaminate import DecontaminateConfig, TestIndex, decontaminate
from nacre.data.report import DropReport
from nacre.data.rows import Row
from nacre.lifecycle.audit.data.overlap import SAMPLES, Example, Pairs, examples_of, scan, share_interval
from nacre.lifecycle.audit.data.texts import Rows, located, texts_of


@dataclass(frozen=True)
class Leak:
    """Which held-out rows were looked for in which training rows: sides are `subject` or `reference`."""

    split: str
    held_out: str
    train: str

    def __str__(self) -> str:
        where = "its own" if self.held_out == self.train else f"the {self.train}'s"
        return f"the {self.held_out}'s {self.split} rows in {where} training rows"


@dataclass(frozen=True)
class Contamination:
    """`same`: held-out rows all of whose texts are those of a training row, `distinct` texts among them; `train_same`:
    such training rows. `train_ngram`: training rows that contain a long n-gram of a held-out row; None where that was
    not looked for. `examples`: the first held-out rows found, each with the training row."""

    test_rows: int
    train_rows: int
    same: int
    distinct: int
    train_same: int
    train_ngram: int | None
    examples: tuple[Example, ...]

    @property
    def share(self) -> float:
        """Of the held-out rows, those that stand in the training rows."""
        return self.same / max(1, self.test_rows)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share."""
        return share_interval(self.same, self.test_rows)


def contamination(train: Rows, test: Rows, *, ngrams: bool = True) -> Contamination:
    """How much of `test` is in `train`; both are passed over more than once."""
    ours, theirs = scan(train), scan(test)
    hit = np.isin(theirs.whole, ours.whole)
    pairs: Pairs = {
        row: ("same", int(np.argmax(ours.whole == theirs.whole[row]))) for row in np.flatnonzero(hit)[:SAMPLES].tolist()
    }
    return Contamination(
        test_rows=len(theirs),
        train_rows=len(ours),
        same=int(hit.sum()),
        distinct=len(np.unique(theirs.whole[hit])),
        train_same=int(np.isin(ours.whole, theirs.whole).sum()),
        train_ngram=_ngram_rows(train, test) if ngrams and len(ours) and len(theirs) else None,
        examples=examples_of(pairs, test, train),
    )


def _ngram_rows(train: Rows, test: Rows) -> int:
    config = DecontaminateConfig()
    index = TestIndex({"test": _Plain(test)}, config)
    report = DropReport()
    for _ in decontaminate(_Plain(train), index, report):
        pass
    return sum(step.rows_dropped for step in report.steps.values())


class _Plain:
    """The rows as one text each, at every pass: what `decontaminate` compares whatever the fields are called."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return ({"text": texts.text} for _, row in located(self._rows) if (texts := texts_of(row)).text)
