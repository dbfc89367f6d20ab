"""The base as it is: a linear classifier over its embeddings, or the embeddings alone to rank by. Imports torch.

Texts go through the kernel once; what is fitted is a logistic regression, which becomes the kernel's head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.errors import DataError
from nacre.kernel import hf
from nacre.kernel.heads import pool
from nacre.kernel.model import Kernel
from nacre.lazy import require
from nacre.tiers.fitting import keep_tokenizer
from nacre.tiers.tune.setting import Prepared, Setting, prepare
from nacre.train.objective import prepare as prepare_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Inverse strengths of the penalty, over standardised features, of which validation picks one.
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_BATCH = 64
_NEVER = -1e4  # logit of a class that no training row has


@dataclass(frozen=True)
class Linear:
    """Logits x @ weight.T + bias of features x (N, D): `weight` (C, D), `bias` (C,)."""

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """(N, C)"""
        return features @ self.weight.T + self.bias


def frozen_classifier(setting: Setting, out: Path) -> dict[str, Any]:
    """Writes the base under a head fitted by logistic regression into `out`; validation scores by strength."""
    task, made = setting.task, prepare(setting, None, None)
    made.objective.check(made.kernel)
    hf.check_savable(made.kernel.config)
    train, labels = _features(setting, made, made.rows.train, "train")
    valid, _ = _features(setting, made, made.rows.valid, "valid") if made.rows.valid else (None, None)
    if len(set(labels.tolist())) < 2:
        raise DataError("all training rows have one label: there is nothing to tell apart", remedy="add other classes")
    names = task.labels
    scores: dict[str, float] = {}
    best: tuple[float, Linear] | None = None
    for strength, found in fit_path(train, labels, len(names)):
        if valid is None:
            if strength == STRENGTHS[len(STRENGTHS) // 2]:
                best = (0.0, found)
            continue
        guessed = [names[at] for at in found.logits(valid).argmax(axis=1)]
        score = task.quality.judge(task.valid, guessed).score
        scores[f"{strength:g}"] = score
        if best is None or score > best[0]:
            best = (score, found)
    assert best is not None
    _write(setting, made.kernel, best[1], out)
    trained = sum(one.numel() for one in _classifier(made.kernel).parameters())
    return {"score": best[0] if scores else None, "by_strength": scores, "trained_parameters": trained}


def frozen_ranker(setting: Setting, out: Path) -> None:
    """Writes the base without a head: its embeddings rank as they are."""
    hf.save(prepare(setting, setting.order[:1], None).kernel, out)
    keep_tokenizer(setting.tokenizer, out, setting.base)


def fit_path(features: Floats, labels: Ints, classes: int) -> list[tuple[float, Linear]]:
    """Multinomial logistic regressions for each of STRENGTHS, each started from the one before.

    Features are standardised for the fit; the standardisation is folded into the weights that come back.
    """
    regression = require("sklearn.linear_model").LogisticRegression(max_iter=400, tol=1e-3, warm_start=True)
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-8, spread, 1.0)
    standard = (features - centre) / spread
    found = []
    for strength in STRENGTHS:
        regression.C = strength
        regression.fit(standard, labels)
        weight, bias = regression.coef_, regression.intercept_
        if len(weight) == 1:  # two classes share one row there
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        whole = Linear(np.zeros((classes, features.shape[1])), np.full(classes, _NEVER))
        whole.weight[regression.classes_] = weight / spread
        whole.bias[regression.classes_] = bias - (weight / spread) @ centre
        found.append((strength, whole))
    return found


def _features(setting: Setting, made: Prepared, rows: Sequence[Any], name: str) -> tuple[Floats, Ints]:
    """What the head would see of each row, (N, D), and the classes (N,); kept in scratch, so that it is done once."""
    examples = prepare_rows(made.objective, rows, f"the {name} rows", training=False)
    labels = np.array([example.label for example in examples])
    file = setting.work.scratch / f"features-{name}.npy"
    if file.is_file():
        return np.load(file).astype(np.float64), labels
    if made.objective.truncated:
        setting.work.progress.note("rows truncated", split=name, **made.objective.truncated)
        made.objective.truncated.clear()
    vectors = embedded(made, examples, setting)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part.npy")
    np.save(draft, vectors)
    draft.replace(file)
    return vectors.astype(np.float64), labels


@torch.inference_mode()
def embedded(made: Prepared, examples: Sequence[Any], setting: Setting) -> NDArray[np.float32]:
    """The pooled states (N, D) of a classifier's examples, by length in batches."""
    kernel, objective = made.kernel.to(setting.work.device).eval(), made.objective
    order = sorted(range(len(examples)), key=lambda row: -objective.length(examples[row]))
    vectors = np.empty((len(examples), kernel.config.hidden_size), np.float32)
    rng = torch.Generator()  # nothing is drawn from it
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        batch = objective.collate([examples[row] for row in rows], rng).to(setting.work.device)
        hidden = kernel(batch.ids, mask=batch.mask, token_types=batch.token_types).hidden
        vectors[rows] = pool(hidden, batch.mask, kernel.config.pooling).float().cpu().numpy()
        setting.work.progress.update(min(start + _BATCH, len(order)), len(order))
    return vectors


def _classifier(kernel: Kernel) -> torch.nn.Linear:
    assert kernel.classifier is not None
    return kernel.classifier


def _write(setting: Setting, kernel: Kernel, found: Linear, out: Path) -> None:
    head = _classifier(kernel)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(found.weight))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(found.bias))
    hf.save(kernel.cpu(), out)
    keep_tokenizer(setting.tokenizer, out, setting.base)
