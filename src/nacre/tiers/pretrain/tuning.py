"""Tuning of a fresh (or warmed-up) kernel on the rows of a task, by kind. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nacre.kernel.model import Kernel
from nacre.metrics.quality import Kind
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, Rows, fit, keep_tokenizer, load_kernel
from nacre.tiers.kernel_answers import opened, tag_config
from nacre.tiers.pretrain.effort import RECIPES
from nacre.tiers.pretrain.phases import Phase
from nacre.tiers.task import Row, targets_of
from nacre.train.config import TrainConfig
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig, ClassLoss, Seq2SeqConfig
from nacre.train.objectives.seq2seq import Seq2Seq
from nacre.train.objectives.tag import Tag, tags_of
from nacre.train.order import seed_of

if TYPE_CHECKING:
    from nacre.tiers.pretrain.solver import Setting

EVALUATIONS = 20  # of a run, at least as many steps apart as make an epoch
PATIENCE = 8


def tune(setting: Setting, start: Path | None, work: Work) -> Mapping[str, Scalar]:
    """Trains the kernel of `start`, or a fresh one, and writes it with its tokenizer into `work.out`."""
    if start is None:
        torch.manual_seed(seed_of("heads", work.seed))
        kernel = setting.fresh(work.seed)
    else:
        kernel = load_kernel(start, work)
    headed, objective, rows, judge = _PREPARE[setting.task.kind](setting, kernel)
    how = schedule(setting, setting.design.steps, bool(rows.valid), **judge)
    metrics = fit(headed, objective, rows, Fit(how), work)
    keep_tokenizer(setting.tokenizer, work.out, None)
    return {"parameters": sum(one.numel() for one in headed.parameters()), **metrics}


def judged(setting: Setting, phase: Phase) -> float:
    """The task's own metric on the validation rows, of a tuned model."""
    task = setting.task
    answers = opened(phase.folder, setting.limits).answer(task.valid)
    return task.quality.judge(task.valid, [answer.value for answer in answers]).score


Prepared = tuple[Kernel, Any, Rows, dict[str, Any]]


def _classify(setting: Setting, kernel: Kernel) -> Prepared:
    task = setting.task
    how = ClassifyConfig(
        context=setting.design.context,
        subword_dropout=0.2,
        token_dropout=0.1,
        loss=ClassLoss(label_smoothing=0.1),
    )
    headed = kernel.with_head("classify", labels=task.labels, pooling="mean")
    objective = Classify(setting.tokenizer, task.labels, how)
    return headed, objective, Rows(list(task.train), list(task.valid)), {"metric": "accuracy", "mode": "max"}


def _tag(setting: Setting, kernel: Kernel) -> Prepared:
    task = setting.task
    labels = tags_of(task.train)
    headed = kernel.with_head("tag", labels=labels)
    # A tag that only validation has cannot be learnt; such rows are judged in the end, not here.
    known = [row for row in task.valid if set(row["tags"]) <= set(labels)]
    objective = Tag(setting.tokenizer, labels, tag_config(setting.design.context))
    objective.note("validation rows with tags that training lacks", len(task.valid) - len(known))
    return headed, objective, Rows(list(task.train), known), {"metric": "accuracy", "mode": "max"}


def _generate(setting: Setting, kernel: Kernel) -> Prepared:
    task = setting.task
    how = Seq2SeqConfig(context=setting.design.context, target_context=setting.design.target_context)
    pairs: list[Row] = [{"source": row["source"], "target": text} for row in task.train for text in targets_of(row)]
    held: list[Row] = [{"source": row["source"], "target": targets_of(row)[0]} for row in task.valid]
    return kernel, Seq2Seq(setting.tokenizer, how), Rows(pairs, held), {}


_PREPARE: Mapping[Kind, Callable[[Setting, Kernel], Prepared]] = {
    "classify": _classify,
    "tag": _tag,
    "generate": _generate,
}


def schedule(setting: Setting, steps: int, has_valid: bool, **judge: Any) -> TrainConfig:
    """`steps` steps as the recipe of the kind has them, with early stopping where there are validation rows."""
    recipe = RECIPES[setting.task.kind]
    every = max(-(-steps // EVALUATIONS), round(steps / max(1.0, setting.design.epochs)))
    return TrainConfig(
        max_steps=steps,
        batch_size=setting.design.batch_size,
        optimizer=recipe.optimizer,
        lr=recipe.lr,
        bucket=True,
        eval_every=min(every, steps),
        patience=PATIENCE if has_valid else None,
        **(judge if has_valid else {}),
    )
