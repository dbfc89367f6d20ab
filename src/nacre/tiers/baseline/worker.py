"""The work behind the stage of tier 0. Imports scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from nacre.data.read import read
from nacre.data.write import write_json, write_jsonl
from nacre.errors import DataError
from nacre.metrics.bootstrap import wilson
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.baseline.baseline import Examples, Grams, Linear, Search, fit, units_of
from nacre.tiers.baseline.stages import BaselineConfig


def baseline_classify(config: BaselineConfig, work: Work) -> Mapping[str, Scalar]:
    """Fits, predicts the split, writes `predictions.jsonl`, `metrics.json` and the model."""
    data = work.inputs["data"]
    train, valid, test = (_examples(data, split) for split in ("train", "valid", config.split))
    if not train.texts or not test.texts:
        raise DataError(f"{data} holds no rows to train or to test on", remedy="give train.jsonl and the split")
    grams = Grams(units_of(train.texts) if config.units == "auto" else config.units)
    if config.units == "auto":
        work.progress.note("n-grams chosen", units=grams.units)
    chosen = fit(
        train,
        valid,
        Search(grams, config.solver, config.candidates, config.max_features, config.refit, work.seed),
    )
    scores = chosen.model.scores(test.texts)
    predicted = [chosen.model.labels[index] for index in scores.argmax(axis=1)]
    unseen = sum(label not in chosen.model.labels for label in test.labels)
    if unseen:
        work.progress.note("test rows with labels that training lacks, counted as wrong", rows=unseen)
    found = _figures(test, predicted, chosen.model, unseen)
    write_jsonl(work.out / "predictions.jsonl", _rows(data, config.split, test, chosen.model, scores))
    validation = {str(c): value for c, value in chosen.validation.items()}
    write_json(work.out / "metrics.json", {**found, "validation_accuracy": validation})
    chosen.model.save(work.out)
    return found


def _examples(data: Path, split: str) -> Examples:
    file = data / f"{split}.jsonl"
    if not file.is_file():
        return Examples([], [])
    rows = list(read(file))
    for number, row in enumerate(rows, 1):
        for name in ("text", "label"):
            if row.get(name) is None:
                raise DataError(
                    f"{file}, row {number}: the field {name!r} is missing (fields: {', '.join(sorted(row))})",
                    remedy=f"give every row a {name!r}",
                )
    return Examples([str(row["text"]) for row in rows], [str(row["label"]) for row in rows])


def _figures(test: Examples, predicted: list[str], model: Linear, unseen: int) -> dict[str, Scalar]:
    hits = sum(a == b for a, b in zip(test.labels, predicted, strict=True))
    interval = wilson(hits, len(predicted))
    return {
        "examples": len(predicted),
        "accuracy": round(hits / len(predicted), 6),
        "accuracy_low": round(interval.low, 6),
        "accuracy_high": round(interval.high, 6),
        "macro_f1": round(float(f1_score(test.labels, predicted, average="macro", zero_division=0)), 6),
        "c": model.c,
        "units": model.space.grams.units,
        "features": len(model.space.vocabulary),
        "unseen_labels": unseen,
    }


def _rows(data: Path, split: str, test: Examples, model: Linear, scores: Any) -> list[dict[str, Any]]:
    ids = [str(row.get("id", number)) for number, row in enumerate(read(data / f"{split}.jsonl"), 1)]
    name = f"TF-IDF + {'linear SVM' if model.solver == 'svm' else 'logistic regression'}"
    rounded = np.round(scores, 6).tolist()
    return [
        {
            "id": ids[i], "text": test.texts[i], "label": test.labels[i],
            "predicted": model.labels[int(np.argmax(scores[i]))], "scores": rounded[i], "system": name,
        }
        for i in range(len(ids))
    ]  # fmt: skip
