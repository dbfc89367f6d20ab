"""Figures of merit over arrays: classification, calibration.

Classes are integers 0 .. C-1. Every figure that is a function of sums over examples has its per-example rows
here as well (`class_rows`), so that `bootstrap` can resample it without recomputing it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def _pair(true: Sequence[int] | Ints, predicted: Sequence[int] | Ints) -> tuple[Ints, Ints]:
    first, second = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(
            f"labels and predictions differ in shape: {first.shape} and {second.shape}",
            remedy="give one prediction for every example, in the same order",
        )
    if first.size == 0:
        raise DataError("there is no example to measure", remedy="give a test file with at least one labelled row")
    return first, second


def accuracy(true: Sequence[int] | Ints, predicted: Sequence[int] | Ints) -> float:
    """Share of examples whose prediction is the label."""
    first, second = _pair(true, predicted)
    return float(np.mean(first == second))


def confusion_matrix(true: Sequence[int] | Ints, predicted: Sequence[int] | Ints, n_classes: int) -> Ints:
    """Counts (C, C): row is the true class, column the predicted one."""
    first, second = _pair(true, predicted)
    if min(first.min(), second.min()) < 0 or max(first.max(), second.max()) >= n_classes:
        raise DataError(
            f"a class index lies outside 0 .. {n_classes - 1}", remedy="index labels by the model's list of labels"
        )
    return np.bincount(first * n_classes + second, minlength=n_classes**2).reshape(n_classes, n_classes)


def safe_ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient; 0 where nothing was there to count (scikit-learn's `zero_division=0`)."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


@dataclass(frozen=True)
class ClassScores:
    """Per class, arrays (C,): precision, recall, F1, and how many examples carry the label."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints


def class_scores(confusion: Ints) -> ClassScores:
    """Precision, recall and F1 of every class; 0 where a class was neither there nor predicted."""
    hits = np.diag(confusion).astype(np.float64)
    predicted, true = confusion.sum(axis=0).astype(np.float64), confusion.sum(axis=1).astype(np.float64)
    return ClassScores(
        precision=safe_ratio(hits, predicted),
        recall=safe_ratio(hits, true),
        f1=safe_ratio(2 * hits, predicted + true),
        support=confusion.sum(axis=1),
    )


def averages(confusion: Ints) -> dict[str, float]:
    """Micro, macro and support-weighted precision, recall, F1.

    The macro average runs over classes that occur as label or as prediction (scikit-learn's default), so a class
    that the test set lacks does not count as zero. In single-label tasks every micro average is the accuracy.
    """
    scores = class_scores(confusion)
    present = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    total = float(confusion.sum())
    micro = float(np.trace(confusion)) / total if total else 0.0
    result = {f"micro_{name}": micro for name in ("precision", "recall", "f1")}
    for name in ("precision", "recall", "f1"):
        values: Floats = getattr(scores, name)
        result[f"macro_{name}"] = float(values[present].mean()) if present.any() else 0.0
        result[f"weighted_{name}"] = float((values * scores.support).sum() / total) if total else 0.0
    return result


def class_rows(true: Sequence[int] | Ints, predicted: Sequence[int] | Ints, n_classes: int) -> Floats:
    """Additive rows (N, 3C): hit, predicted and true indicators of every class, for `bootstrap`."""
    first, second = _pair(true, predicted)
    rows = np.zeros((first.size, 3 * n_classes))
    index = np.arange(first.size)
    rows[index, first] = first == second
    rows[index, n_classes + second] = 1
    rows[index, 2 * n_classes + first] = 1
    return rows


def accuracy_of_sums(sums: Floats) -> Floats:
    """Accuracy (R,) from summed `class_rows` (R, 3C)."""
    hits, _, true = np.split(sums, 3, axis=-1)
    return safe_ratio(hits.sum(axis=-1), true.sum(axis=-1))


def macro_f1_of_sums(sums: Floats) -> Floats:
    """Macro F1 (R,) from summed `class_rows` (R, 3C), over the classes present in each resample."""
    hits, predicted, true = np.split(sums, 3, axis=-1)
    scores = safe_ratio(2 * hits, predicted + true)
    present = ((predicted + true) > 0).sum(axis=-1)
    return safe_ratio(scores.sum(axis=-1), present.astype(np.float64))


def worst_pairs(matrix: Ints, limit: int = 20) -> list[tuple[int, int, int, float]]:
    """(true, predicted, count, share of the true class) of the most frequent mistakes, the most frequent first."""
    totals = np.maximum(matrix.sum(axis=1), 1)
    pairs = [(int(i), int(j), int(matrix[i, j])) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j]
    pairs.sort(key=lambda pair: (-pair[2], -pair[2] / totals[pair[0]], pair[0], pair[1]))
    return [(i, j, count, count / float(totals[i])) for i, j, count in pairs[:limit]]


# --- ranking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roc:
    """One ROC curve: rates from (0, 0) to (1, 1), the threshold at each point, the area under it."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    thresholds: Floats
    auc: float


def roc(positive: Sequence[bool] | NDArray[Any], score: Sequence[float] | Floats) -> Roc:
    """The ROC curve of a binary score; DataError when one of the two classes is missing, where it is undefined."""
    from sklearn.metrics import auc, roc_curve

    is_positive = np.asarray(positive, dtype=bool)
    if is_positive.all() or not is_positive.any():
        raise DataError(
            "a ROC curve needs positive and negative examples, and only one kind is there",
            remedy="give a test file that holds both classes",
        )
    false_rate, true_rate, thresholds = roc_curve(is_positive, np.asarray(score, dtype=np.float64))
    return Roc(false_rate, true_rate, thresholds, float(auc(false_rate, true_rate)))


@dataclass(frozen=True)
class OneVsRest:
    """One ROC per class against the rest. `undefined` lists classes without positives or negatives: they are left out
    of `macro` and said."""

    macro: float
    micro: Roc
    per_class: Mapping[int, float]
    undefined: tuple[int, ...]


def one_vs_rest(true: Sequence[int] | Ints, scores: Floats) -> OneVsRest:
    """AUC of every class against the rest, from scores (N, C); the macro mean is unweighted."""
    labels = np.asarray(true, dtype=np.int64)
    n_classes = scores.shape[1]
    counts = np.bincount(labels, minlength=n_classes)
    defined = [index for index in range(n_classes) if 0 < counts[index] < labels.size]
    if not defined:
        raise DataError("every example has the same label", remedy="give a test file with at least two classes")
    per_class = {index: roc(labels == index, scores[:, index]).auc for index in defined}
    indicator = labels[:, None] == np.arange(n_classes)[None, :]
    return OneVsRest(
        macro=float(np.mean(list(per_class.values()))),
        micro=roc(indicator.ravel(), scores.ravel()),
        per_class=per_class,
        undefined=tuple(index for index in range(n_classes) if index not in per_class),
    )


# --- calibration ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Equal-width bins of confidence, arrays (bins,): mean confidence, accuracy, count; and the expected error."""

    confidence: Floats
    accuracy: Floats
    count: Ints
    error: float


def calibration(
    confidence: Sequence[float] | Floats, correct: Sequence[bool] | NDArray[Any], bins: int = 15
) -> Calibration:
    """Expected calibration error over bins ((i-1)/M, i/M].

    Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 2-3.
    """
    values, hits = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if values.shape != hits.shape or values.size == 0:
        raise DataError("calibration needs one confidence per example", remedy="give equally long, non-empty arrays")
    if values.min() < 0 or values.max() > 1:
        raise DataError(
            f"confidences must lie in 0..1 (found {values.min():.4g} .. {values.max():.4g})",
            remedy="give probabilities, not logits or margins",
        )
    index = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    size = count.astype(np.float64)
    mean = safe_ratio(np.bincount(index, weights=values, minlength=bins).astype(np.float64), size)
    share = safe_ratio(np.bincount(index, weights=hits, minlength=bins).astype(np.float64), size)
    return Calibration(mean, share, count, float((size / values.size * np.abs(share - mean)).sum()))
