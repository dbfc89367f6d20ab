"""Rows that two data sets share, both ways: the same, sharing a text, nearly the same. Memory: some 30 bytes a row."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nacre.data.dedup import DedupConfig, find_clusters
from nacre.data.report import shorten
from nacre.data.rows import Row, digest64
from nacre.lifecycle.audit.data.texts import Rows, View, located, pick, plain_text, texts_of
from nacre.metrics.bootstrap import wilson

Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

# A text in more rows than this of one set is a prompt or a licence: sharing it is no sharing of rows.
BOILERPLATE_ROWS = 10
SAMPLES = 5


@dataclass(frozen=True)
class OverlapConfig:
    """`near_threshold`: Jaccard similarity of near-duplicates. At most `near_rows` rows and `near_mib` of text of each
    side, drawn by hash, are looked through for them; 0 rows: none."""

    near_threshold: float = 0.8
    near_rows: int = 40_000
    near_mib: int = 16


@dataclass(frozen=True)
class Scan:
    """One pass over a data set. `whole` (N,) a hash of all texts of a row; `own` (M,) hashes of its telling texts and
    `owner` (M,) their rows; `empty` rows have no text in what is compared and count nowhere; `repeated_ids`
    rows have an id that an earlier row has."""

    whole: Hashes
    own: Hashes
    owner: NDArray[np.int64]
    empty: int
    n_characters: int
    repeated_ids: int = 0

    def __len__(self) -> int:
        return len(self.whole)


@dataclass(frozen=True)
class Found:
    """Rows of one side that stand in the other. `same`: all texts equal; `telling`: shares a text too
    long for chance; `exact`: either; `near`: nearly the same, of `near_looked` rows that are not exact."""

    rows: int
    same: int
    distinct_same: int
    telling: int
    exact: int
    near: int
    near_looked: int
    empty: int = 0
    repeated_ids: int = 0

    @property
    def share(self) -> float:
        """Of all rows, those that are found exactly or nearly."""
        return min(1.0, self.found / max(1, self.rows))

    @property
    def found(self) -> int:
        """Rows found; what was found among drawn rows is scaled to all of them."""
        left = self.rows - self.exact
        return self.exact + round(left * self.near / max(1, self.near_looked))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share, as of rows drawn from one source."""
        return share_interval(min(self.found, self.rows), self.rows)


@dataclass(frozen=True)
class Example:
    """A row of the subject beside one of the reference: where each stands, and the subject's text, shortened.

    `how`: all texts the same, a telling text in common, or nearly the same."""

    how: Literal["same", "telling", "near"]
    subject: str
    reference: str
    text: str


@dataclass(frozen=True)
class Overlap:
    """Both directions: of the subject's rows those in the reference, and the other way."""

    subject: Found
    reference: Found
    is_same_set: bool
    boilerplate: int
    near_is_sampled: bool
    examples: tuple[Example, ...] = ()


def scan(rows: Rows, hear: Callable[[Row], None] | None = None) -> Scan:
    """Hashes of every row, in one pass; `hear` is given every whole row on the way."""
    whole, own, owner, ids = array("Q"), array("Q"), array("q"), array("Q")
    empty = n_characters = 0
    for row in rows:
        if hear is not None:
            hear(row)
        if "id" in row:
            ids.append(digest64(str(row["id"])))
        texts = texts_of(pick(row, rows.fields) if isinstance(rows, View) else row)
        if not texts.text:
            empty += 1
            continue
        for value in texts.own:
            own.append(value)
            owner.append(len(whole))
        whole.append(texts.whole)
        n_characters += len(texts.text)
    return Scan(
        np.array(whole, dtype=np.uint64),
        np.array(own, dtype=np.uint64),
        np.array(owner, dtype=np.int64),
        empty,
        n_characters,
        len(ids) - len(np.unique(np.array(ids, dtype=np.uint64))),
    )


def share_interval(count: int, total: int) -> tuple[float, float]:
    """95 % Wilson interval of a share; (0, 1) of nothing."""
    if total == 0:
        return 0.0, 1.0
    found = wilson(count, total)
    return found.low, found.high


def overlap(
    subject: Rows,
    reference: Rows,
    config: OverlapConfig | None = None,
    hear: tuple[Callable[[Row], None], Callable[[Row], None]] | None = None,
) -> Overlap:
    """Compares two sets of rows; both are passed over twice, so give a list or a `DataSet` view, no iterator.

    `hear` is given every row of the subject, and of the reference, once.
    """
    config = config or OverlapConfig()
    ours, theirs = (scan(rows, hear and hear[side]) for side, rows in enumerate((subject, reference)))
    common = _boilerplate(ours, theirs)
    same_a, same_b = np.isin(ours.whole, theirs.whole), np.isin(theirs.whole, ours.whole)
    telling_a, telling_b = _telling(ours, theirs, common), _telling(theirs, ours, common)
    text_a = _Drawn(ours, telling_a | same_a, config)
    text_b = _Drawn(theirs, telling_b | same_b, config)
    text_a.read(subject)
    text_b.read(reference)
    near_a, near_b, near_pairs = _near(text_a, text_b, config)
    pairs = _exact_pairs(ours, theirs, same_a, telling_a & ~same_a, common) | near_pairs
    return Overlap(
        _found(ours, same_a, telling_a, near_a, text_a),
        _found(theirs, same_b, telling_b, near_b, text_b),
        is_same_set=len(ours) > 0 and bool(np.array_equal(np.sort(ours.whole), np.sort(theirs.whole))),
        boilerplate=len(common),
        near_is_sampled=text_a.rate < 1 or text_b.rate < 1,
        examples=examples_of(pairs, subject, reference),
    )


How = Literal["same", "telling", "near"]
Pairs = dict[int, tuple[How, int]]  # a row of the subject -> how it is found, and as which row of the reference


def _exact_pairs(ours: Scan, theirs: Scan, same: Flags, telling: Flags, common: Hashes) -> Pairs:
    """The first rows of each kind, each with the first row of the other side that it is found in."""
    pairs: Pairs = {}
    for row in np.flatnonzero(same)[:SAMPLES].tolist():
        pairs[row] = "same", int(np.argmax(theirs.whole == ours.whole[row]))
    for row in np.flatnonzero(telling)[:SAMPLES].tolist():
        values = ours.own[(ours.owner == row) & ~np.isin(ours.own, common)]
        pairs[row] = "telling", int(theirs.owner[np.argmax(np.isin(theirs.own, values))])
    return pairs


def examples_of(pairs: Pairs, subject: Rows, reference: Rows) -> tuple[Example, ...]:
    """The pairs with places and text: one more pass over each side, as far as the last of them."""
    ours = _places(subject, set(pairs))
    theirs = _places(reference, {other for _, other in pairs.values()})
    return tuple(
        Example(how, ours[row][0], theirs[other][0], ours[row][1]) for row, (how, other) in sorted(pairs.items())
    )


def _places(rows: Rows, wanted: set[int]) -> Mapping[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    number = 0
    for place, row in located(rows) if wanted else ():
        text = plain_text(row)
        if not text:
            continue
        if number in wanted:
            found[number] = place, shorten(text.replace("\n", " ⏎ "))
            if len(found) == len(wanted):
                break
        number += 1
    return found


def _boilerplate(ours: Scan, theirs: Scan) -> Hashes:
    """Telling texts in many rows of a side that have something else beside them."""
    found = []
    for side in (ours, theirs):
        alone = np.bincount(side.owner, minlength=len(side))[side.owner] == 1 if len(side.own) else np.empty(0, bool)
        values, counts = np.unique(side.own[~alone], return_counts=True)
        found.append(values[counts > BOILERPLATE_ROWS])
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.uint64)


def _telling(side: Scan, other: Scan, common: Hashes) -> Flags:
    hit = np.isin(side.own, other.own) & ~np.isin(side.own, common)
    rows = np.zeros(len(side), dtype=bool)
    rows[side.owner[hit]] = True
    return rows


class _Drawn:
    """The rows of a side in which near-duplicates are looked for, drawn by hash so that the draw does not depend on the
    order of the rows. `numbers` are their places among all rows with text."""

    def __init__(self, side: Scan, found: Flags, config: OverlapConfig) -> None:
        left = len(side) - int(found.sum())
        bytes_per_row = side.n_characters * 2 / max(1, len(side))
        room = min(config.near_rows, (config.near_mib << 20) / max(1.0, bytes_per_row))
        self.rate = min(1.0, room / max(1, left))
        self._drawn = ~found & (side.whole <= np.uint64(min(self.rate * 2**64, 2**64 - 1)))
        self.numbers: list[int] = np.flatnonzero(self._drawn).tolist() if self.rate else []
        self.texts: list[str] = []

    def read(self, rows: Rows) -> None:
        """Keeps the drawn rows' texts."""
        if not self.numbers:
            return
        texts = (text for _, row in located(rows) if (text := plain_text(row)))
        self.texts = [text for is_drawn, text in zip(self._drawn.tolist(), texts, strict=True) if is_drawn]


def _near(ours: _Drawn, theirs: _Drawn, config: OverlapConfig) -> tuple[int, int, Pairs]:
    """How many drawn rows of each side have a near-duplicate among those of the other, and the first of them."""
    if not ours.texts or not theirs.texts:
        return 0, 0, {}
    rows = ({"text": text} for text in chain(ours.texts, theirs.texts))
    label = find_clusters(rows, DedupConfig(method="near", threshold=config.near_threshold)).label
    a, b = label[: len(ours.texts)], label[len(ours.texts) :]
    hit = np.isin(a, b)
    first: Pairs = {
        ours.numbers[row]: ("near", theirs.numbers[int(np.argmax(b == a[row]))])
        for row in np.flatnonzero(hit)[:SAMPLES].tolist()
    }
    return int(hit.sum()), int(np.isin(b, a).sum()), first


def _found(side: Scan, same: Flags, telling: Flags, near: int, drawn: _Drawn) -> Found:
    return Found(
        rows=len(side),
        same=int(same.sum()),
        distinct_same=len(np.unique(side.whole[same])),
        telling=int(telling.sum()),
        exact=int((telling | same).sum()),
        near=near,
        near_looked=len(drawn.texts),
        empty=side.empty,
        repeated_ids=side.repeated_ids,
    )
