"""Line charts as geometry: ticks at round numbers, one path per series, gaps where nothing was measured.

Templates draw them as SVG with classes only, since the page allows no styles inside it. Lengths are in pixels of the
drawing's own grid, which scales with the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

Dots = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 34
_N_COLOURS = 6
_DASHES = ("", "6 4", "2 3")


@dataclass(frozen=True)
class Line:
    """One series to draw; `pieces` are its unbroken lines. `colour` counts from 0; every six of them dash otherwise."""

    label: str
    pieces: Sequence[Dots]
    colour: int
    note: str = ""


@dataclass(frozen=True)
class Drawn:
    """A series as drawn: `path` is the `d` of a path, `dots` are points that stand alone."""

    label: str
    path: str
    dots: Dots
    colour: int
    dash: str
    note: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart to draw. `hidden` counts values that a logarithmic axis cannot show."""

    lines: Sequence[Drawn]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    hidden: int = 0
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


@dataclass
class _Axis:
    """Values to pixels."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False
    ticks: list[float] = field(default_factory=list)

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(one) if self.log else one for one in (self.low, self.high, value))
        return round(self.begin + (at - low) / (high - low) * (self.end - self.begin), 1)


def chart(lines: Sequence[Line], *, log: bool = False, x_text: Callable[[float], str] | None = None) -> Chart | None:
    """The lines on common axes; None where there is no value to draw. `log`: a logarithmic scale for the values."""
    n_all = sum(len(piece) for line in lines for piece in line.pieces)
    if log:
        lines = [Line(one.label, [*_positive(one.pieces)], one.colour, one.note) for one in lines]
    points = [point for line in lines for piece in line.pieces for point in piece]
    if not points:
        return None
    x = _axis([point[0] for point in points], _LEFT, WIDTH - _RIGHT, tight=True)
    y = _axis([point[1] for point in points], HEIGHT - _BOTTOM, _TOP, log=log)
    drawn = [_drawn(line, x, y) for line in lines]
    x_ticks = [Tick(x(value), (x_text or short)(value)) for value in x.ticks]
    return Chart(drawn, x_ticks, [Tick(y(value), short(value)) for value in y.ticks], n_all - len(points))


def _drawn(line: Line, x: _Axis, y: _Axis) -> Drawn:
    path, dots = [], []
    for piece in line.pieces:
        placed = [(x(one), y(other)) for one, other in piece]
        if len(set(placed)) == 1:
            dots.append(placed[0])
        elif placed:
            path.append("M" + "L".join(f"{one:g} {other:g}" for one, other in placed))
    dash = _DASHES[line.colour // _N_COLOURS % len(_DASHES)]
    return Drawn(line.label, "".join(path), dots, line.colour % _N_COLOURS + 1, dash, line.note)


def _positive(pieces: Sequence[Dots]) -> Iterator[Dots]:
    """The pieces, broken where a value has no logarithm, or one whose powers of ten no float holds."""
    for piece in pieces:
        kept: list[tuple[float, float]] = []
        for point in piece:
            if 1e-300 < point[1] < 1e300:
                kept.append(point)
            elif kept:
                yield kept
                kept = []
        if kept:
            yield kept


def _axis(values: Sequence[float], begin: float, end: float, *, log: bool = False, tight: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if log:
        ticks = log_ticks(low, high)
        return _Axis(min(low, ticks[0]), max(high, ticks[-1], low * 1.0001), begin, end, True, ticks)
    if low == high:
        room = abs(low) * 0.05 or 1.0
        low, high = (low - room, high + room) if not tight else (low, high + room)
    step = round_step((high - low) / 5)
    if not tight:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return _Axis(low, high, begin, end, ticks=[number * step for number in range(first, last + 1)])


def round_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 1e-300 else 1e-300
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around `low` to `high`, thinned to at most seven; over less than two decades 2 and 5 times them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    if last - first <= 2:
        marks = [factor * 10.0**power for power in range(first, last) for factor in (1, 2, 5)] + [10.0**last]
        below = max((index for index, mark in enumerate(marks) if mark <= low), default=0)
        above = min((index for index, mark in enumerate(marks) if mark >= high), default=len(marks) - 1)
        return marks[below : max(above, below + 1) + 1]
    every = -(-(last - first) // 6)
    return [10.0**power for power in range(first, last + every, every)]


def short(value: float) -> str:
    """A value for an axis: 12k, 1.5M, 0.02, 3e-05."""
    size = abs(value)
    if size >= 1e15 or (0 < size < 1e-4):
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    return f"{value:.6g}"
