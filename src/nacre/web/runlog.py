"""A step's log (`logs/metrics.jsonl`) as curves of bounded size, whatever the length of the log.

Each metric keeps at most `MOST_BUCKETS` spans of steps, each with its lowest and its highest point, so that a peak is
never thinned away. A log that grows is read on from where reading ended; of one that is larger than `MOST_BYTES` evenly
spaced parts are read, and how much was left out is known.
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import orjson

MOST_BUCKETS = 300
MOST_BYTES = 8 << 20
_PART, _LONGEST_LINE = 1 << 18, 1 << 20
_MOST_METRICS, _MOST_BREAKS, _MOST_NOTES = 64, 100, 100
_KEPT_LOGS = 32
_ABOUT = ("time", "step", "total", "event")


class Point(NamedTuple):
    """One logged value; `seconds` are those the step has worked, the time between two attempts left out."""

    step: float
    seconds: float
    value: float


@dataclass
class _Bucket:
    low: Point
    high: Point
    count: int = 1

    def add(self, low: Point, high: Point, count: int) -> None:
        self.low = low if low.value < self.low.value else self.low
        self.high = high if high.value > self.high.value else self.high
        self.count += count

    def points(self) -> list[Point]:
        return [self.low] if self.low == self.high else sorted((self.low, self.high))


class Series:
    """One metric. `count` values came, `missing` of them no numbers (NaN or infinite), at first at `first_missing`."""

    def __init__(self) -> None:
        self.count = self.missing = 0
        self.first_missing: float | None = None
        self.last: Point | None = None
        self._pieces: list[list[_Bucket]] = [[]]
        self._per = 1
        self._used = 0

    def add(self, point: Point) -> None:
        """One more value; where the step goes back, a new line begins."""
        self.count += 1
        if not math.isfinite(point.value):
            self.missing += 1
            self.first_missing = point.step if self.first_missing is None else self.first_missing
            self._break()
            return
        if self.last is not None and point.step < self.last.step:
            self._break()
        self.last = point
        piece = self._pieces[-1]
        if piece and piece[-1].count < self._per:
            piece[-1].add(point, point, 1)
            return
        piece.append(_Bucket(point, point))
        self._used += 1
        if self._used > MOST_BUCKETS:
            self._halve()

    def rewind(self, step: float) -> None:
        """Forgets what was logged at `step` and after it: a run that was resumed logs it again."""
        pieces = []
        for piece in self._pieces:
            kept = []
            for bucket in piece:
                points = [point for point in bucket.points() if point.step < step]
                if points:
                    kept.append(_Bucket(min(points, key=_value), max(points, key=_value), bucket.count))
            pieces.append(kept)
        self._pieces = [piece for piece in pieces if piece] or [[]]
        self._used = sum(map(len, self._pieces))
        self.last = self._pieces[-1][-1].points()[-1] if self._used else None

    def lines(self) -> list[list[Point]]:
        """The points to draw, a list for each unbroken line, at most some 600 in all."""
        found = [[point for bucket in piece for point in bucket.points()] for piece in self._pieces if piece]
        if found and self.last is not None and found[-1][-1] != self.last:
            found[-1].append(self.last)
        return found

    def _break(self) -> None:
        if self._pieces[-1] and len(self._pieces) < _MOST_BREAKS:
            self._pieces.append([])

    def _halve(self) -> None:
        """Joins neighbours in pairs: half as many buckets, each of twice as many values."""
        self._per *= 2
        for number, piece in enumerate(self._pieces):
            joined: list[_Bucket] = []
            for index, bucket in enumerate(piece):
                if index % 2:
                    joined[-1].add(bucket.low, bucket.high, bucket.count)
                else:
                    joined.append(bucket)
            self._pieces[number] = joined
        self._used = sum(map(len, self._pieces))


def _value(point: Point) -> float:
    return point.value


@dataclass(frozen=True)
class Curve:
    """One metric to draw: `lines` are unbroken; `count` values came, `missing` of them NaN or infinite."""

    name: str
    lines: Sequence[Sequence[Point]]
    last: Point | None
    count: int
    missing: int
    first_missing: float | None


@dataclass(frozen=True)
class Reading:
    """What a log says now. `size` bytes were seen, `left_out` of them not read; `unread` lines were no rows.

    `attempts` counts how often the step was begun, as far as the log tells; `seconds` is how long it has worked,
    without the time between attempts. `notes` are the last events.
    """

    size: int = 0
    left_out: int = 0
    unread: int = 0
    rows: int = 0
    step: float | None = None
    total: float | None = None
    began: float | None = None
    last: float | None = None
    seconds: float | None = None
    attempts: int = 1
    curves: Sequence[Curve] = ()
    metrics_left_out: int = 0
    notes: Sequence[dict[str, Any]] = ()
    notes_left_out: int = 0


@dataclass
class _Log:
    """A log as far as it was read; `lock` is held by whoever reads on."""

    identity: tuple[int, int]
    size: int = 0
    left_out: int = 0
    unread: int = 0
    rows: int = 0
    step: float | None = None
    total: float | None = None
    began: float | None = None
    last: float | None = None
    attempts: int = 1
    series: dict[str, Series] = field(default_factory=dict)
    metrics_left_out: set[str] = field(default_factory=set)
    notes: list[dict[str, Any]] = field(default_factory=list)
    notes_left_out: int = 0
    lock: Lock = field(default_factory=Lock)
    _rest: bytes = b""
    _paused: float = 0.0
    _resumed: bool = False

    def reading(self) -> Reading:
        curves = [
            Curve(name, one.lines(), one.last, one.count, one.missing, one.first_missing)
            for name, one in self.series.items()
        ]
        return Reading(
            self.size, self.left_out, self.unread, self.rows, self.step, self.total, self.began, self.last,
            self._seconds(), self.attempts, curves, len(self.metrics_left_out), list(self.notes), self.notes_left_out,
        )  # fmt: skip

    def read_on(self, file: BinaryIO, size: int) -> None:
        """Reads up to `size`; a last line without its end is left for the next time."""
        for begin, end in list(self._parts(size)):
            self._read(file, begin, end)

    def _parts(self, size: int) -> Iterator[tuple[int, int]]:
        """What to read: all that is new, or evenly spaced parts of it with its beginning and its end."""
        new = size - self.size
        if new <= MOST_BYTES:
            yield from ((begin, min(begin + _PART, size)) for begin in range(self.size, size, _PART))
            return
        n_parts, at = MOST_BYTES // _PART, self.size
        for number in range(n_parts):
            begin = max(at, self.size + number * (new - _PART) // (n_parts - 1))
            at = begin + _PART
            yield begin, at

    def _read(self, file: BinaryIO, begin: int, end: int) -> None:
        file.seek(begin)
        text, skipped = file.read(end - begin), begin - self.size
        if skipped:  # reading begins within a line
            first = text.find(b"\n") + 1 or len(text)
            self.left_out += len(self._rest) + skipped + first
            text, self._rest = text[first:], b""
        *whole, self._rest = (self._rest + text).split(b"\n")
        self.size = end
        if len(self._rest) > _LONGEST_LINE:
            self._rest, self.unread = b"", self.unread + 1
        for line in whole:
            self._take(line)

    def _seconds(self) -> float | None:
        return None if self.began is None or self.last is None else max(0.0, self.last - self.began - self._paused)

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        row = _row(line)
        if row is None:
            self.unread += 1
            return
        at = row.get("time")
        now = float(at) if isinstance(at, int | float) and math.isfinite(at) else self.last
        if row.get("event") == "resumed":
            self.attempts = max(self.attempts + 1, _whole(row.get("attempt")))
            self._paused += max(0.0, (now or 0.0) - (self.last or now or 0.0))
            self._resumed = True
        self.began = now if self.began is None else self.began
        self.last = now
        if "event" in row:
            self.notes.append(row)
            self.notes_left_out += len(self.notes) > _MOST_NOTES
            del self.notes[:-_MOST_NOTES]
        elif _is_number(row.get("step")):
            self._update(row, float(row["step"]))

    def _update(self, row: dict[str, Any], step: float) -> None:
        self.rows += 1
        if self._resumed:
            self._resumed = False
            for series in self.series.values():
                series.rewind(step)
        self.step = step
        self.total = float(row["total"]) if _is_number(row.get("total")) else self.total
        seconds = self._seconds() or 0.0
        for name, value in row.items():
            if name in _ABOUT or not _is_number(value):
                continue
            if name not in self.series and len(self.series) >= _MOST_METRICS:
                self.metrics_left_out.add(name[:80])
                continue
            self.series.setdefault(name, Series()).add(Point(step, seconds, float(value)))


_logs: OrderedDict[Path, _Log] = OrderedDict()
_logs_lock = Lock()


def read_log(path: Path) -> Reading:
    """What the log at `path` says, read on since it was last looked at; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        log = _log_of(path, (state.st_dev, state.st_ino), state.st_size)
        with log.lock:
            log.read_on(file, state.st_size)
            return log.reading()


def _log_of(path: Path, identity: tuple[int, int], size: int) -> _Log:
    with _logs_lock:
        log = _logs.get(path)
        if log is None or log.identity != identity or size < log.size:  # another file stands there now
            log = _logs[path] = _Log(identity)
        _logs.move_to_end(path)
        while len(_logs) > _KEPT_LOGS:
            _logs.popitem(last=False)
        return log


def _row(line: bytes) -> dict[str, Any] | None:
    """The object of a line, with NaN and Infinity as Python writes them."""
    try:
        row = orjson.loads(line)
    except ValueError:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return row if isinstance(row, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
