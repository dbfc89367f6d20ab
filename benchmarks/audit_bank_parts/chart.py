"""The plot of p-values of strangers: on the diagonal where p is what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_SIDE, _EDGE = 320, 40
_COLOURS = ("#0b5394", "#b45f06", "#38761d", "#741b47", "#666666")


def write(path: Path, p_values: Mapping[str, Sequence[float]]) -> None:
    """An SVG of the share of strangers with p at most x, for each probe, with the diagonal."""
    size = _SIDE + 2 * _EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size + 140} {size}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="white"/>',
        f'<path d="M{_EDGE} {_EDGE + _SIDE}L{_EDGE + _SIDE} {_EDGE}" stroke="#999" stroke-dasharray="4"/>',
        f'<rect x="{_EDGE}" y="{_EDGE}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#333"/>',
        f'<text x="{_EDGE + _SIDE / 2}" y="{size - 10}" text-anchor="middle">p</text>',
        f'<text x="{_EDGE}" y="{_EDGE - 10}">share of strangers with p or less</text>',
    ]
    for number, (name, values) in enumerate(sorted(p_values.items())):
        colour, ordered = _COLOURS[number % len(_COLOURS)], sorted(values)
        points = [(0.0, 0.0)]
        for rank, value in enumerate(ordered, 1):
            points += [(value, points[-1][1]), (value, rank / len(ordered))]
        points.append((1.0, points[-1][1]))
        line = " ".join(f"{_EDGE + x * _SIDE:.1f},{_EDGE + (1 - y) * _SIDE:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{size - 30}" y="{_EDGE + 16 * (number + 1)}" fill="{colour}">{name}</text>')
    path.write_text("".join([*parts, "</svg>\n"]), encoding="utf-8")
