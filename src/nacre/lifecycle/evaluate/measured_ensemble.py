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
    beside = {
        name: _beside(metrics.class_rows(true, one.argmax(1), n_names), ours, setting) for name, one in systems.items()
    }
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
    """One system, and what the mean is better by on the same rows."""

    accuracy: Interval
    macro_f1: Interval
    gap: Difference

    def as_dict(self) -> dict[str, Any]:
        names = ("accuracy", "macro_f1", "ensemble_minus_this")
        return dict(zip(names, (one.as_dict() for one in (self.accuracy, self.macro_f1, self.gap)), strict=True))


def _beside(rows: Floats, ours: Floats, setting: Setting) -> _Beside:
    right = interval(rows, metrics.accuracy_of_sums, setting.bootstrap)
    macro = interval(rows, metrics.macro_f1_of_sums, setting.bootstrap)
    return _Beside(right, macro, paired(rows, ours, metrics.accuracy_of_sums, setting.bootstrap))


def _table(beside: Mapping[str, _Beside], words: Words) -> Table:
    head = [
        words(key) for key in ("system", "accuracy", "interval", "macro_f1", "against_ensemble", "interval", "p_value")
    ]
    rows = [
        (
            words.name(name), percent(one.accuracy.value), " … ".join(ends(one.accuracy, "percent")),
            percent(one.macro_f1.value), f"{100 * one.gap.value:+.1f}",
            f"{100 * one.gap.low:+.1f} … {100 * one.gap.high:+.1f}", f"{one.gap.p_value:.3f}",
        )
        for name, one in beside.items()
    ]  # fmt: skip
    return Table("systems", head, rows, words("about_systems"))
