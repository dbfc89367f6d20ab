"""The work behind the evaluations that sort: load, predict, measure, write. Imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from nacre.data.write import write_json, write_jsonl
from nacre.errors import CheckpointError
from nacre.lifecycle.evaluate import origin, report
from nacre.lifecycle.evaluate.measured import Measured, Setting, classification, scalars, tagging
from nacre.lifecycle.evaluate.predict import Answers, Model, class_probabilities, counts, open_model, tag_names
from nacre.lifecycle.evaluate.stages import EvaluateConfig, ImagesConfig
from nacre.lifecycle.evaluate.testset import (
    Labels,
    Row,
    baseline_predictions,
    field_of,
    index_labels,
    read_rows,
    recorded_objective,
    row_id,
)
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics.bootstrap import Bootstrap
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig, ImageConfig
from nacre.train.objectives.image import ClassifyImage

_CLASSIFIED = ("examples", "accuracy", "macro_f1", "auc", "calibration_error")
DEFAULT_CONTEXT = 512  # of models that record none and have no bound of their own


def evaluate_classify(config: EvaluateConfig, work: Work) -> Mapping[str, Scalar]:
    """Texts (or pairs) into classes."""
    rows = read_rows(work.inputs["data"], config.split, config.limit)
    texts = [str(text) for text in field_of(rows, "text", work.inputs["data"])]
    model = load_model(config, work, head="classify")
    labels = index_labels(field_of(rows, "label", work.inputs["data"]), model.kernel.config.labels)
    context = context_of(config, work, model)
    objective = Classify(model.words, model.kernel.config.labels, ClassifyConfig(context=context))
    answers = class_probabilities(model, objective, encodable(rows, labels))
    setting = _setting(config, work, context, answers)
    folder = work.inputs.get("baseline")
    baseline = baseline_predictions(folder, rows) if folder else None
    scores = np.stack(answers.values)
    measured = classification(texts, labels, scores, setting, baseline)
    publish(work, measured, _class_rows(rows, labels, scores, work), answers)
    return scalars(measured.figures, _CLASSIFIED)


def evaluate_images(config: ImagesConfig, work: Work) -> Mapping[str, Scalar]:
    """Images into classes."""
    rows = read_rows(work.inputs["data"], config.split, config.limit)
    model = load_model(config, work, head="classify")
    kernel = model.kernel.config
    labels = index_labels(field_of(rows, "label", work.inputs["data"]), kernel.labels)
    trained = recorded_objective(work.inputs["model"])
    mean = config.mean if config.mean is not None else float(trained.get("mean", 0.0))
    std = config.std if config.std is not None else float(trained.get("std", 1.0))
    how = ImageConfig(size=kernel.image_size, channels=kernel.channels, mean=mean, std=std)
    answers = class_probabilities(model, ClassifyImage(kernel.labels, how), encodable(rows, labels))
    scores = np.stack(answers.values)
    names = [f"#{row_id(row, number)}" for number, row in enumerate(rows, 1)]
    measured = classification(names, labels, scores, _setting(config, work, 0, answers))
    publish(work, measured, _class_rows(rows, labels, scores, work), answers)
    return scalars(measured.figures, _CLASSIFIED)


def evaluate_tag(config: EvaluateConfig, work: Work) -> Mapping[str, Scalar]:
    """Tokens into tags; rows longer than the context are read in windows."""
    rows = read_rows(work.inputs["data"], config.split, config.limit)
    tokens, true = (field_of(rows, name, work.inputs["data"]) for name in ("tokens", "tags"))
    model = load_model(config, work, head="tag")
    context = context_of(config, work, model)
    answers = tag_names(model, context, recorded_objective(work.inputs["model"]), rows)
    measured = tagging(tokens, true, answers.values, _setting(config, work, context, answers))
    found = (
        {"id": row_id(row, number), "tokens": row["tokens"], "tags": row["tags"], "predicted": guess}
        for number, (row, guess) in enumerate(zip(rows, answers.values, strict=True), 1)
    )
    publish(work, measured, found, answers)
    return scalars(measured.figures, ("sentences", "entity_f1", "entity_precision", "entity_recall", "entity_macro_f1"))


def load_model(config: EvaluateConfig, work: Work, head: str) -> Model:
    """Kernel and tokenizer; CheckpointError when the kernel has another head than the evaluation needs."""
    folder = work.inputs["model"]
    model = open_model(folder, work.inputs.get("tokenizer"), work.device, config.batch, work.progress)
    if model.kernel.config.head != head:
        raise CheckpointError(
            f"{folder} has the head {model.kernel.config.head!r}, this evaluation needs {head!r}",
            remedy="choose the evaluation that fits the model: classify, tag, language, generate, translate or images",
        )
    return model


def context_of(config: EvaluateConfig, work: Work, model: Model) -> int:
    """Tokens of a row that are read: as configured, as trained, or all that the kernel has positions for."""
    kernel = model.kernel.config
    bounded = kernel.position in ("learned", "rotary")
    recorded = recorded_objective(work.inputs["model"]).get("context")
    if config.context is not None:
        return config.context
    if isinstance(recorded, int):
        return min(recorded, kernel.max_positions) if bounded else recorded
    return min(kernel.max_positions, DEFAULT_CONTEXT) if bounded else DEFAULT_CONTEXT


def encodable(rows: Sequence[Row], labels: Labels) -> list[Row]:
    """Rows as the objective takes them: a label unknown to the model is replaced, since only the text is read."""
    return [
        row if index < labels.known else {**row, "label": labels.names[0]}
        for row, index in zip(rows, labels.true, strict=True)
    ]


def _setting(config: EvaluateConfig, work: Work, context: int, answers: Answers) -> Setting:
    return setting_of(config, work, cut_notes(config, context, answers))


def setting_of(config: EvaluateConfig, work: Work, notes: Sequence[str]) -> Setting:
    """Title, language and resampling of an evaluation."""
    title = origin.title_of(work.inputs["model"])
    if "data" in work.inputs:
        title += f" · {origin.title_of(work.inputs['data'])}/{config.split}"
    return Setting(title, config.language, Bootstrap(**asdict(config.intervals), seed=work.seed), tuple(notes))


def cut_notes(config: EvaluateConfig, context: int, answers: Answers) -> list[str]:
    """What was not read, in words."""
    words = Words(config.language)
    notes = []
    if cut := sum(answers.truncated.values()):
        notes.append(words("note_truncated", n=f"{cut:,}", limit=context))
    if windowed := sum(answers.windowed.values()):
        notes.append(words("note_windowed", n=f"{windowed:,}", limit=context))
    notes += [words("note_dropped", n=f"{n:,}", reason=reason) for reason, n in sorted(answers.dropped.items()) if n]
    return notes


def _class_rows(rows: Sequence[Row], labels: Labels, scores: Any, work: Work) -> Iterable[Row]:
    system = origin.title_of(work.inputs["model"])
    for number, (row, true, score) in enumerate(zip(rows, labels.true, scores, strict=True), 1):
        best = int(score.argmax())
        shown = {"text": row["text"]} if "text" in row else {}
        yield {
            "id": row_id(row, number), **shown, "label": labels.names[true], "predicted": labels.names[best],
            "confidence": round(float(score[best]), 6), "scores": [round(float(one), 6) for one in score],
            "system": system,
        }  # fmt: skip


def publish(
    work: Work, measured: Measured, rows: Iterable[Row], answers: Answers, name: str = "predictions.jsonl"
) -> None:
    """Writes the report artifact, with the model's lineage, training and anatomy, and the data's own report."""
    model, data = work.inputs["model"], work.inputs.get("data")
    page = replace(
        measured.report,
        runs=origin.runs(model),
        data=origin.data_reports(data) if data else {},
        lineage=origin.lineage(model),
        anatomy=origin.anatomy(model),
    )
    read = {key: counts(getattr(answers, key)) for key in ("truncated", "windowed", "dropped")}
    for key, found in read.items():
        if found:
            work.progress.note(f"rows {key}", **found)
    write_jsonl(work.out / name, rows)
    write_json(work.out / "metrics.json", measured.figures | {"not_read": read})
    report.write(page, work.out / "report.html")
