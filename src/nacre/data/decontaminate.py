"""Training rows that contain test rows are found by shared n-grams and taken out.

An n-gram is 13 words, as in Brown et al. 2020 (GPT-3, appendix C), or 20 characters in Chinese. Test rows shorter than
that are looked for as a whole: inside training rows down to `min_words` or `min_characters`, below that only as the
whole training row. N-grams that stand in many test rows or many training rows are boilerplate (instructions, licences):
they flag nothing, and are noted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nacre.data.ngrams import Units, rolling, rolling_each, units_of
from nacre.data.report import DropReport, Step, shorten
from nacre.data.rows import Row, content
from nacre.errors import ConfigError, DataError

STEP = "decontaminate"


@dataclass(frozen=True)
class DecontaminateConfig:
    """`words` and `characters`: n in English and in Chinese. `fields`: what is compared; empty means the content.

    An n-gram in more than `boilerplate_test_rows` rows of one test set, or in more than `boilerplate_rows` training
    rows, is boilerplate. Duplicates are best removed first: many copies of one test row look like boilerplate too.
    """

    words: int = 13
    characters: int = 20
    min_words: int = 8
    min_characters: int = 12
    boilerplate_test_rows: int = 3
    boilerplate_rows: int = 10
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (1 <= self.min_words <= self.words and 1 <= self.min_characters <= self.characters):
            raise ConfigError("decontamination: the shortest n-gram is longer than the n-gram", remedy="1 <= min <= n")


class TestIndex:
    """What to look for: the n-grams of long test rows, and whole short test rows, each with where it is from.

    Raises DataError when a test set is empty.
    """

    # Not a test case, whatever pytest thinks of the name.
    __test__ = False

    def __init__(self, test_sets: Mapping[str, Iterable[Row]], config: DecontaminateConfig) -> None:
        self.config = config
        self.n_boilerplate = 0
        self._grams: dict[int, str] = {}
        self._whole: dict[int, str] = {}
        self._lengths: set[int] = set()
        for name, rows in test_sets.items():
            self._add_set(name, rows)
        self._sorted = np.sort(np.array(list(self._grams), dtype=np.uint64))

    def _add_set(self, name: str, rows: Iterable[Row]) -> None:
        seen: Counter[int] = Counter()
        n_rows = 0
        for row in rows:
            n_rows += 1
            text = content(row, self.config.fields or None)
            where = f"{name}, row {n_rows:,}: {shorten(text, 60)}"
            units = units_of(text)
            n = self._length(units)
            if n is None:
                if len(units.ids):
                    self._whole.setdefault(_whole(units), where)
                continue
            self._lengths.add(n)
            for gram in set(rolling(units.ids, n).tolist()):
                seen[gram] += 1
                self._grams.setdefault(gram, where)
        if n_rows == 0:
            raise DataError(f"the test set {name!r} has no rows", remedy="check the reference of the test set")
        for gram, count in seen.items():
            if count > self.config.boilerplate_test_rows:
                self.n_boilerplate += 1
                self._grams.pop(gram, None)

    def _length(self, units: Units) -> int | None:
        """The n for a test row: the full n, the row's own length when it is shorter, None when it is too short."""
        full, least = (
            (self.config.characters, self.config.min_characters)
            if units.mostly_han
            else (self.config.words, self.config.min_words)
        )
        return None if len(units.ids) < least else min(full, len(units.ids))

    def hits(self, text: str) -> list[tuple[int, str]]:
        """(n-gram hash, test row) of every test n-gram in a text; hash -1 where the text is a whole short test row."""
        units = units_of(text)
        found = []
        if len(self._sorted):
            parts = [grams for _, grams in rolling_each(units.ids, self._lengths)]
            grams = np.concatenate([np.empty(0, dtype=np.uint64), *parts])
            places = np.minimum(np.searchsorted(self._sorted, grams), len(self._sorted) - 1)
            shared = np.unique(grams[self._sorted[places] == grams])
            found = [(gram, self._grams[gram]) for gram in shared.tolist()]
        whole = self._whole.get(_whole(units)) if self._whole and len(units.ids) else None
        return found if whole is None else [*found, (-1, whole)]


def _whole(units: Units) -> int:
    return int(rolling(units.ids, len(units.ids))[0])


def decontaminate(rows: Iterable[Row], index: TestIndex, report: DropReport) -> Iterator[Row]:
    """Rows that share no n-gram with the index's test rows, boilerplate aside.

    Passes over `rows` twice: a one-pass iterator is held in memory, a list or a `Spool` is not copied.
    """
    again = list(rows) if iter(rows) is rows else rows
    tally = report.step(STEP)
    frequent = _frequent(again, index, tally)
    fields = index.config.fields or None
    for row in again:
        size = tally.enter(row)
        text = content(row, fields)
        hits = [where for gram, where in index.hits(text) if gram not in frequent]
        if hits:
            tally.drop(f"contains a row of test set {hits[0].partition(',')[0]}", text, where=hits[0])
        else:
            tally.leave(size=size)
            yield row


def _frequent(rows: Iterable[Row], index: TestIndex, tally: Step) -> set[int]:
    """Test n-grams that more than `boilerplate_rows` rows contain. A whole short row (-1) is never boilerplate."""
    counts: Counter[int] = Counter()
    sample: dict[int, str] = {}
    for row in rows:
        for gram, where in index.hits(content(row, index.config.fields or None)):
            counts[gram] += 1
            sample.setdefault(gram, where)
    frequent = {gram for gram, count in counts.items() if gram >= 0 and count > index.config.boilerplate_rows}
    for gram in sorted(frequent):
        tally.note("n-grams in many training rows: boilerplate, not flagged", f"{counts[gram]} rows; {sample[gram]}")
    if index.n_boilerplate:
        tally.note("n-grams in many test rows: boilerplate, not flagged", times=index.n_boilerplate)
    return frequent
