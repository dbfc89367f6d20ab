"""The confusion matrix as SVG: only cells that hold something are drawn, each with its count as a tooltip.

Written by hand, since a raster would not follow the page's colours and 77 x 77 vector cells are mostly empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from nacre.lifecycle.evaluate.words import Words
from nacre.metrics.classification import Ints

COUNTS_UP_TO = 12  # classes; beyond, numbers in the cells cannot be read
MAX_LABEL = 34


def text_width(text: str, size: float) -> float:
    """Rough width in pixels: a Han character is one em wide, others a little over half."""
    return sum(size if ord(character) > 0x2E80 else 0.56 * size for character in text)


def _short(label: str) -> str:
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"


def heatmap(matrix: Ints, labels: Sequence[str], words: Words) -> str:
    """An <svg>: rows are true classes, strength of colour is the share of the row."""
    n = len(labels)
    cell = 42.0 if n <= COUNTS_UP_TO else max(10.0, min(24.0, 760.0 / n))
    font = 12.0 if n <= 30 else max(7.5, cell * 0.8)
    shown = [_short(label) for label in labels]
    margin = max(text_width(label, font) for label in shown) + 26
    side = cell * n
    parts = [_frame(margin, side, cell, n)]
    parts += [_names(shown, margin, cell, font), _axes(margin, side, words)]
    totals = np.maximum(matrix.sum(axis=1), 1)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        share = matrix[row, column] / totals[row]
        parts.append(_cell(int(row), int(column), int(matrix[row, column]), float(share), labels, margin, cell))
    size = margin + side + 4
    alt = escape(f"{words('confusion')}: {n} × {n}", quote=True)
    style = f"width:{size:.0f}px"
    opening = f'<svg class="heat" role="img" aria-label="{alt}" viewBox="0 0 {size:.1f} {size:.1f}" style="{style}">'
    return opening + "".join(parts) + "</svg>"


def _frame(margin: float, side: float, cell: float, n: int) -> str:
    every = 1 if n <= 30 else 10
    lines = [
        f'<path d="M{margin + i * cell:.1f} {margin:.1f}v{side:.1f}M{margin:.1f} {margin + i * cell:.1f}h{side:.1f}"/>'
        for i in range(0, n + 1, every)
    ]
    box = f'<rect x="{margin:.1f}" y="{margin:.1f}" width="{side:.1f}" height="{side:.1f}"/>'
    return f'<g class="lines">{box}{"".join(lines)}</g>'


def _names(labels: Sequence[str], margin: float, cell: float, font: float) -> str:
    texts = []
    for index, label in enumerate(labels):
        at = margin + (index + 0.5) * cell
        texts.append(f'<text x="{margin - 5:.1f}" y="{at + font * 0.35:.1f}" text-anchor="end">{escape(label)}</text>')
        turned = f"translate({at + font * 0.35:.1f} {margin - 5:.1f}) rotate(-90)"
        texts.append(f'<text transform="{turned}">{escape(label)}</text>')
    return f'<g class="names" font-size="{font:.1f}">{"".join(texts)}</g>'


def _axes(margin: float, side: float, words: Words) -> str:
    middle = margin + side / 2
    true, predicted = escape(words("true")), escape(words("predicted"))
    return (
        f'<g class="axes" font-size="12" text-anchor="middle"><text x="{middle:.1f}" y="12">{predicted}</text>'
        f'<text transform="translate(12 {middle:.1f}) rotate(-90)">{true}</text></g>'
    )


def _cell(row: int, column: int, count: int, share: float, labels: Sequence[str], margin: float, cell: float) -> str:
    kind = "hit" if row == column else "miss"
    # The square root keeps single mistakes visible beside full rows.
    opacity = max(0.25, share if row == column else share**0.5)
    x, y = margin + column * cell, margin + row * cell
    title = escape(f"{labels[row]} → {labels[column]}: {count} ({share:.1%})")
    shape = (
        f'<rect class="{kind}" x="{x + 0.4:.1f}" y="{y + 0.4:.1f}" width="{cell - 0.8:.1f}" height="{cell - 0.8:.1f}" '
        f'fill-opacity="{opacity:.2f}"><title>{title}</title></rect>'
    )
    if len(labels) > COUNTS_UP_TO:
        return shape
    strong = " strong" if opacity > 0.6 else ""
    return shape + f'<text class="n{strong}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}">{count}</text>'
