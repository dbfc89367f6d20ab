"""Curves as inline SVG: text stays text (the browser draws Chinese), colours are CSS variables (light, dark, print).

The bytes depend on the figures only: no date, no random ids. Ids are prefixed per plot, so that many fit one page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nacre.lifecycle.evaluate.content import Run
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics.classification import Calibration, Roc

# Stand-ins that matplotlib draws with and that become CSS variables of the page.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0a0{index}00" for index in range(1, 7))
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid"} | {c: f"s{i}" for i, c in enumerate(_SERIES, 1)}
MAX_POINTS = 600
MAX_ROCS = 5

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "nacre", "font.family": "sans-serif", "font.size": 10,
    "text.color": _INK, "axes.labelcolor": _MUTED, "axes.edgecolor": _GRID,
    "xtick.color": _MUTED, "ytick.color": _MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": _GRID, "grid.linewidth": 0.7,
    "lines.linewidth": 1.7, "lines.solid_capstyle": "round", "axes.axisbelow": True, "path.simplify": False,
}  # fmt: skip


@contextmanager
def _figure(width: float, height: float, columns: int = 1) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the glyphs: that matplotlib's own font lacks them changes nothing.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)
        yield figure, list(axes[0])


def _svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an <svg> element with a text alternative, themed and with ids of its own."""
    buffer = io.StringIO()
    nothing: Mapping[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=dict(nothing))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = text.replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    head = re.match(r"<svg[^>]*>", text)
    assert head is not None  # matplotlib writes one root element
    view = re.search(r'viewBox="([^"]*)"', head.group(0))
    assert view is not None
    opening = f'<svg class="plot" role="img" aria-label="{alt}" viewBox="{view.group(1)}">'
    return opening + text[head.end() :]


def _thin(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    if len(steps) <= MAX_POINTS:
        return steps, values
    kept = np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).astype(int))
    return [steps[i] for i in kept], [values[i] for i in kept]


def series_of(run: Run, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric, in order; of a step that a resumed run logged twice, the later value."""
    points = {
        float(row["step"]): float(row[name])
        for row in run.rows
        if isinstance(row.get("step"), int | float) and isinstance(row.get(name), int | float)
    }
    steps = sorted(step for step in points if np.isfinite(points[step]))
    return steps, [points[step] for step in steps]


def _names(runs: Sequence[Run], word: str) -> list[str]:
    """Metric names that hold `word`, the shortest first: loss before valid_loss."""
    names = {name for run in runs for row in run.rows for name in row if word in name.split("_")}
    return sorted(names, key=lambda name: (len(name), name))


def training_curves(runs: Sequence[Run], words: Words) -> tuple[str, dict[str, int], int, int]:
    """Loss and learning rate over steps. Returns (svg, label -> colour number, steps drawn, steps logged)."""
    legend: dict[str, int] = {}
    drawn = logged = 0
    with _figure(9.0, 3.0, 2) as (figure, (left, right)):
        for run in runs:
            for name in _names([run], "loss"):
                steps, values = series_of(run, name)
                logged += len(steps)
                thin_steps, thin_values = _thin(steps, values)
                drawn += len(thin_steps)
                label = words.name(name) if len(runs) == 1 else f"{run.name} · {words.name(name)}"
                colour = legend.setdefault(label, len(legend) % len(_SERIES) + 1)
                marker = "o" if len(steps) <= 30 else ""
                left.plot(thin_steps, thin_values, color=_SERIES[colour - 1], marker=marker, markersize=3.5)
            for name in _names([run], "lr")[:1]:
                colour = next((number for label, number in legend.items() if label.startswith(run.name)), 1)
                right.plot(*_thin(*series_of(run, name)), color=_SERIES[colour - 1])
        for axes, title in ((left, words("loss")), (right, words("lr"))):
            axes.set_xlabel(words("step"))
            axes.set_title(title, loc="left", fontsize=11, color=_INK)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        alt = f"{words('training')}: {words('loss')}, {words('lr')}"
        return _svg(figure, "training", alt), legend, drawn, logged


def roc_curves(rocs: Mapping[str, Roc], words: Words) -> tuple[str, dict[str, int]]:
    """Up to MAX_ROCS curves over the diagonal of chance. Returns (svg, label with AUC -> colour number)."""
    legend: dict[str, int] = {}
    with _figure(4.6, 4.2) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 4)))
        for number, (label, curve) in enumerate(list(rocs.items())[:MAX_ROCS], 1):
            x, y = _thin(curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist())
            axes.plot(x, y, color=_SERIES[number - 1])
            legend[f"{label} · AUC {curve.auc:.3f}"] = number
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel(words("false_positive_rate"))
        axes.set_ylabel(words("true_positive_rate"))
        alt = "; ".join([words("roc"), *legend]).replace('"', "")
        return _svg(figure, "roc", _attribute(alt)), legend


def calibration_curve(bins: Calibration, words: Words) -> str:
    """Accuracy over confidence, a dot per non-empty bin."""
    with _figure(4.6, 4.2) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 4)))
        full = bins.count > 0
        size = 20 + 260 * bins.count[full] / bins.count.max()
        axes.plot(bins.confidence[full], bins.accuracy[full], color=_SERIES[0], linewidth=1.2)
        dots = {"s": size, "color": _SERIES[0], "alpha": 0.75, "linewidths": 0, "clip_on": False}
        axes.scatter(bins.confidence[full], bins.accuracy[full], **dots)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_xlabel(words("confidence"))
        axes.set_ylabel(words("accuracy"))
        return _svg(figure, "calibration", f"{words('calibration')}: {words('calibration_error')} {bins.error:.3f}")


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
