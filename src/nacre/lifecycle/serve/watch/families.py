"""Counters, gauges and histograms in the text format of Prometheus (exposition format 0.0.4).

Own code because an update is paid per request: six updates through `prometheus_client` cost 18 us (a lock and a lookup
of children each), these cost 2 us; tests read what is rendered with that library's parser. Not locked: everything here
belongs to the thread of the event loop.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[str, ...]
Kind = Literal["counter", "gauge", "histogram"]


class Family:
    """A metric with its help and label names; `labels` of every call are values in the order of `names`."""

    kind: Kind = "gauge"

    def __init__(self, name: str, about: str, names: Sequence[str] = ()) -> None:
        self.name, self.about, self.names = name, about, tuple(names)

    def render(self) -> Iterator[str]:
        """The lines of this family; none where nothing was counted and labels are wanted."""
        lines = list(self._samples())
        if lines:
            yield f"# HELP {self.name} {_escape_help(self.about)}"
            yield f"# TYPE {self.name} {self.kind}"
            yield from lines

    def _samples(self) -> Iterator[str]:
        raise NotImplementedError


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

    def _samples(self) -> Iterator[str]:
        for labels, value in self.rows.items():
            yield f"{self.name}{braces(self.names, labels)} {number(value)}"


class Gauge(Family):
    """Goes up and down."""

    kind: Kind = "gauge"

    def __init__(self, name: str, about: str, names: Sequence[str] = ()) -> None:
        super().__init__(name, about, names)
        self.rows: dict[Labels, float] = {}

    def set(self, labels: Labels, value: float) -> None:
        self.rows[labels] = value

    def _samples(self) -> Iterator[str]:
        for labels, value in self.rows.items():
            yield f"{self.name}{braces(self.names, labels)} {number(value)}"


class Reading(Family):
    """One value that is asked for when somebody looks; None leaves it out."""

    def __init__(self, name: str, about: str, read: Callable[[], float | None], kind: Kind = "gauge") -> None:
        super().__init__(name, about)
        self.kind, self._read = kind, read

    def _samples(self) -> Iterator[str]:
        value = self._read()
        if value is not None:
            yield f"{self.name} {number(value)}"


class Histogram(Family):
    """Counts observations at or below each of `bounds` (ascending), and their sum."""

    kind: Kind = "histogram"

    def __init__(self, name: str, about: str, names: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__(name, about, names)
        self.bounds = tuple(bounds)
        self.rows: dict[Labels, list[float]] = {}  # one count per bound, one beyond them, the sum

    def observe(self, labels: Labels, value: float) -> None:
        """Counts one value; what is not a finite number is not counted."""
        if not math.isfinite(value):
            return
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0] * (len(self.bounds) + 1) + [0.0]
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value

    def _samples(self) -> Iterator[str]:
        for labels, row in self.rows.items():
            total = 0.0
            for bound, count in zip((*self.bounds, math.inf), row[:-1], strict=True):
                total += count
                yield f"{self.name}_bucket{braces((*self.names, 'le'), (*labels, number(bound)))} {number(total)}"
            yield f"{self.name}_sum{braces(self.names, labels)} {number(row[-1])}"
            yield f"{self.name}_count{braces(self.names, labels)} {number(total)}"


def render(families: Sequence[Family]) -> str:
    """The families as text, with the newline at the end that the format asks for."""
    return "".join(f"{line}\n" for family in families for line in family.render())


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
