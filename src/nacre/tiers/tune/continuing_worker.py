"""The work behind `tune.continual`. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.data.write import write_json
from nacre.errors import ConfigError, DataError
from nacre.kernel import hf
from nacre.kernel.adapters.config import chosen
from nacre.kernel.model import Kernel
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, Rows, fit, keep_tokenizer, labels_of, load_kernel, load_tokenizer, rows_of
from nacre.tiers.tune.continuing import ANCHOR_FILE, ANCHORS, EARLIER, ContinualConfig
from nacre.tiers.tune.worker import adapt
from nacre.train.objective import Row, prepare
from nacre.train.objectives.anchored import Anchor, Anchored, anchor
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.classify_tasks import ClassifyTasks
from nacre.train.order import seed_of

TASKS_FILE = "tasks.json"  # the labels that each task brought, in the order of the head


def continue_classifier(config: ContinualConfig, work: Work) -> Mapping[str, Scalar]:
    """The model after one more task; beside it `tasks.json`, and `anchor.safetensors` for the stages to come."""
    base, labels = load_kernel(work.inputs["model"], work), labels_of(work.inputs["data"])
    tasks = with_task(_tasks(work.inputs["model"], base), labels, shared=config.shared_labels)
    _check_together(config, tasks, labels)
    kernel = widened(base, [label for one in tasks for label in one], config)
    adapter = chosen(config.lora, config.adapter)
    adapt(kernel, adapter, work)
    tokenizer = load_tokenizer(work)
    inner: Any = Classify(tokenizer, kernel.config.labels, config.objective)
    if config.compete == "task":
        inner = ClassifyTasks(tokenizer, tasks, config.objective)
    anchors = [Anchor.load(work.inputs[name] / ANCHOR_FILE) for name in ANCHORS if name in work.inputs]
    objective: Any = Anchored(inner, anchors, config.ewc) if anchors else inner
    rows = rows_of(work.inputs["data"], config.limit)
    again = replayed(config.replay, _earlier(work), work.seed)
    _check_known(again, kernel.config.labels)
    metrics = fit(kernel, objective, Rows([*rows.train, *again], rows.valid), Fit(config.train), work)
    keep_tokenizer(tokenizer, work.out, work.inputs.get("tokenizer", work.inputs["model"]))
    write_json(work.out / TASKS_FILE, tasks)
    metrics |= {"classes": len(kernel.config.labels), "tasks": len(tasks), "replayed_rows": len(again)}
    if config.anchor_rows and adapter is None:
        metrics["anchor_rows"] = _anchor(config, work, inner, rows.train)
    return metrics


def with_task(earlier: Sequence[Sequence[str]], labels: Sequence[str], *, shared: bool) -> list[list[str]]:
    """The labels that each task brought, the new task's last: those that no earlier one has."""
    known = {label for one in earlier for label in one}
    both = sorted(known & set(labels))
    if both and not shared:
        raise ConfigError(
            f"the label {both[0]!r} is one of an earlier task ({len(both)} such)",
            remedy="shared_labels: true if it is the same class in both, else give the data other label names",
        )
    new = [label for label in labels if label not in known]
    return [list(one) for one in earlier] + ([new] if new else [])


def _check_together(config: ContinualConfig, tasks: Sequence[Sequence[str]], labels: Sequence[str]) -> None:
    """A head per task has no place for a task of which some classes are another's."""
    if config.compete == "task" and not any(set(labels) <= set(one) for one in tasks):
        raise ConfigError(
            "some classes of the data are those of an earlier task, some are new",
            remedy="compete: all, or other label names",
        )


def widened(base: Kernel, labels: Sequence[str], config: ContinualConfig) -> Kernel:
    """The base under a head for `labels`; classes that its own head knows keep their weights and biases."""
    kernel = base.with_head("classify", labels=labels, pooling=config.pooling)
    if base.config.head == "classify" and base.classifier is not None and kernel.classifier is not None:
        place = {label: number for number, label in enumerate(base.config.labels)}
        with torch.no_grad():
            for number, label in enumerate(labels):
                if label in place:
                    kernel.classifier.weight[number] = base.classifier.weight[place[label]]
                    if kernel.classifier.bias is not None and base.classifier.bias is not None:
                        kernel.classifier.bias[number] = base.classifier.bias[place[label]]
    return kernel


def replayed(share: float, earlier: Sequence[Sequence[Row]], seed: int) -> list[Row]:
    """That share of the rows of each earlier task, rounded up, in their order."""
    found: list[Row] = []
    for number, rows in enumerate(earlier):
        draws = np.random.default_rng(seed_of("replay", seed, number))
        taken = draws.permutation(len(rows))[: int(np.ceil(share * len(rows)))]
        found += [rows[place] for place in sorted(taken.tolist())]
    return found


def _tasks(model: Path, base: Kernel) -> list[list[str]]:
    """The tasks a model has learnt: as an earlier stage wrote them, else its head's labels as one task."""
    file = model / TASKS_FILE
    if file.is_file():
        found: list[list[str]] = json.loads(file.read_text(encoding="utf-8"))
        return found
    return [list(base.config.labels)] if base.config.head == "classify" else []


def _earlier(work: Work) -> list[list[Row]]:
    return [rows_of(work.inputs[name]).train for name in EARLIER if name in work.inputs]


def _check_known(rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Earlier rows are of classes that the model has met; DataError names one that is not."""
    strange = sorted({str(row.get("label")) for row in rows} - set(labels))
    if strange:
        raise DataError(
            f"the earlier data has the label {strange[0]!r}, which the model never learnt",
            remedy="give the data of stages that the model went through",
        )


def _anchor(config: ContinualConfig, work: Work, objective: Any, rows: Sequence[Row]) -> int:
    """Writes this task's anchor: the weights as they were saved, and their importance for rows of this task alone."""
    kernel = hf.load(work.out, device=work.device).float()
    draws = np.random.default_rng(seed_of("anchor", work.seed))
    taken = sorted(draws.permutation(len(rows))[: config.anchor_rows].tolist())
    examples = prepare(objective, [rows[place] for place in taken], "the anchor's rows", training=False)
    work.progress.note("anchor", rows=len(examples))
    anchor(kernel, objective, [replace(one, varied=False) for one in examples], seed=work.seed).save(
        work.out / ANCHOR_FILE
    )
    return len(examples)
