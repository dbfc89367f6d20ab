"""Was a model trained on these rows in this order? A test with an exact p, for runs whose order is on record.

A row that was trained later is remembered better. Under the null the order, which is drawn from a seed, has nothing to
do with the model, so every order was as likely: Spearman's rank correlation of log-likelihood with the step at which a
row was last trained, against random reorderings, has an exact p-value (Kuditipudi et al. 2025, arXiv 2510.19796).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.data.read import read
from nacre.data.rows import Row
from nacre.errors import DataError
from nacre.kernel.model import Kernel
from nacre.lifecycle.audit.data.scoring import Floats, Scorer, check_finite, open_scorer
from nacre.lifecycle.audit.data.settings import DataSettings
from nacre.lifecycle.audit.said import say, term
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lineage.record import Record
from nacre.train.loss import token_nll
from nacre.train.objective import prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig, TokenLoss
from nacre.train.objectives.decoder import CausalExample
from nacre.train.order import Order

NAME = "training order"
STAGES = ("pretrain.causal", "tune.causal")  # whose examples are trained in the order of `train/order.py`
LEAST_EXAMPLES = 20
ASSUMPTION = (
    "the logged order was drawn at random and without sight of the model (Nacre draws it from the seed of the run), "
    "and the log was not changed since"
)


@dataclass(frozen=True)
class OrderTest:
    """`examples`: how rows became examples in training. `permutations`: reorderings drawn; the least p is 1 over one
    more. `baseline`: a model whose log-likelihoods are taken off first (the start of the run, say): less noise.
    `seed`: of the reorderings; `max_flops` bounds the scoring: examples are left out, at random, where it is more."""

    examples: CausalConfig
    permutations: int = 9_999
    baseline: Path | None = None
    seed: int = 0
    is_random: bool = True
    max_flops: float = 2e13


@dataclass(frozen=True)
class Recorded:
    """The order of a recorded run. `last_step` (N,) the optimiser step at which each example was last trained, -1
    where never; `examples` how rows became examples; `limit` the rows that were read; `is_random` whether every order
    of examples was as likely (no grouping by length, shuffled); `seed` what it was drawn from."""

    last_step: tuple[int, ...]
    examples: CausalConfig
    limit: int | None
    is_random: bool
    seed: int


def order_test(model: Path | Scorer, dataset: Path, order: Sequence[int], settings: OrderTest) -> Evidence:
    """The evidence that the causal model in `model` was trained on `dataset` in this order.

    `order` gives, per example, the step at which it was last trained (`recorded_order`); -1 leaves one out. Raises
    DataError when it is not one per example. Cost: one forward pass over the rows, two with a baseline.
    """
    scorer = open_scorer(model)
    examples = examples_of(scorer, training_rows(dataset), settings.examples)
    if len(order) != len(examples):
        raise DataError(
            say("the order is of {n:,} examples, the rows give {rows:,}", n=len(order), rows=len(examples)),
            remedy="give the data set, limit and objective config of the recorded run",
        )
    return _tested(scorer, examples, order, settings)


def recorded_test(scorer: Scorer, dataset: Path, record: Record, settings: DataSettings) -> Evidence:
    """`order_test` with the order that the record of a run gives for as many examples as the rows become.

    Of the record only the order is read: stage, seed, config and number of steps, never what it says of its parents.
    Raises DataError where it tells no order. Examples beyond the bound on cost are left out, drawn at random.
    """
    how = recorded_examples(record)
    limit = record.config.get("limit")
    examples = examples_of(scorer, training_rows(dataset, limit), how)
    recorded = recorded_order(record, len(examples))
    test = OrderTest(how, seed=settings.seed, is_random=recorded.is_random, max_flops=settings.max_flops)
    found = _tested(scorer, examples, recorded.last_step, test)
    train = record.config["train"]
    logged = say(
        "{found}; logged with the run, and the input of this test: seed {seed}, batches of {batch}, {steps:,} steps, "
        "shuffled: {shuffled}",
        found=found.text, seed=recorded.seed, batch=train["batch_size"], steps=record.metrics["steps"],
        shuffled=term("yes" if recorded.is_random else "no"),
    )  # fmt: skip
    return replace(found, text=logged)


def _tested(scorer: Scorer, examples: list[CausalExample], order: Sequence[int], settings: OrderTest) -> Evidence:
    steps = np.asarray(order, dtype=np.float64)
    seen = np.flatnonzero(steps >= 0)
    lengths = [sum(map(len, examples[one].runs)) for one in seen]
    room = int(settings.max_flops / max(1.0, float(np.mean(lengths or [1])) * scorer.flops_per_token))
    if room < len(seen):
        seen = np.sort(np.random.default_rng(settings.seed).permutation(seen)[:room])
    chosen = [examples[one] for one in seen]
    likely = _all_means(scorer, chosen, settings.examples)
    if settings.baseline is not None:
        likely = likely - _all_means(open_scorer(settings.baseline), chosen, settings.examples)
    check_finite(likely)
    return _evidence(likely, steps[seen], settings, len(examples))


def training_rows(dataset: Path, limit: int | None = None) -> list[Row]:
    """What a run reads of a data set: `train.jsonl` of a folder that has one, else every row; the first `limit`."""
    file = dataset / "train.jsonl" if (dataset / "train.jsonl").is_file() else dataset
    return list(islice(read(file), limit))


def _evidence(likely: Floats, steps: Floats, settings: OrderTest, total: int) -> Evidence:
    n = len(likely)
    if n < LEAST_EXAMPLES or len(np.unique(steps)) < 3:
        return Evidence(NAME, None, text=say("{n:,} examples with a step, within the bound on cost: too few", n=n))
    rho, p = permuted_spearman(likely, steps, settings.permutations, settings.seed)
    text = say(
        "Spearman's rho {rho:+.3f} of log-likelihood with the step of last training, over {n:,} of {total:,} examples",
        rho=rho, n=n, total=total,
    )  # fmt: skip
    if not settings.is_random:
        text = say("{found}; the run did not shuffle, so this decides nothing", found=text)
    tail = 0.5 * math.erfc(rho * math.sqrt(n - 1) / math.sqrt(2))
    detail = {"examples": n, "of": total, "permutations": settings.permutations, "normal_tail": tail}
    return Evidence(NAME, rho, p, "exact" if settings.is_random else "heuristic", text, ASSUMPTION, detail)


def recorded_examples(record: Record) -> CausalConfig:
    """How the rows of a recorded run became examples. Raises DataError for the record of a stage that is not causal."""
    if record.stage not in STAGES or record.seed is None:
        what = say("{ref} was made by {stage}", ref=record.ref, stage=record.stage or "nobody knows what")
        raise DataError(what, remedy=f"give a run of {STAGES[0]}")
    how = dict(record.config.get("objective", {}))
    how["loss"] = TokenLoss(**how.get("loss", {}))
    return CausalConfig(**how)


def recorded_order(record: Record, n_examples: int) -> Recorded:
    """The order of a run of a causal stage, from its record alone: a pure function of seed and config.

    Raises DataError for the record of another stage, or of a run whose number of steps is not on record.
    """
    how = recorded_examples(record)
    assert record.seed is not None
    train: Mapping[str, Any] = record.config["train"]
    steps = record.metrics.get("steps")
    if not isinstance(steps, int):
        what = say("the record of {ref} has no number of steps", ref=record.ref)
        raise DataError(what, remedy="give a finished run")
    if train.get("bucket"):
        raise DataError(
            say("{ref} grouped its examples by length, so their order is not random", ref=record.ref),
            remedy="this test needs a run without bucket: true",
        )
    batch, seed = int(train["batch_size"]), record.seed + int(train.get("seed", 0))
    shuffle = bool(train.get("shuffle", True))
    order = Order(n_examples, batch, int(train.get("micro_batch") or batch), seed, shuffle)
    return Recorded(last_steps(order, steps), how, record.config.get("limit"), shuffle, seed)


def last_steps(order: Order, total_steps: int) -> tuple[int, ...]:
    """(N,) the step at which each example is last trained in `total_steps`; -1 where it never is."""
    found = [-1] * order.n_examples
    for step in range(max(0, total_steps - 2 * order.steps_per_epoch), total_steps):
        for micro_batch in order.step(step):
            for example in micro_batch:
                found[example] = step
    return tuple(found)


def log_likelihoods(model: Path | Scorer, rows: Sequence[Row], how: CausalConfig) -> Floats:
    """(N,) mean log-likelihood (nats per trained token) of every example that the rows become under `how`."""
    scorer = open_scorer(model)
    return _all_means(scorer, examples_of(scorer, rows, how), how)


def examples_of(scorer: Scorer, rows: Sequence[Row], how: CausalConfig) -> list[CausalExample]:
    """What the rows are trained as. Raises DataError or ConfigError where the model could not have been trained so."""
    objective = Causal(scorer.tokenizer, how)
    objective.check(scorer.kernel)
    return prepare(objective, rows, "the rows")


def _all_means(scorer: Scorer, examples: Sequence[CausalExample], how: CausalConfig) -> Floats:
    objective = Causal(scorer.tokenizer, how)
    return np.array([_mean(scorer.kernel, objective, example) for example in examples], dtype=np.float64)


@torch.inference_mode()
def _mean(kernel: Kernel, objective: Causal, example: CausalExample) -> float:
    batch = objective.collate([example], torch.Generator())
    hidden = kernel(batch.ids, segments=batch.segments, positions=batch.positions).hidden
    nll = token_nll(kernel.lm_logits(hidden).flatten(0, 1), batch.targets.flatten(), objective.config.loss.softcap)
    return -float(nll.double().sum()) / max(1, batch.n_trained)


def permuted_spearman(values: Floats, order: Floats, permutations: int, seed: int = 0) -> tuple[float, float]:
    """Spearman's rho (ties get their mean rank) and the one-sided p of one as large when `order` is random.

    p = (1 + #{permuted >= observed}) / (permutations + 1), exact whatever the values are (Phipson & Smyth 2010).
    """
    x, y = _standard_ranks(values), _standard_ranks(order)
    rho = float(x @ y)
    rng = np.random.default_rng(seed)
    at_least, left = 0, permutations
    while left:
        block = min(left, max(1, 2_000_000 // len(x)))
        shuffled = rng.permuted(np.broadcast_to(y, (block, len(y))), axis=1)
        at_least += int((shuffled @ x >= rho - 1e-12).sum())
        left -= block
    return rho, (1 + at_least) / (permutations + 1)


def _standard_ranks(values: Floats) -> Floats:
    """Mean ranks, centred and of length 1."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    centred = ranks - ranks.mean()
    length = float(np.linalg.norm(centred))
    scaled: Floats = centred / length if length else centred
    return scaled
