"""Counters, gauges and histograms in the text format of Prometheus (exposition format 0.0.4).

Own code because an update is paid per request: six updates through `prometheus_client` cost 18 us (a lock and a lookup
of children each), these cost 2 us; tests read what is rendered with that library's parser. Not locked: everything here
belongs to the thread of the event loop.

Several workers count each for itself; their rows are put `together` when one is asked: sums, or what a family says.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[str, ...]
Kind = Literal["counter", "gauge", "histogram"]
Together = Literal["sum", "min", "max"]
Row = float | list[float]  # a histogram's: one count per bound, one beyond them, the sum
Rows = Mapping[Labels, Row]


class Family:
    """A metric with its help and label names; `labels` of every call are values in the order of `names`.

    `together` says how the values of several workers become one.
    """

    kind: Kind = "gauge"

    def __init__(self, name: str, about: str, names: Sequence[str] = (), together: Together = "sum") -> None:
        self.name, self.about, self.names, self.together = name, about, tuple(names), together

    def values(self) -> Rows:
        """What this process has counted, by labels."""
        raise NotImplementedError

    def go_on(self, rows: Rows) -> None:
        """Begins where a worker that died has ended; only what is counted goes on."""

    def render(self, others: Iterable[Rows] = ()) -> Iterator[str]:
        """The lines of this family, with the rows of others; none where nothing was counted and labels are wanted."""
        lines = [
            line
            for labels, row in together((self.values(), *others), self.together)
            for line in self._lines(labels, row)
        ]
        if lines:
            yield f"# HELP {self.name} {_escape_help(self.about)}"
            yield f"# TYPE {self.name} {self.kind}"
            yield from lines

    def _lines(self, labels: Labels, row: Row) -> Iterator[str]:
        assert not isinstance(row, list)  # a histogram writes its own
        yield f"{self.name}{braces(self.names, labels)} {number(row)}"


class Counter(Family):
    """Only grows. A family without labels starts at zero, so that a rate can be taken from the first scrape on."""

    kind: Kind = "counter"

    def __init__(self, name: str, about: str, names: Sequence[str] = ()) -> None:
        super().__init__(name, about, names)
        self.rows: dict[Labels, float] = {} if names else {(): 0}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Adds `amount`, which is not negative; what is not a number or infinite is not added."""
        if amount >= 0 and amount != math.inf:
            self.rows[labels] = self.rows.get(labels, 0) + amount

    def values(self) -> Rows:
        return self.rows

    def go_on(self, rows: Rows) -> None:
        for labels, value in rows.items():
            if not isinstance(value, list):
                self.add(labels, value)


class Gauge(Family):
    """Goes up and down."""

    kind: Kind = "gauge"

    def __init__(self, name: str, about: str, names: Sequence[str] = (), together: Together = "sum") -> None:
        super().__init__(name, about, names, together)
        self.rows: dict[Labels, float] = {}

    def set(self, labels: Labels, value: float) -> None:
        self.rows[labels] = value

    def values(self) -> Rows:
        return self.rows


class Reading(Family):
    """One value that is asked for when somebody looks; None leaves it out."""

    def __init__(
        self, name: str, about: str, read: Callable[[], float | None], kind: Kind = "gauge", together: Together = "sum"
    ) -> None:
        super().__init__(name, about, together=together)
        self.kind, self._read, self._before = kind, read, 0.0

    def values(self) -> Rows:
        value = self._read()
        return {} if value is None else {(): self._before + value}

    def go_on(self, rows: Rows) -> None:
        value = rows.get(())
        if self.kind == "counter" and value is not None and not isinstance(value, list):
            self._before = value


class Histogram(Family):
    """Counts observations at or below each of `bounds` (ascending), and their sum."""

    kind: Kind = "histogram"

    def __init__(self, name: str, about: str, names: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__(name, about, names)
        self.bounds = tuple(bounds)
        self.rows: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Counts one value; what is not a finite number is not counted."""
        if not math.isfinite(value):
            return
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0] * (len(self.bounds) + 1) + [0.0]
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value

    def values(self) -> Rows:
        return {labels: list(row) for labels, row in self.rows.items()}

    def go_on(self, rows: Rows) -> None:
        for labels, row in rows.items():
            if isinstance(row, list) and len(row) == len(self.bounds) + 2:
                self.rows[labels] = list(row)

    def _lines(self, labels: Labels, row: Row) -> Iterator[str]:
        assert isinstance(row, list)  # see `values`
        total = 0.0
        for bound, count in zip((*self.bounds, math.inf), row[:-1], strict=True):
            total += count
            yield f"{self.name}_bucket{braces((*self.names, 'le'), (*labels, number(bound)))} {number(total)}"
        yield f"{self.name}_sum{braces(self.names, labels)} {number(row[-1])}"
        yield f"{self.name}_count{braces(self.names, labels)} {number(total)}"


def together(several: Iterable[Rows], how: Together) -> Iterator[tuple[Labels, Row]]:
    """The rows of several workers as those of one."""
    merged: dict[Labels, Row] = {}
    for rows in several:
        for labels, row in rows.items():
            known = merged.get(labels)
            merged[labels] = row if known is None else _both(known, row, how)
    yield from merged.items()


def _both(one: Row, other: Row, how: Together) -> Row:
    if isinstance(one, list) or isinstance(other, list):
        assert isinstance(one, list)  # the same family: both are histograms
        assert isinstance(other, list)
        return [a + b for a, b in zip(one, other, strict=True)]
    return one + other if how == "sum" else min(one, other) if how == "min" else max(one, other)


def render(families: Sequence[Family], others: Sequence[Mapping[str, Rows]] = ()) -> str:
    """The families as text, with the newline at the end that the format asks for. `others`: the rows of other workers,
    by the names of their families."""
    return "".join(
        f"{line}\n" for family in families for line in family.render([one.get(family.name, {}) for one in others])
    )


def braces(names: Sequence[str], values: Sequence[str]) -> str:
    """`{name="value",...}` with values escaped; nothing without names."""
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def number(value: float) -> str:
    """A value as the format writes it: whole ones without a point, `+Inf`, `-Inf`, `NaN`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


_ESCAPES: Mapping[int, str] = {ord("\\"): r"\\", ord('"'): r"\"", ord("\n"): r"\n"}


def _escape(value: str) -> str:
    # a lone surrogate cannot be encoded: one bad name must not cost the whole page
    return value.translate(_ESCAPES).encode("utf-8", "replace").decode("utf-8")


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
