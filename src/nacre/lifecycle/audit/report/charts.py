"""Drawings of an audit as inline SVG, in the colours of the page: layer against layer, difference by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nacre.lifecycle.audit.words import Words

_LEFT, _TOP, _GAP = 58.0, 46.0, 1.0
_LEAST_WIDTH = 240.0  # room for the name of an axis over a few layers
_LEAST_DARK = 0.3  # share of neurons below which no cell is drawn dark: noise is not stretched into a picture
SCALES = (0.01, 0.1, 0.5, 2**0.5)  # where bars end; the last is the difference of two unrelated matrices of one size


def heat(screen: Mapping[str, Any], words: Words) -> str:
    """(L_a, L_b) of the invariant probe's screen: rows are the subject's layers, columns the reference's."""
    rows, columns, score = screen["a"], screen["b"], screen["score"]
    cell = max(9.0, min(30.0, 620.0 / max(len(columns), len(rows), 1)))
    most = strongest(screen)
    width, height = max(_LEAST_WIDTH, _LEFT + cell * len(columns) + 4), _TOP + cell * len(rows) + 4
    parts = [
        f'<rect class="cell" x="{_LEFT + j * cell:.1f}" y="{_TOP + i * cell:.1f}" width="{cell - _GAP:.1f}" '
        f'height="{cell - _GAP:.1f}" fill-opacity="{max(0.04, value / most):.2f}">'
        f"<title>{row} × {column}: {value:.0%}</title></rect>"
        for i, row in enumerate(rows)
        for j, (column, value) in enumerate(zip(columns, score[i], strict=True))
    ]
    every = max(1, round(22 / cell))
    names = [
        f'<text x="{_LEFT - 6:.1f}" y="{_TOP + (i + 0.5) * cell + 4:.1f}" text-anchor="end">{row}</text>'
        for i, row in enumerate(rows)
        if i % every == 0
    ]
    names += [
        f'<text x="{_LEFT + (j + 0.5) * cell:.1f}" y="{_TOP - 6:.1f}" text-anchor="middle">{column}</text>'
        for j, column in enumerate(columns)
        if j % every == 0
    ]
    across, down = escape(words("axis_reference")), escape(words("axis_subject"))
    middle = _TOP + cell * len(rows) / 2
    axes = (
        f'<text class="axis" x="{_LEFT:.1f}" y="16">{across}</text>'
        f'<text class="axis" transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">{down}</text>'
    )
    return _svg(width, height, words("layers"), axes + "".join(names) + "".join(parts))


def strongest(screen: Mapping[str, Any]) -> float:
    """The share that the strongest cell stands for."""
    return max(_LEAST_DARK, *(float(value) for row in screen["score"] for value in row))


def delta_bars(rows: Sequence[tuple[str, float, str]], words: Words) -> str:
    """A bar for each (label, relative difference, tooltip), up to `scale_of` the rows."""
    line, left, length = 22.0, 92.0, 420.0
    scale = length / scale_of(rows)
    parts = []
    for place, (label, value, title) in enumerate(rows):
        y = 4 + place * line
        wide = min(length, value * scale)
        parts.append(
            f'<g><title>{escape(title)}</title><text x="{left - 8:.0f}" y="{y + 14:.0f}" text-anchor="end">'
            f"{escape(label)}</text>"
            f'<rect class="track" x="{left:.0f}" y="{y + 2:.0f}" width="{length:.0f}" height="15"/>'
            f'<rect class="cell" x="{left:.0f}" y="{y + 2:.0f}" width="{max(1.0, wide):.1f}" height="15"/>'
            f'<text class="value" x="{left + length + 8:.0f}" y="{y + 14:.0f}">{share(value)}</text></g>'
        )
    return _svg(left + length + 78, 8 + line * len(rows), words("delta"), "".join(parts))


def scale_of(rows: Sequence[tuple[str, float, str]]) -> float:
    """Where the bars end: the first of `SCALES` that all of them keep to, else the last."""
    largest = max((value for _, value, _ in rows), default=0.0)
    return next((one for one in SCALES if largest <= one), SCALES[-1])


def by_layer(delta: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, str]]:
    """The mean relative difference of each layer's matrices, in depth order; what is outside the stack by its role."""
    found: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for one in delta:
        place = (-1, str(one["role"])) if one["layer"] is None else (int(one["layer"]), "")
        found.setdefault(place, []).append(one)
    rows = []
    for (layer, role), members in sorted(found.items()):
        mean = sum(float(one["relative"]) for one in members) / len(members)
        told = "; ".join(f"{one['role']} {share(float(one['relative']))}" for one in members)
        rows.append((role or str(layer), mean, told))
    return rows


def share(value: float) -> str:
    """A relative difference in percent, small ones with enough digits to be told from none."""
    if value == 0:
        return "0 %"
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"


def _svg(width: float, height: float, alt: str, content: str) -> str:
    return (
        f'<svg class="audit" role="img" aria-label="{escape(alt, quote=True)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="width:{width:.0f}px">{content}</svg>'
    )
