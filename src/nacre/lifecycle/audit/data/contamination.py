"""Test rows that stand in training rows: the same texts, and long n-grams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nacre.data.decontaminate import DecontaminateConfig, TestIndex, decontaminate
from nacre.data.report import DropReport, shorten
from nacre.data.rows import Row
from nacre.lifecycle.audit.data.overlap import SAMPLES, scan, share_interval
from nacre.lifecycle.audit.data.texts import texts_of


@dataclass(frozen=True)
class Contamination:
    """`same`: test rows all of whose texts are those of a training row. `train_same`: such training rows.

    `train_ngram`: training rows that contain a long n-gram of a test row; None where that was not looked for.
    """

    test_rows: int
    train_rows: int
    same: int
    train_same: int
    train_ngram: int | None
    samples: tuple[str, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share of test rows that stand in the training rows."""
        return share_interval(self.same, self.test_rows)


def contamination(train: Iterable[Row], test: Iterable[Row], *, ngrams: bool = True) -> Contamination:
    """How much of `test` is in `train`; both are passed over more than once."""
    ours, theirs = scan(train), scan(test)
    hit = np.isin(theirs.whole, ours.whole)
    samples: list[str] = []
    number = 0
    for row in test:
        text = texts_of(row).text
        if not text:
            continue
        if hit[number] and len(samples) < SAMPLES:
            samples.append(shorten(text.replace("\n", " ⏎ ")))
        number += 1
    found = _ngram_rows(train, test) if ngrams and len(ours) and len(theirs) else None
    return Contamination(
        len(theirs), len(ours), int(hit.sum()), int(np.isin(ours.whole, theirs.whole).sum()), found, tuple(samples)
    )


def _ngram_rows(train: Iterable[Row], test: Iterable[Row]) -> int:
    config = DecontaminateConfig()
    index = TestIndex({"test": _Plain(test)}, config)
    report = DropReport()
    for _ in decontaminate(_Plain(train), index, report):
        pass
    return sum(step.rows_dropped for step in report.steps.values())


class _Plain:
    """The rows as one text each, at every pass: what `decontaminate` compares whatever the fields are called."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return ({"text": texts.text} for row in self._rows if (texts := texts_of(row)).text)
