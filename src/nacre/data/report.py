"""What data preparation did: rows and bytes in and out of every step, what was dropped or changed, why, with samples.

Law (tested): in every finished step, rows in = rows out + rows dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from nacre.data.rows import Row, n_bytes

SAMPLE_CHARACTERS = 160


@dataclass
class Event:
    """Something that happened `count` times, and the first few cases of it."""

    count: int = 0
    samples: list[dict[str, str]] = field(default_factory=list)

    def add(self, sample: str, where: str, limit: int, times: int = 1) -> None:
        self.count += times
        if len(self.samples) < limit and (sample or where):
            entry = {"where": where} if where else {}
            self.samples.append(entry | ({"text": shorten(sample)} if sample else {}))

    def merge(self, other: Event, limit: int) -> None:
        self.count += other.count
        self.samples = (self.samples + other.samples)[:limit]

    def to_dict(self) -> dict[str, Any]:
        return {"count": self.count, "samples": self.samples}


@dataclass
class Step:
    """The tally of one step. `dropped` rows are gone, `changed` ones went on edited, `noted` is what to know."""

    name: str
    n_samples: int
    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: dict[str, Event] = field(default_factory=dict)
    changed: dict[str, Event] = field(default_factory=dict)
    noted: dict[str, Event] = field(default_factory=dict)
    clock: Iterator[int] = field(default_factory=count, repr=False, compare=False)
    began: int | None = None

    def enter(self, row: Row | None = None, *, size: int = 0) -> int:
        """Counts one row in and returns its bytes; `size` gives them where they are known or the row is not at hand."""
        size = size if row is None else n_bytes(row)
        if self.began is None:
            self.began = next(self.clock)
        self.rows_in += 1
        self.bytes_in += size
        return size

    def leave(self, row: Row | None = None, *, size: int = 0) -> None:
        """Counts one row out; `size` where the row did not change since `enter`."""
        self.rows_out += 1
        self.bytes_out += size if row is None else n_bytes(row)

    def drop(self, reason: str, sample: str = "", where: str = "", times: int = 1) -> None:
        self.dropped.setdefault(reason, Event()).add(sample, where, self.n_samples, times)

    def change(self, what: str, sample: str = "", where: str = "", times: int = 1) -> None:
        self.changed.setdefault(what, Event()).add(sample, where, self.n_samples, times)

    def note(self, what: str, sample: str = "", where: str = "", times: int = 1) -> None:
        self.noted.setdefault(what, Event()).add(sample, where, self.n_samples, times)

    @property
    def rows_dropped(self) -> int:
        return sum(event.count for event in self.dropped.values())

    def merge(self, other: Step) -> None:
        if self.began is None and other.began is not None:
            self.began = next(self.clock)
        for name in ("rows_in", "rows_out", "bytes_in", "bytes_out"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind in ("dropped", "changed", "noted"):
            mine: dict[str, Event] = getattr(self, kind)
            for reason, event in getattr(other, kind).items():
                mine.setdefault(reason, Event()).merge(event, self.n_samples)

    def to_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("rows_in", "rows_out", "bytes_in", "bytes_out")}
        events = {
            kind: {reason: event.to_dict() for reason, event in getattr(self, kind).items()}
            for kind in ("dropped", "changed", "noted")
        }
        return {"step": self.name, **counts, **{kind: found for kind, found in events.items() if found}}


class DropReport:
    """Steps in the order in which rows first reached them. Every function of the data layer fills one.

    Chained generators start from the last one: the order of their first rows is the order in which they work.
    `n_samples` cases are kept of every reason, each shortened to `SAMPLE_CHARACTERS`.
    """

    def __init__(self, n_samples: int = 5) -> None:
        self.n_samples = n_samples
        self._steps: dict[str, Step] = {}
        self._clock = count()

    @property
    def steps(self) -> dict[str, Step]:
        """The steps by name, in their order; those that no row has reached come last."""
        by_start = sorted(self._steps.values(), key=lambda step: (step.began is None, step.began or 0))
        return {step.name: step for step in by_start}

    def step(self, name: str) -> Step:
        """The tally of step `name`; asked for again, it goes on counting."""
        return self._steps.setdefault(name, Step(name, self.n_samples, clock=self._clock))

    @property
    def rows_in(self) -> int:
        return next((step.rows_in for step in self.steps.values()), 0)

    @property
    def rows_out(self) -> int:
        return next((step.rows_out for step in reversed(self.steps.values()) if step.began is not None), 0)

    @property
    def rows_dropped(self) -> int:
        return sum(step.rows_dropped for step in self.steps.values())

    def merge(self, other: DropReport) -> None:
        """Adds another report's counts (of another file or worker) to this one, step by step."""
        for name, step in other.steps.items():
            self.step(name).merge(step)

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "rows_dropped": self.rows_dropped,
            "steps": [step.to_dict() for step in self.steps.values()],
        }

    def table(self, samples: bool = True) -> str:
        """The report for people: a line per step, a line per reason, and the first sample of each."""
        lines = [f"{'step':<16}{'rows in':>12}{'rows out':>12}{'dropped':>12}{'MB out':>10}"]
        for step in self.steps.values():
            counts = f"{step.rows_in:>12,}{step.rows_out:>12,}{step.rows_dropped:>12,}"
            lines.append(f"{step.name:<16}{counts}{step.bytes_out / 1e6:>10.2f}")
            for verb in ("dropped", "changed", "noted"):
                events: dict[str, Event] = getattr(step, verb)
                for reason, event in sorted(events.items(), key=lambda item: (-item[1].count, item[0])):
                    lines.append(f"  {verb} {event.count:,}: {reason}")
                    if samples and event.samples:
                        lines.append("    such as " + " ".join(event.samples[0].values()))
        return "\n".join(lines)


def shorten(text: str, limit: int = SAMPLE_CHARACTERS) -> str:
    """One line of at most `limit` characters, with an ellipsis where something was left out."""
    line = " ".join(text[: 2 * limit].split())
    return line if len(line) <= limit and len(text) <= 2 * limit else line[: limit - 1] + "…"
