"""The work behind `evaluate.forgetting`. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacre.data.write import write_json, write_jsonl
from nacre.lifecycle.evaluate import origin, report
from nacre.lifecycle.evaluate.content import Ancestor
from nacre.lifecycle.evaluate.forgetting import STAGES, TASKS, ForgettingConfig
from nacre.lifecycle.evaluate.measured import scalars
from nacre.lifecycle.evaluate.measured_forgetting import Learnt, forgetting, names_of
from nacre.lifecycle.evaluate.predict import Model, class_probabilities
from nacre.lifecycle.evaluate.testset import Row, field_of, index_labels, read_rows, row_id
from nacre.lifecycle.evaluate.worker import context_of, cut_notes, encodable, load_model, setting_of
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig

Floats = NDArray[np.float64]


def evaluate_forgetting(config: ForgettingConfig, work: Work) -> Mapping[str, Scalar]:
    """Each stage's model answers the tests of all tasks so far."""
    models = [work.inputs[name] for name in STAGES if name in work.inputs]
    tasks = [work.inputs[name] for name in TASKS if name in work.inputs]
    tests = [read_rows(data, config.split, config.limit) for data in tasks]
    untold: list[list[Floats]] = [[] for _ in tasks]
    told: list[list[Floats]] = [[] for _ in tasks]
    answers: list[Row] = []
    notes: list[str] = []
    for stage, folder in enumerate(models):
        own = config.answers == "own"
        for task in [stage] if own else range(stage + 1):
            work.progress.note("asked", stage=stage + 1, task=task + 1)
            member = replace(work, inputs={"model": folder, "data": tasks[task]})
            model = load_model(config, member, head="classify")
            found, said = _asked(config, member, model, tests[task])
            answers += _rows(tests[task], found, (stage + 1, task + 1))
            # With an own model per task nothing is asked anew after later stages: the answers are the same.
            for right, predicted in zip((untold, told), found, strict=True):
                hits = np.array([one == str(row["label"]) for one, row in zip(predicted, tests[task], strict=True)])
                right[task] += [hits.astype(np.float64)] * (len(models) - stage if own else 1)
            notes += [f"{origin.title_of(folder)}, {origin.title_of(tasks[task])}: {one}" for one in said]
    titles = [origin.title_of(folder) for folder in models], [origin.title_of(data) for data in tasks]
    learnt = Learnt(*titles, [np.stack(one) for one in untold], [np.stack(one) for one in told])
    setting = setting_of(config, replace(work, inputs={"model": models[-1]}), list(dict.fromkeys(notes)))
    measured = forgetting(learnt, setting)
    below = [node for folder in models if (node := origin.lineage(folder)) is not None]
    page = replace(
        measured.report,
        runs=[run for folder in models for run in origin.runs(folder)],
        lineage=Ancestor(origin.title_of(models[-1]), "model", parents=below[-1].parents) if below else None,
        anatomy=origin.anatomy(models[-1]),
    )
    write_jsonl(work.out / "predictions.jsonl", answers)
    write_json(work.out / "metrics.json", measured.figures)
    report.write(page, work.out / "report.html")
    return {"tasks": len(tasks)} | scalars(measured.figures, names_of(measured.figures))


def task_labels(data: Path, rows: Sequence[Row]) -> set[str]:
    """The classes of a task: its `labels.json`, else those of its test rows."""
    file = data / "labels.json"
    if file.is_file():
        return {str(one) for one in json.loads(file.read_text(encoding="utf-8"))}
    return {str(row["label"]) for row in rows}


def _asked(
    config: ForgettingConfig, work: Work, model: Model, rows: Sequence[Row]
) -> tuple[tuple[list[str], list[str]], list[str]]:
    """The predicted classes among all, and among those of the task; and what was not read."""
    data, classes = work.inputs["data"], model.kernel.config.labels
    labels = index_labels(field_of(rows, "label", data), classes)
    context = context_of(config, work, model)
    objective = Classify(model.words, classes, ClassifyConfig(context=context))
    answers = class_probabilities(model, objective, encodable(rows, labels))
    scores, mine = np.stack(answers.values), task_labels(data, rows)
    within = np.array([label in mine for label in classes])
    both = [[classes[int(place)] for place in one.argmax(1)] for one in (scores, np.where(within, scores, -1.0))]
    return (both[0], both[1]), cut_notes(config, context, answers)


def _rows(rows: Sequence[Row], found: tuple[list[str], list[str]], place: tuple[int, int]) -> list[Row]:
    stage, task = place
    return [
        {
            "stage": stage,
            "task": task,
            "id": row_id(row, number),
            "label": str(row["label"]),
            "predicted": one,
            "told": other,
        }
        for number, (row, one, other) in enumerate(zip(rows, *found, strict=True), 1)
    ]
