"""The work behind `tune.crossvalidate`. Imports torch."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from nacre.data.normal import normal
from nacre.data.rows import content
from nacre.data.write import write_json, write_jsonl
from nacre.errors import DataError
from nacre.kernel.model import Kernel
from nacre.metrics.classification import accuracy, averages, confusion_matrix
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, Rows, fit, labels_of, rows_of
from nacre.tiers.tune.folding import CrossvalidateConfig
from nacre.tiers.tune.worker import classifier
from nacre.train.objective import Row

NOTE = (
    "The interval tells how the folds differ. The folds share training rows, so that no unbiased estimate of the "
    "variance exists (Bengio & Grandvalet 2004): it is no interval for a new data set, and as a rule too "
    "narrow for one."
)


@dataclass(frozen=True)
class Over:
    """A figure over folds: its mean, and Student's interval as if the folds were independent."""

    mean: float
    low: float
    high: float
    deviation: float


def crossvalidate_classifier(config: CrossvalidateConfig, work: Work) -> Mapping[str, Scalar]:
    """Fold by fold: a fold that was finished before a kill is read, the one under way resumes at its checkpoint."""
    rows = rows_of(work.inputs["data"], config.tune.limit)
    labels = labels_of(work.inputs["data"])
    fold_of = stratified([content(dict(row)) for row in rows.train], _labels(rows.train), config.folds, work.seed)
    scarce = sum(fold_of.tolist().count(fold) == 0 for fold in range(config.folds))
    if scarce:
        raise DataError(
            f"{len(rows.train)} rows fill only {config.folds - scarce} of {config.folds} folds", remedy="lower folds"
        )
    scores = np.zeros((len(rows.train), len(labels)))
    costs: list[Mapping[str, Any]] = []
    for fold in range(config.folds):
        held_out = np.flatnonzero(fold_of == fold)
        found = _fold(config, work, fold, rows, fold_of)
        scores[held_out] = found["scores"]
        costs.append(found)
    work.spent(tokens=sum(one["tokens"] for one in costs), flops=sum(one["flops"] for one in costs))
    return _written(config, work, rows.train, labels, (fold_of, scores))


def stratified(texts: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """(N,) the fold of each row: every class in every fold as evenly as its rows go. Rows of one text share a fold, so
    that none is predicted by a model that was trained on it."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        places[normal(text)].append(place)
    by_class: defaultdict[str, list[list[int]]] = defaultdict(list)
    for group in places.values():
        by_class[labels[group[0]]].append(group)
    found, rng, next_fold = np.zeros(len(texts), dtype=np.int64), np.random.default_rng(seed), 0
    for label in sorted(by_class):
        groups = by_class[label]
        for number in rng.permutation(len(groups)):
            found[groups[number]] = next_fold
            next_fold = (next_fold + 1) % folds  # goes on from class to class: folds of like size
    return found


def over_folds(values: Sequence[float], level: float) -> Over:
    """Mean, and mean -+ t * deviation / sqrt(folds) with folds - 1 degrees of freedom."""
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(student_t.ppf((1 + level) / 2, len(values) - 1)) * deviation / len(values) ** 0.5
    return Over(mean, mean - half, mean + half, deviation)


def _labels(rows: Sequence[Row]) -> list[str]:
    for number, row in enumerate(rows, 1):
        if row.get("label") is None:
            raise DataError(f"the training rows, row {number}: no label", remedy="give every row a label")
    return [str(row["label"]) for row in rows]


def _fold(config: CrossvalidateConfig, work: Work, fold: int, rows: Rows, fold_of: NDArray[np.int64]) -> dict[str, Any]:
    """The scores of one fold's rows, from a model that never saw them: neither to train nor to choose a checkpoint,
    which the data's own validation split does where there is one."""
    kept = work.scratch / f"fold-{fold}.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    folder = work.scratch / f"fold-{fold}"
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    inner = replace(work, out=out, scratch=folder / "scratch", tokens=None, flops=None, notes=[])
    kernel, objective = classifier(config.tune, inner)
    part = Rows([row for row, one in zip(rows.train, fold_of, strict=True) if one != fold], rows.valid)
    work.progress.note("fold", number=fold + 1, of=config.folds, rows=len(part.train))
    fit(kernel, objective, part, Fit(config.tune.train, balance=config.tune.balance), inner)
    held_out = [row for row, one in zip(rows.train, fold_of, strict=True) if one == fold]
    scores = probabilities(kernel, objective, held_out, config.batch)
    found = {"scores": scores.tolist(), "tokens": inner.tokens or 0, "flops": inner.flops or 0.0}
    write_json(kept, found)
    shutil.rmtree(folder)
    return found


def probabilities(kernel: Kernel, objective: Any, rows: Sequence[Row], batch: int) -> NDArray[np.float64]:
    """(N, C) of a classifier, on the device it is on."""
    kernel.eval()
    examples = [objective.encode(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: -objective.length(examples[place]))
    found = np.zeros((len(rows), len(kernel.config.labels)))
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        collated = objective.collate([examples[place] for place in places], torch.Generator())
        found[places] = objective.predict(kernel, collated.to(next(kernel.parameters()).device)).double().numpy()
    return found


def _written(
    config: CrossvalidateConfig,
    work: Work,
    rows: Sequence[Row],
    labels: Sequence[str],
    found: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> Mapping[str, Scalar]:
    fold_of, scores = found
    index = {label: number for number, label in enumerate(labels)}
    true, predicted = np.array([index[str(row["label"])] for row in rows]), scores.argmax(1)
    system = f"{config.folds} folds"
    write_jsonl(
        work.out / "predictions.jsonl",
        (
            {
                "id": str(row.get("id", place + 1)), "text": row["text"], "label": str(row["label"]),
                "predicted": labels[int(predicted[place])], "confidence": round(float(scores[place].max()), 6),
                "scores": [round(float(one), 6) for one in scores[place]], "fold": int(fold_of[place]) + 1,
                "system": system,
            }
            for place, row in enumerate(rows)
        ),
    )  # fmt: skip
    per_fold = [
        _figures(true[fold_of == fold], predicted[fold_of == fold], len(labels)) for fold in range(config.folds)
    ]
    over = {name: over_folds([one[name] for one in per_fold], config.level) for name in ("accuracy", "macro_f1")}
    pooled = _figures(true, predicted, len(labels))
    told = {name: vars(value) | {"level": config.level} for name, value in over.items()}
    write_json(work.out / "metrics.json", {"folds": per_fold, **told, "pooled": pooled, "note": NOTE})
    work.declare(note=NOTE)
    metrics: dict[str, Scalar] = {"folds": config.folds, "rows": len(rows)}
    for name, value in over.items():
        metrics |= {
            name: round(value.mean, 6),
            f"{name}_low": round(value.low, 6),
            f"{name}_high": round(value.high, 6),
        }
    return metrics


def _figures(true: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> dict[str, float]:
    return {
        "rows": len(true),
        "accuracy": accuracy(true, predicted),
        "macro_f1": averages(confusion_matrix(true, predicted, n_classes))["macro_f1"],
    }
