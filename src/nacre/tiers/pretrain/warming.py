"""The warm-up: a short pretraining on the unlabelled text before tuning. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, Rows, fit
from nacre.tiers.pretrain.effort import RECIPES, WARM_UP_SHARE
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import MaskedConfig, SpanConfig
from nacre.train.objectives.mlm import MaskedLM
from nacre.train.objectives.span import SpanCorruption

if TYPE_CHECKING:
    from nacre.tiers.pretrain.solver import Setting

BATCH = 32
MOST_TEXTS = 200_000


def warm_up(setting: Setting, work: Work) -> Mapping[str, Scalar]:
    """Masked language modelling for an encoder, span corruption for an encoder-decoder."""
    context = max(setting.positions, 16)
    kernel = setting.fresh(work.seed)
    rows = Rows([{"text": text} for text in islice(setting.texts, MOST_TEXTS)], [])
    steps, recipe = max(1, round(setting.design.steps * WARM_UP_SHARE)), RECIPES[setting.task.kind]
    how = TrainConfig(max_steps=steps, batch_size=BATCH, optimizer=recipe.optimizer, lr=recipe.lr, bucket=True)
    if setting.task.kind == "generate":
        spans = SpanCorruption(setting.tokenizer, SpanConfig(context=context))
        return fit(kernel, spans, rows, Fit(how), work)
    masked = MaskedLM(setting.tokenizer, MaskedConfig(context=context))
    return fit(kernel, masked, rows, Fit(how), work)
