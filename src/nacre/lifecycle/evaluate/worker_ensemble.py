"""The work behind `evaluate.ensemble`. Imports torch and scikit-learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.data.write import write_json, write_jsonl
from nacre.errors import CheckpointError, DataError
from nacre.lazy import require
from nacre.lifecycle.evaluate import origin, report
from nacre.lifecycle.evaluate.content import Ancestor
from nacre.lifecycle.evaluate.ensemble import MODELS, EnsembleConfig
from nacre.lifecycle.evaluate.measured import scalars
from nacre.lifecycle.evaluate.measured_ensemble import Members, averaged, ensembled, log_features
from nacre.lifecycle.evaluate.predict import Answers, Model, class_probabilities
from nacre.lifecycle.evaluate.testset import Labels, Row, field_of, index_labels, read_rows, row_id
from nacre.lifecycle.evaluate.words import Words
from nacre.lifecycle.evaluate.worker import context_of, cut_notes, encodable, load_model, setting_of
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig

Floats = NDArray[np.float64]


def evaluate_ensemble(config: EnsembleConfig, work: Work) -> Mapping[str, Scalar]:
    """Each model reads the rows in its own way; what they say of the classes is averaged, and stacked."""
    data = work.inputs["data"]
    rows, has_valid = read_rows(data, config.split, config.limit), bool(list(data.glob(f"{config.validation}.jsonl*")))
    valid = read_rows(data, config.validation) if has_valid and config.validation != config.split else []
    texts = [str(one) for one in field_of(rows, "text", data)]
    folders = [work.inputs[name] for name in MODELS if name in work.inputs]
    names = _distinct([origin.title_of(folder) for folder in folders])
    scores: dict[str, Floats] = {}
    held: dict[str, Floats] = {}
    first: tuple[str, ...] = ()
    notes: list[str] = []
    for name, folder in zip(names, folders, strict=True):
        member = replace(work, inputs={"model": folder, "data": data})
        model = load_model(config, member, head="classify")
        classes = model.kernel.config.labels
        first = first or classes
        if set(classes) != set(first):
            odd = sorted(set(classes) ^ set(first))
            raise CheckpointError(
                f"{names[0]} and {name} do not sort into the same classes: only one knows {odd[0]!r}",
                remedy="give classifiers of the same classes; their order may differ",
            )
        work.progress.note("member", name=name)
        found, told = _asked(config, member, model, (rows, valid))
        order = [classes.index(label) for label in first]
        scores[name], held[name] = found.test[:, order], found.valid[:, order]
        notes += [f"{name}: {one}" for one in told]
    labels = index_labels(field_of(rows, "label", data), first)
    stacked, best = None, None
    words = Words(config.language)
    if valid:
        known = index_labels(field_of(valid, "label", data), first)
        best = max(names, key=lambda name: float(np.mean(held[name].argmax(1) == np.array(known.true))))
        notes.append(words("note_best_member", split=config.validation))
        if config.stacking:
            stacked = stack(list(held.values()), known, list(scores.values()), config.inverse_penalty)
            notes.append(words("note_stacking", n=f"{len(valid):,}", split=config.validation))
    setting = setting_of(config, replace(work, inputs={"model": folders[0], "data": data}), notes)
    setting = replace(setting, title=f"{' + '.join(names)} · {origin.title_of(data)}/{config.split}")
    measured = ensembled(texts, labels, Members(scores, stacked, best), setting)
    below = [node for folder in folders if (node := origin.lineage(folder)) is not None]
    page = replace(
        measured.report,
        runs=[run for folder in folders for run in origin.runs(folder)],
        data=origin.data_reports(data),
        lineage=Ancestor(" + ".join(names), "report", parents=below) if below else None,
    )
    write_jsonl(work.out / "predictions.jsonl", _rows(rows, labels, scores))
    write_json(work.out / "metrics.json", measured.figures)
    report.write(page, work.out / "report.html")
    return scalars(
        measured.figures, ("examples", "accuracy", "macro_f1", "auc", "best_on_validation", "gain_over_best")
    )


@dataclass(frozen=True)
class _Scores:
    test: Floats
    valid: Floats


def stack(valid: Sequence[Floats], labels: Labels, test: Sequence[Floats], inverse_penalty: float) -> Floats:
    """(N, C) of a logistic regression over the members' log-probabilities, fitted on validation rows of known classes.

    A class without a validation row gets probability 0. DataError where the rows have one class only.
    """
    true = np.array(labels.true)
    known = true < labels.known
    if len(set(true[known].tolist())) < 2:
        raise DataError("the validation rows have one class: nothing can be stacked", remedy="stacking: false")
    linear = require("sklearn.linear_model").LogisticRegression(C=inverse_penalty, max_iter=2000)
    linear.fit(log_features([one[known] for one in valid]), true[known])
    found = np.zeros((len(test[0]), labels.known))
    found[:, linear.classes_] = linear.predict_proba(log_features(test))
    return found


def _asked(
    config: EnsembleConfig, work: Work, model: Model, both: tuple[Sequence[Row], Sequence[Row]]
) -> tuple[_Scores, list[str]]:
    """One model's probabilities for the measured rows and the validation rows, and what it did not read of them."""
    classes, context = model.kernel.config.labels, context_of(config, work, model)
    found, cut = [], Answers([], Counter())
    for rows in both:
        objective = Classify(model.words, classes, ClassifyConfig(context=context))
        if not rows:
            found.append(np.zeros((0, len(classes))))
            continue
        labels = index_labels(field_of(rows, "label", work.inputs["data"]), classes)
        answers = class_probabilities(model, objective, encodable(rows, labels))
        found.append(np.stack(answers.values))
        cut = answers if rows is both[0] else cut
    return _Scores(*found), cut_notes(config, context, cut)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that differ: those that occur twice are numbered."""
    twice = {name for name, n in Counter(names).items() if n > 1}
    return [f"{name} #{place}" if name in twice else name for place, name in enumerate(names, 1)]


def _rows(rows: Sequence[Row], labels: Labels, scores: Mapping[str, Floats]) -> Iterator[dict[str, Any]]:
    """The mean's answers, and in `members` each one's own."""
    mean, system = averaged(list(scores.values())), f"mean of {len(scores)} models"
    own = {name: one.argmax(1) for name, one in scores.items()}
    for place, (row, true, score) in enumerate(zip(rows, labels.true, mean, strict=True)):
        yield {
            "id": row_id(row, place + 1), "text": row["text"], "label": labels.names[true],
            "predicted": labels.names[int(score.argmax())], "confidence": round(float(score.max()), 6),
            "scores": [round(float(one), 6) for one in score], "system": system,
            "members": {name: labels.names[int(one[place])] for name, one in own.items()},
        }  # fmt: skip
