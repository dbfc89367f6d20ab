"""From predictions to figures and report, without torch: classes and entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.data.rows import join_tokens
from nacre.errors import DataError
from nacre.lifecycle.evaluate.content import ClassRow, Comparison, Figure, Language, Mistake, Report
from nacre.lifecycle.evaluate.markup import ends, percent
from nacre.lifecycle.evaluate.testset import Baseline, Labels
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics import classification as metrics
from nacre.metrics.bootstrap import Bootstrap, Difference, Interval, interval, paired, wilson
from nacre.metrics.entities import (
    entity_rows,
    entity_scores,
    malformed,
    micro_f1_of_sums,
    read_entities,
    scheme_of,
)

Floats = NDArray[np.float64]
MISTAKES = 60
WORST_ROCS = 3


@dataclass(frozen=True)
class Measured:
    """Figures for `metrics.json` and the record, and the report that shows them."""

    figures: dict[str, Any]
    report: Report


@dataclass(frozen=True)
class Setting:
    """How to measure and what to call things. `notes` were counted before (cut texts, dropped rows)."""

    title: str
    language: Language = "en"
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    notes: tuple[str, ...] = ()


def said(words: Words, found: Interval, style: Any = "percent") -> str:
    """The interval in words."""
    low, high = ends(found, style)
    return words("interval_note", level=f"{100 * found.level:g}", low=low, high=high)


def measurement(setting: Setting, n: int) -> dict[str, str]:
    """How the intervals were made, for the report."""
    how = setting.bootstrap
    return {"n": f"{n:,}", "bootstrap": f"{how.resamples:,} × {how.method}", "seed": str(how.seed)}


def classification(
    texts: Sequence[str], labels: Labels, scores: Floats, setting: Setting, baseline: Baseline | None = None
) -> Measured:
    """Accuracy, F1, AUC, calibration and their report from probabilities (N, C) over the model's classes."""
    words, n_names = Words(setting.language), len(labels.names)
    true, predicted = np.array(labels.true), scores.argmax(axis=1)
    rows = metrics.class_rows(true, predicted, n_names)
    right = interval(rows, metrics.accuracy_of_sums, setting.bootstrap)
    macro = interval(rows, metrics.macro_f1_of_sums, setting.bootstrap)
    matrix = metrics.confusion_matrix(true, predicted, n_names)
    bins = metrics.calibration(np.clip(scores.max(axis=1), 0, 1), predicted == true)
    curves, area, undefined = _curves(true, scores, labels)
    majority = float(np.bincount(true).max() / len(true))
    figures: dict[str, Any] = {
        "examples": len(true),
        "accuracy": right.as_dict(),
        "accuracy_wilson": wilson(int((predicted == true).sum()), len(true), setting.bootstrap.level).as_dict(),
        "macro_f1_interval": macro.as_dict(),
        **metrics.averages(matrix),
        "auc": area,
        "auc_undefined_classes": list(undefined),
        "calibration_error": bins.error,
        "majority_share": majority,
        "unseen_labels": {"rows": labels.unseen, "labels": list(labels.unseen_names)},
        "absent_classes": list(labels.absent_names),
        "labels": list(labels.names[: labels.known]),
    }
    comparison = _against(baseline, labels, rows, setting)
    if comparison:
        found = {"accuracy": comparison.baseline_value, "difference": comparison.difference.as_dict()}
        figures["baseline"] = {"name": comparison.baseline} | found
    verdict = words(
        "verdict_classify", value=percent(right.value), n=f"{len(true):,}", interval=said(words, right)
    ) + compared(comparison, words)
    report = Report(
        title=setting.title,
        verdict=verdict,
        language=setting.language,
        figures=[
            Figure("accuracy", right),
            Figure("macro_f1", macro),
            *([Figure("auc" if labels.known == 2 else "auc_macro", area, "number")] if area is not None else []),
            Figure("calibration_error", bins.error),
            Figure("majority", majority),
        ],
        notes=[*setting.notes, *_label_notes(labels, undefined, words)],
        comparison=comparison,
        rocs=curves,
        labels=labels.names,
        confusion=matrix,
        classes=_class_rows(matrix, labels.names),
        calibration=bins,
        mistakes=_mistakes(texts, labels, predicted, scores),
        settings=measurement(setting, len(true)),
    )
    return Measured(figures, report)


def _curves(
    true: NDArray[Any], scores: Floats, labels: Labels
) -> tuple[dict[str, metrics.Roc], float | None, tuple[str, ...]]:
    """Curves to draw, the area, and the classes it leaves out. Rows with unseen labels are no example of any class."""
    known = true < labels.known
    true, scores = true[known], scores[known]
    if len(np.unique(true)) < 2:
        return {}, None, labels.names[: labels.known]
    if labels.known == 2:
        curve = metrics.roc(true == 1, scores[:, 1])
        return {labels.names[1]: curve}, curve.auc, ()
    found = metrics.one_vs_rest(true, scores)
    worst = sorted(found.per_class, key=lambda index: (found.per_class[index], index))[:WORST_ROCS]
    drawn = {labels.names[index]: metrics.roc(true == index, scores[:, index]) for index in worst}
    return {"micro_roc": found.micro, **drawn}, found.macro, tuple(labels.names[index] for index in found.undefined)


def _against(baseline: Baseline | None, labels: Labels, rows: Floats, setting: Setting) -> Comparison | None:
    if baseline is None:
        return None
    hits = np.array([labels.names[index] for index in labels.true]) == np.array(baseline.predicted)
    pair = [np.column_stack([one, np.ones(len(one))]) for one in (hits, rows[:, : len(labels.names)].sum(axis=1))]
    difference = paired(pair[0], pair[1], lambda sums: sums[:, 0] / sums[:, 1], setting.bootstrap)
    return Comparison(baseline.name, "accuracy", float(hits.mean()), difference)


def compared(comparison: Comparison | None, words: Words) -> str:
    """The comparison as a sentence; "" where there is none."""
    if comparison is None:
        return ""
    gap: Difference = comparison.difference
    key = "verdict_even" if gap.low <= 0 <= gap.high else "verdict_better" if gap.value > 0 else "verdict_worse"
    points = f"{100 * gap.value:+.1f}" if key == "verdict_even" else f"{100 * abs(gap.value):.1f}"
    blank = "" if words.language == "zh" else " "
    return blank + words(key, points=points, baseline=comparison.baseline, p=f"{gap.p_value:.3f}")


def _label_notes(labels: Labels, undefined: Sequence[str], words: Words) -> list[str]:
    notes = []
    if labels.unseen:
        notes.append(words("note_unseen", n=labels.unseen, labels=", ".join(labels.unseen_names[:8])))
    if labels.absent_names:
        names = ", ".join(labels.absent_names[:8])
        notes.append(words("note_absent", n=len(labels.absent_names), labels=names))
    if undefined:
        notes.append(words("note_undefined", n=len(undefined)))
    return notes


def _class_rows(matrix: metrics.Ints, names: Sequence[str]) -> list[ClassRow]:
    found = metrics.class_scores(matrix)
    columns = (found.precision.tolist(), found.recall.tolist(), found.f1.tolist(), found.support.tolist())
    return [ClassRow(name, *values) for name, *values in zip(names, *columns, strict=True)]


def _mistakes(texts: Sequence[str], labels: Labels, predicted: NDArray[Any], scores: Floats) -> list[Mistake]:
    wrong = np.flatnonzero(predicted != np.array(labels.true))
    order = wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")][:MISTAKES]
    return [
        Mistake(texts[i], labels.names[labels.true[i]], labels.names[int(predicted[i])], float(scores[i].max()))
        for i in order.tolist()
    ]


def tagging(
    tokens: Sequence[Sequence[str]],
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    setting: Setting,
) -> Measured:
    """Entity scores under both readings of tags, resampled by sentence."""
    words, scheme = Words(setting.language), scheme_of(true)
    counted = entity_rows(true, predicted, scheme)
    found, strict = entity_scores(counted), entity_scores(entity_rows(true, predicted, scheme, "strict"))
    if not counted.rows[:, 2 * len(counted.kinds) :].any():
        raise DataError("no test row holds an entity", remedy="give test data whose tags are not all O")
    f1 = interval(counted.rows, micro_f1_of_sums, setting.bootstrap)
    hits = np.array([sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(true, predicted, strict=True)])
    sizes = np.array([len(tags) for tags in true])
    broken = malformed(predicted, scheme)
    figures: dict[str, Any] = {
        "sentences": len(true),
        "scheme": scheme,
        "entity_f1": f1.as_dict(),
        "entity_precision": found.precision,
        "entity_recall": found.recall,
        "entity_macro_f1": found.macro_f1,
        "entity_f1_strict_reading": strict.f1,
        "per_kind": {
            kind: {"precision": row[0], "recall": row[1], "f1": row[2], "support": row[3]}
            for kind, row in found.per_kind.items()
        },
        "token_accuracy": float(hits.sum() / sizes.sum()),
        "malformed_entities": broken,
    }
    notes = [*setting.notes, *([words("note_malformed", n=broken)] if broken else [])]
    report = Report(
        title=setting.title,
        verdict=words("verdict_tag", value=percent(f1.value), n=f"{len(true):,}", interval=said(words, f1)),
        language=setting.language,
        figures=[
            Figure("entity_f1", f1),
            Figure("entity_precision", found.precision),
            Figure("entity_recall", found.recall),
            Figure("macro_f1", found.macro_f1),
        ],
        notes=notes,
        classes=[ClassRow(kind, *row) for kind, row in found.per_kind.items()],
        mistakes=_wrong_entities(tokens, true, predicted),
        settings=measurement(setting, len(true)) | {"scheme": scheme},
    )
    return Measured(figures, report)


def _wrong_entities(
    tokens: Sequence[Sequence[str]], true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> list[Mistake]:
    def shown(words: Sequence[str], tags: Sequence[str]) -> str:
        spans = read_entities(tags)
        return " · ".join(f"{join_tokens(list(words[one.start : one.end]))} {one.kind}" for one in spans) or "–"

    wrong = [
        Mistake(join_tokens(list(words)), shown(words, gold), shown(words, guess))
        for words, gold, guess in zip(tokens, true, predicted, strict=True)
        if set(read_entities(gold)) != set(read_entities(guess))
    ]
    return wrong[:MISTAKES]


def scalars(figures: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | int | str | bool | None]:
    """The named figures as plain values, an interval as three: what a lineage record keeps."""
    kept: dict[str, float | int | str | bool | None] = {}
    for name in names:
        value = figures.get(name)
        if isinstance(value, Mapping):
            kept |= {name: round(value["value"], 6)}
            kept |= {f"{name}_low": round(value["low"], 6), f"{name}_high": round(value["high"], 6)}
        elif value is not None:
            kept[name] = round(value, 6) if isinstance(value, float) else value
    return kept
