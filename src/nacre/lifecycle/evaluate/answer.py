"""What a model says to texts, whatever its head: a class, entities, or written text. The work of `nacre predict`.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nacre.data.words import token_spans
from nacre.errors import CheckpointError, DataError
from nacre.kernel.config import KernelConfig
from nacre.kernel.generate import GenerationConfig
from nacre.lifecycle.evaluate.predict import Model, class_probabilities, counts, start_ids, tag_config, written
from nacre.metrics.entities import entities_of
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig
from nacre.train.objectives.tag import Tag, join_parts


@dataclass(frozen=True)
class Answered:
    """One entry per text, in order, and what of the texts was not read, counted by reason."""

    answers: list[dict[str, Any]]
    truncated: Mapping[str, int] = field(default_factory=dict)


def answer(
    model: Model,
    texts: Sequence[str],
    recorded: Mapping[str, Any],
    *,
    top: int = 3,
    how: GenerationConfig | None = None,
) -> Answered:
    """Applies the model's head to each text; `recorded` holds the objective's settings that the model was tuned with.

    classify: `label`, `probability`, and the `top` likeliest classes. tag: `entities` with type, text and character
    offsets. A decoder continues the text, an encoder-decoder answers it: `output` and why it `stopped`.
    Raises CheckpointError for a head without answers, DataError for an empty text.
    """
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"text {number} is empty", remedy="give a text, or drop empty lines")
    check_answers(model.kernel.config)
    head = model.kernel.config.head
    if head == "classify":
        return _classified(model, texts, recorded, top)
    if head == "tag":
        return _tagged(model, texts, recorded)
    return _written(model, texts, how or GenerationConfig())


def check_answers(config: KernelConfig) -> None:
    """Raises CheckpointError for a kernel whose head gives no answers to texts."""
    if config.is_vision or config.head not in ("classify", "tag", "lm"):
        what = "a model of images" if config.is_vision else f"a model with the head {config.head!r}"
        raise CheckpointError(
            f"{what} gives no answers to texts",
            remedy="fine-tune one first (tune.classify, tune.tag, tune.seq2seq), or give a generating model",
        )


def _classified(model: Model, texts: Sequence[str], recorded: Mapping[str, Any], top: int) -> Answered:
    labels = model.kernel.config.labels
    objective = Classify(model.words, labels, ClassifyConfig(context=context_of(model, recorded)))
    found = class_probabilities(model, objective, [{"text": text, "label": labels[0]} for text in texts])
    answers = []
    for text, scores in zip(texts, found.values, strict=True):
        best = np.argsort(-scores, kind="stable")[:top]
        ranked = [{"label": labels[index], "probability": round(float(scores[index]), 4)} for index in best]
        answers.append({"text": text, **ranked[0], "top": ranked})
    return Answered(answers, counts(found.truncated))


def _tagged(model: Model, texts: Sequence[str], recorded: Mapping[str, Any]) -> Answered:
    labels = model.kernel.config.labels
    objective = Tag(model.words, labels, tag_config(context_of(model, recorded), recorded))
    spans = [token_spans(text) for text in texts]
    rows = [
        {"tokens": [text[start:end] for start, end in found], "tags": ["O"] * len(found)}
        for text, found in zip(texts, spans, strict=True)
    ]
    examples = objective.arrange([objective.encode(row) for row in rows])
    parts = []
    for start in range(0, len(examples), model.batch):
        batch = objective.collate(examples[start : start + model.batch], torch.Generator())
        parts += objective.predict(model.kernel, batch.to(model.device))
    tags = join_parts(parts)
    answers = []
    for number, (text, found) in enumerate(zip(texts, spans, strict=True)):
        entities = entities_of(text, found, [labels[index] for index in tags[number]])
        answers.append({"text": text, "entities": entities})
    return Answered(answers, counts(objective.truncated))


def _written(model: Model, texts: Sequence[str], how: GenerationConfig) -> Answered:
    tokenizer = model.words
    if model.kernel.config.layout == "encoder-decoder":
        prompts = tokenizer.encode_batch(texts)
    else:
        begin = start_ids(tokenizer)
        prompts = [[*begin, *tokenizer.encode(text, add_special=False)] for text in texts]
    found = written(model, prompts, lambda number: how)
    return Answered(
        [
            {"text": text, "output": output, "stopped": stopped}
            for text, (output, stopped) in zip(texts, found, strict=True)
        ]
    )


def context_of(model: Model, recorded: Mapping[str, Any]) -> int:
    """The context that the model was tuned with, else all the room it has for a text, at most 512."""
    room = model.kernel.room
    return int(recorded.get("context", 512 if room is None else min(room, 512)))
