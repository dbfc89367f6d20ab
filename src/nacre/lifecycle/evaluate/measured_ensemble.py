"""From the probabilities of several classifiers to figures and report, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.lifecycle.evaluate.content import Comparison, Table
from nacre.lifecycle.evaluate.markup import ends, percent
from nacre.lifecycle.evaluate.measured import Measured, Setting, classification, compared, said
from nacre.lifecycle.evaluate.testset import Labels
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics import classification as metrics
from nacre.metrics.bootstrap import Difference, Interval, interval, paired

Floats = NDArray[np.float64]
FLOOR = 1e-6  # of a probability, before its logarithm


@dataclass(frozen=True)
class Members:
    """Probabilities (N, C) of each model by name, of their stacking where there is one, and of which of them was best
    on validation rows."""

    scores: Mapping[str, Floats]
    stacked: Floats | None = None
    best: str | None = None


def averaged(scores: Sequence[Floats]) -> Floats:
    """The mean of probabilities (N, C)."""
    mean: Floats = np.stack(scores).mean(axis=0)
    return mean


def log_features(scores: Sequence[Floats]) -> Floats:
    """(N, members * C) log-probabilities side by side, for stacking."""
    return np.hstack([np.log(np.clip(one, FLOOR, 1.0)) for one in scores])


def ensembled(texts: Sequence[str], labels: Labels, members: Members, setting: Setting) -> Measured:
    """The report of the mean, compared with the best single model, and every system in one table."""
    words, true, n_names = Words(setting.language), np.array(labels.true), len(labels.names)
    mean = averaged(list(members.scores.values()))
    found = classification(texts, labels, mean, setting)
    ours = metrics.class_rows(true, mean.argmax(1), n_names)
    right = interval(ours, metrics.accuracy_of_sums, setting.bootstrap)
    systems = dict(members.scores)
    if members.stacked is not None:
        systems["stacking"] = members.stacked
    rows = {name: metrics.class_rows(true, one.argmax(1), n_names) for name, one in systems.items()}
    first = next(iter(rows.values()))
    beside = {name: _beside(each, first, ours, setting) for name, each in rows.items()}
    comparison = None
    if members.best is not None:
        best = beside[members.best]
        comparison = Comparison(members.best, "accuracy", best.accuracy.value, best.gap)
    verdict = words(
        "verdict_ensemble",
        value=percent(right.value),
        n=f"{len(texts):,}",
        members=len(members.scores),
        interval=said(words, right),
    )
    figures = found.figures | {"members": {name: one.as_dict() for name, one in beside.items()}}
    if comparison is not None:
        figures |= {"best_on_validation": comparison.baseline, "gain_over_best": comparison.difference.as_dict()}
    report = replace(
        found.report,
        verdict=verdict + compared(comparison, words),
        comparison=comparison,
        tables=[_table(beside, words)],
    )
    return Measured(figures, report)


@dataclass(frozen=True)
class _Beside:
    """One system; what it is better by than the first, and the mean than it, on the same rows."""

    accuracy: Interval
    macro_f1: Interval
    over_first: Difference
    gap: Difference

    def as_dict(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy.as_dict(),
            "macro_f1": self.macro_f1.as_dict(),
            "minus_first": self.over_first.as_dict(),
            "ensemble_minus_this": self.gap.as_dict(),
        }


def _beside(rows: Floats, first: Floats, ours: Floats, setting: Setting) -> _Beside:
    right = interval(rows, metrics.accuracy_of_sums, setting.bootstrap)
    macro = interval(rows, metrics.macro_f1_of_sums, setting.bootstrap)
    gaps = [paired(*pair, metrics.accuracy_of_sums, setting.bootstrap) for pair in ((first, rows), (rows, ours))]
    return _Beside(right, macro, *gaps)


def _table(beside: Mapping[str, _Beside], words: Words) -> Table:
    keys = ("system", "accuracy", "interval", "macro_f1", "over_first", "p_value", "against_ensemble", "p_value")
    rows = [
        (
            words.name(name), percent(one.accuracy.value), " … ".join(ends(one.accuracy, "percent")),
            percent(one.macro_f1.value), *_gap(one.over_first), *_gap(one.gap),
        )
        for name, one in beside.items()
    ]  # fmt: skip
    rows[0] = (*rows[0][:4], "", "", *rows[0][6:])  # the first has no difference from itself
    return Table("systems", [words(key) for key in keys], rows, words("about_systems"))


def _gap(one: Difference) -> tuple[str, str]:
    """A difference in points with its interval, and its p-value."""
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} … {100 * one.high:+.1f})", f"{one.p_value:.3f}"
