"""Charts as inline SVG, written by hand: text stays text, colours are the page's variables (light, dark, print).

Sizes are in pixels of the drawing. Nothing is clipped, and no label lies on another one or on an interval where there
is room beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nacre.lifecycle.evaluate.heatmap import text_width
from nacre.lifecycle.evaluate.markup import text

# Where the largest is over this many times the smallest, a linear axis would show one point and a heap.
LOG_FROM = 30.0
_FONT = 13.0


@dataclass(frozen=True)
class Point:
    """A tier in the chart of quality: shares in 0..1, `x` None where it is unknown."""

    label: str
    y: float
    low: float
    high: float
    x: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Span:
    """A tier in a chart of ranges: one value, or two of which the first is the main one."""

    label: str
    value: float
    shown: str
    second: float | None = None
    strong: bool = False


def is_log(values: Sequence[float]) -> bool:
    """Whether positive values differ by orders of magnitude."""
    return len(values) > 1 and min(values) > 0 and max(values) > LOG_FROM * min(values)


@dataclass(frozen=True)
class _Axis:
    """Maps values to pixels from `start` to `end`, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    ticks: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.log else float
        low, high = scale(self.low), scale(self.high)
        share = (scale(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def _axis(values: Sequence[float], start: float, end: float, *, log: bool = False, zero: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        last = last if last > first else first + 1
        every = max(1, math.ceil((last - first) / 6))
        ticks = tuple(10.0**power for power in range(first, last + 1, every))
        return _Axis(10.0**first, 10.0**last, start, end, True, ticks)
    low = 0.0 if zero else low
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 1e-9)
    step = _step((high - low + 2 * room) / 5)
    bottom = 0.0 if zero else math.floor((low - room) / step) * step
    top = math.ceil((high + room) / step) * step
    ticks = tuple(bottom + index * step for index in range(round((top - bottom) / step) + 1))
    return _Axis(bottom, top, start, end, False, ticks)


def _share_axis(shares: Sequence[float], start: float, end: float) -> _Axis:
    """An axis of shares: it ends at 0 and at 1, which no score passes."""
    axis = _axis(shares, start, end)
    ticks = tuple(tick for tick in axis.ticks if -1e-9 <= tick <= 1 + 1e-9)
    return _Axis(max(axis.low, 0.0), min(axis.high, 1.0), start, end, False, ticks)


def _step(rough: float) -> float:
    """The nearest step of 1, 2, 2.5 or 5 times a power of ten that is no smaller."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough * (1 - 1e-9))


@dataclass(frozen=True)
class QualityWords:
    """The texts of the chart of quality."""

    alt: str
    y: str
    x: str
    unknown: str


_WIDTH, _HEIGHT = 760.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 20.0, 30.0, 62.0


def quality(points: Sequence[Point], band: tuple[float, float] | None, words: QualityWords) -> str:
    """Scores with intervals over cost; those of unknown cost stand in columns of their own at the right.

    `band` is the interval of the best. Returns an <svg>.
    """
    known = [point for point in points if point.x is not None]
    unknown = [point for point in points if point.x is None]
    right = _WIDTH - _RIGHT
    width = right - _LEFT if not known else min(110.0 * len(unknown), 0.55 * (right - _LEFT)) if unknown else 0.0
    split = right - width
    end = split - (24.0 if unknown and known else 0.0)
    y = _share_axis([v for p in points for v in (p.low, p.high)], _HEIGHT - _BOTTOM, _TOP)
    costs = [point.x for point in known if point.x is not None]
    log = bool(costs) and is_log(costs)
    x = _axis(costs, _LEFT + 12, end - 12, log=log, zero=not log) if costs else None
    placed = [(x(p.x), p) for p in known if x is not None and p.x is not None]
    columns = [(split + width * (index + 0.5) / len(unknown), p) for index, p in enumerate(unknown)]
    parts = [_band(band, y, right), _rows(y, right), _caption(words.y, _LEFT - 40, 14.0, "start")]
    if x is not None:
        parts.append(_ticks(x, (_LEFT + end) / 2, words.x))
    parts += [_column(at, point) for at, point in columns]
    if columns:
        parts.append(_caption(words.unknown, split + width / 2, _HEIGHT - 12, "middle"))
    if columns and placed:
        parts.append(f'<path class="edge" d="M{split - 12:.1f} {_TOP}V{_HEIGHT - _BOTTOM:.1f}"/>')
    parts += [_dot(at, point, y) for at, point in [*placed, *columns]]
    parts += _labels(placed, y, end)
    return _svg(_WIDTH, _HEIGHT, words.alt, parts, "chart wide")


def _rows(y: _Axis, right: float) -> str:
    digits = 0 if all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in y.ticks) else 1
    lines = "".join(f'<path d="M{_LEFT} {y(tick):.1f}H{right:.1f}"/>' for tick in y.ticks)
    names = "".join(
        f'<text x="{_LEFT - 8:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.{digits}f}</text>'
        for tick in y.ticks
    )
    return f'<g class="grid">{lines}</g><g class="ticks">{names}</g>'


def _ticks(x: _Axis, middle: float, name: str) -> str:
    base = _HEIGHT - _BOTTOM
    marks = "".join(
        f'<path d="M{x(tick):.1f} {base:.1f}v5"/><text x="{x(tick):.1f}" y="{base + 20:.1f}" text-anchor="middle">'
        f"{tick:.12g}</text>"
        for tick in x.ticks
    )
    return f'<g class="ticks">{marks}</g>{_caption(name, middle, _HEIGHT - 12, "middle")}'


def _caption(name: str, x: float, y: float, anchor: str) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(name)}</text>'


def _column(at: float, point: Point) -> str:
    kind = "name strong" if point.strong else "name"
    return (
        f'<text class="{kind}" x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 20:.1f}" text-anchor="middle">'
        f"{text(point.label)}</text>"
    )


def _band(band: tuple[float, float] | None, y: _Axis, right: float) -> str:
    if band is None:
        return ""
    top = y(band[1])
    wide, high = right - _LEFT, max(y(band[0]) - top, 1)
    return f'<rect class="band" x="{_LEFT}" y="{top:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'


def _dot(at: float, point: Point, y: _Axis) -> str:
    kind = ' class="mark strong"' if point.strong else ' class="mark"'
    return (
        f'<g{kind}><path d="M{at:.1f} {y(point.low):.1f}V{y(point.high):.1f}"/>'
        f'<circle cx="{at:.1f}" cy="{y(point.y):.1f}" r="{6 if point.strong else 5}"/></g>'
    )


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def over(self, other: _Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)


@dataclass
class _Places:
    """Where a label may stand: beside its dot, where it covers least of what is there already."""

    end: float
    taken: list[_Box] = field(default_factory=list)

    def best(self, at: float, height: float, width: float) -> tuple[float, float, str]:
        def box(option: tuple[float, float, str]) -> _Box:
            left = option[0] - (width if option[2] == "end" else 0.0)
            return _Box(left - 2, option[1] - 12, left + width + 2, option[1] + 4)

        options = [
            (at + side * 11, height + 4 + down, "start" if side > 0 else "end")
            for down in (0, -15, 15, -28, 28)
            for side in (1, -1)
        ]

        def cost(option: tuple[float, float, str]) -> float:
            place = box(option)
            outside = max(0.0, _LEFT - place.left) + max(0.0, place.right - self.end)
            return sum(place.over(other) for other in self.taken) + 100 * outside

        chosen = min(options, key=cost)
        self.taken.append(box(chosen))
        return chosen


def _labels(placed: Sequence[tuple[float, Point]], y: _Axis, end: float) -> list[str]:
    places = _Places(end)
    for at, point in placed:
        places.taken.append(_Box(at - 3, y(point.high), at + 3, y(point.low)))
        places.taken.append(_Box(at - 7, y(point.y) - 7, at + 7, y(point.y) + 7))
    drawn = []
    for at, point in placed:
        left, height, anchor = places.best(at, y(point.y), text_width(point.label, _FONT))
        kind = "name strong" if point.strong else "name"
        drawn.append(
            f'<text class="{kind}" x="{left:.1f}" y="{height:.1f}" text-anchor="{anchor}">{text(point.label)}</text>'
        )
    return drawn


_ROW, _RANGE_WIDTH = 32.0, 500.0


def ranges(spans: Sequence[Span], alt: str) -> str:
    """One line per tier from the left edge to its value, on an axis from 0, or by powers of ten (`is_log`)."""
    values = [v for span in spans for v in (span.value, span.second) if v is not None]
    log = is_log([v for v in values if v > 0]) and min(values) > 0
    left = max(text_width(span.label, _FONT) for span in spans) + 14
    right = _RANGE_WIDTH - max(text_width(span.shown, _FONT) for span in spans) - 20
    x = _axis(values, left, right, log=log, zero=not log)
    base = 8 + _ROW * len(spans)
    parts = [f'<g class="grid">{"".join(f"<path d={chr(34)}M{x(t):.1f} 4V{base:.1f}{chr(34)}/>" for t in x.ticks)}</g>']
    names = "".join(
        f'<text x="{x(tick):.1f}" y="{base + 18:.1f}" text-anchor="middle">{tick:,.12g}</text>' for tick in x.ticks
    )
    parts.append(f'<g class="ticks">{names}</g>')
    parts += [_range(span, 8 + _ROW * (index + 0.5), x, left) for index, span in enumerate(spans)]
    return _svg(_RANGE_WIDTH, base + 28, alt, parts, "chart")


def _range(span: Span, height: float, x: _Axis, left: float) -> str:
    kind = " strong" if span.strong else ""
    ring = ""
    last = span.value
    if span.second is not None:
        last = max(span.value, span.second)
        ring = (
            f'<path class="tail" d="M{x(span.value):.1f} {height:.1f}H{x(span.second):.1f}"/>'
            f'<circle class="ring" cx="{x(span.second):.1f}" cy="{height:.1f}" r="4"/>'
        )
    return (
        f'<text class="name{kind}" x="{left - 12:.1f}" y="{height + 4:.1f}" text-anchor="end">{text(span.label)}</text>'
        f'<g class="mark{kind}"><path class="stem" d="M{left:.1f} {height:.1f}H{x(span.value):.1f}"/>{ring}'
        f'<circle cx="{x(span.value):.1f}" cy="{height:.1f}" r="5"/></g>'
        f'<text class="value" x="{x(last) + 12:.1f}" y="{height + 4:.1f}">{text(span.shown)}</text>'
    )


def _svg(width: float, height: float, alt: str, parts: Sequence[str], kind: str) -> str:
    return (
        f'<svg class="{kind}" role="img" aria-label="{text(alt)}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"{''.join(parts)}</svg>"
    )
