"""Ranking from scratch: an encoder trained so that a query lies near what answers it. Imports torch.

First on pairs that the corpus itself holds (a text's title or beginning, and its rest), then on the queries of the
training rows. The corpus is embedded once, into the rung; an answer is a ranking by cosine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, Rows, fit, keep_tokenizer, load_kernel
from nacre.tiers.pretrain import pairing
from nacre.tiers.pretrain.effort import RECIPES
from nacre.tiers.pretrain.phases import Phase, Phases
from nacre.tiers.pretrain.tuning import schedule
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import ContrastConfig
from nacre.train.objectives.contrast import Contrast

if TYPE_CHECKING:
    from nacre.tiers.pretrain.solver import Setting

CORPUS_SHARE = 0.6  # of the steps go to the corpus' own pairs
LEAST_PAIRS = 64  # fewer teach nothing


def trained(setting: Setting, phases: Phases) -> tuple[Phase, str]:
    """The tuned encoder, and in words what it learnt from the corpus before."""
    left_out: Counter[str] = Counter()
    own = list(pairing.of_corpus(setting.task.corpus, left_out))
    if left_out:
        phases.work.progress.note("pairs left out", **left_out)
    steps, start = setting.design.steps, None
    said = f"none: the corpus gives {len(own)} pairs of its own, {LEAST_PAIRS} are the least"
    if len(own) >= LEAST_PAIRS:
        first = max(1, round(steps * CORPUS_SHARE))
        start = phases.run("corpus-pairs", lambda work: _on_corpus(setting, own, first, work)).folder
        said, steps = f"{len(own):,} pairs of the corpus itself, {first:,} steps", max(1, steps - first)
    return phases.run("tune", lambda work: _on_queries(setting, start, steps, work)), said


def _on_corpus(setting: Setting, pairs: list[dict[str, Any]], steps: int, work: Work) -> Mapping[str, Scalar]:
    recipe = RECIPES["rank"]
    how = TrainConfig(
        max_steps=steps, batch_size=recipe.batch_size, optimizer=recipe.optimizer, lr=recipe.lr, bucket=True
    )
    kernel = setting.fresh(work.seed).with_head("none")
    return fit(kernel, _objective(setting), Rows([*pairs], []), Fit(how), work)


def _on_queries(setting: Setting, start: Path | None, steps: int, work: Work) -> Mapping[str, Scalar]:
    task = setting.task
    kernel = setting.fresh(work.seed).with_head("none") if start is None else load_kernel(start, work)
    held: dict[str, dict[str, Any]] = {}
    for pair in pairing.answered(task, task.valid):
        held.setdefault(pair["query"], pair)  # one each: figures by batch are comparable then
    rows = Rows([*pairing.answered(task, task.train)], [*held.values()])
    how = schedule(setting, steps, bool(held), metric="loss", mode="min")
    metrics = fit(kernel, _objective(setting), rows, Fit(how), work)
    keep_tokenizer(setting.tokenizer, work.out, None)
    return {"parameters": sum(one.numel() for one in kernel.parameters()), **metrics}


def _objective(setting: Setting) -> Contrast:
    context = setting.design.context
    return Contrast(setting.tokenizer, ContrastConfig(context=context, positive_context=context))
