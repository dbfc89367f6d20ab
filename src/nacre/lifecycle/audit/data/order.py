"""Was a model trained on these rows in this order? A test with an exact p, for runs whose order is on record.

A row that was trained later is remembered better. Under the null the order, which is drawn from a seed, has nothing to
do with the model, so every order was as likely: Spearman's rank correlation of log-likelihood with the step at which a
row was last trained, against random reorderings, has an exact p-value (Kuditipudi et al. 2025, arXiv 2510.19796).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.data.read import read
from nacre.data.tokenizer import Tokenizer
from nacre.errors import DataError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lineage.record import Record
from nacre.train.loss import token_nll
from nacre.train.objective import prepare
from nacre.train.objectives.causal import Causal, CausalExample
from nacre.train.objectives.config import CausalConfig, TokenLoss
from nacre.train.order import Order

Floats = NDArray[np.float64]
LEAST_EXAMPLES = 20
ASSUMPTION = (
    "the order was drawn at random and without sight of the model: true of Nacre's seeded orders, where rows are not "
    "grouped by length"
)


@dataclass(frozen=True)
class OrderTest:
    """`examples`: how rows became examples in training. `permutations`: reorderings drawn; the least p is 1 over one
    more. `baseline`: a model whose log-likelihoods are taken off first (the start of the run, say): less noise.
    `seed`: of the reorderings."""

    examples: CausalConfig
    permutations: int = 9_999
    baseline: Path | None = None
    seed: int = 0
    is_random: bool = True


@dataclass(frozen=True)
class Recorded:
    """The order of a recorded run. `last_step` (N,) the optimiser step at which each example was last trained, -1
    where never; `examples` how rows became examples; `limit` the rows that were read; `is_random` whether every order
    of examples was as likely (no grouping by length, shuffled)."""

    last_step: tuple[int, ...]
    examples: CausalConfig
    limit: int | None
    is_random: bool


def order_test(model: Path, dataset: Path, order: Sequence[int], settings: OrderTest) -> Evidence:
    """The evidence that the causal model in `model` was trained on `dataset/train.jsonl` in this order.

    `order` gives, per example, the step at which it was last trained (`recorded_order`); -1 leaves one out. Raises
    DataError when it is not one per example. Cost: one forward pass over the rows, two with a baseline.
    """
    rows = list(read(dataset / "train.jsonl" if dataset.is_dir() else dataset))
    likely = log_likelihoods(model, rows, settings.examples)
    if settings.baseline is not None:
        likely = likely - log_likelihoods(settings.baseline, rows, settings.examples)
    if len(order) != len(likely):
        raise DataError(
            f"the order is of {len(order):,} examples, the rows give {len(likely):,}",
            remedy="give the data set, limit and objective config of the recorded run",
        )
    steps = np.asarray(order, dtype=np.float64)
    seen = steps >= 0
    return _evidence(likely[seen], steps[seen], settings)


def _evidence(likely: Floats, steps: Floats, settings: OrderTest) -> Evidence:
    name = "training order"
    n = len(likely)
    if n < LEAST_EXAMPLES or len(np.unique(steps)) < 3 or not np.isfinite(likely).all():
        return Evidence(name, None, text=f"{n:,} examples with a finite likelihood and a step: too few to test")
    rho, p = permuted_spearman(likely, steps, settings.permutations, settings.seed)
    tail = 0.5 * math.erfc(rho * math.sqrt(n - 1) / math.sqrt(2))
    return Evidence(
        name,
        rho,
        p,
        "exact" if settings.is_random else "heuristic",
        f"Spearman's rho {rho:+.3f} of log-likelihood with the step of last training, over {n:,} examples",
        ASSUMPTION,
        {"examples": n, "permutations": settings.permutations, "normal_tail": tail},
    )


def recorded_order(record: Record, n_examples: int) -> Recorded:
    """The order of a run of `pretrain.causal`, from its record alone: a pure function of seed and config.

    Raises DataError for the record of another stage, or one bounded by the clock: its length is not on record.
    """
    if record.stage != "pretrain.causal" or record.seed is None:
        raise DataError(
            f"{record.ref} was made by {record.stage or 'nobody knows what'}", remedy="give a run of pretrain.causal"
        )
    train: Mapping[str, Any] = record.config["train"]
    steps = record.metrics.get("steps")
    if not isinstance(steps, int):
        raise DataError(f"the record of {record.ref} has no number of steps", remedy="give a finished run")
    if train.get("bucket"):
        raise DataError(
            f"{record.ref} grouped its examples by length, so their order is not random",
            remedy="this test needs a run without bucket: true",
        )
    batch = int(train["batch_size"])
    order = Order(
        n_examples,
        batch,
        int(train.get("micro_batch") or batch),
        record.seed + int(train.get("seed", 0)),
        bool(train.get("shuffle", True)),
    )
    how = dict(record.config.get("objective", {}))
    how["loss"] = TokenLoss(**how.get("loss", {}))
    return Recorded(last_steps(order, steps), CausalConfig(**how), record.config.get("limit"), order.shuffle)


def last_steps(order: Order, total_steps: int) -> tuple[int, ...]:
    """(N,) the step at which each example is last trained in `total_steps`; -1 where it never is."""
    found = [-1] * order.n_examples
    for step in range(max(0, total_steps - 2 * order.steps_per_epoch), total_steps):
        for micro_batch in order.step(step):
            for example in micro_batch:
                found[example] = step
    return tuple(found)


def log_likelihoods(model: Path, rows: Sequence[dict[str, Any]], how: CausalConfig) -> Floats:
    """(N,) mean log-likelihood (nats per trained token) of every example that the rows become under `how`."""
    kernel = hf.load(model, device="cpu").float().eval()
    objective = Causal(Tokenizer.load(model), how)
    objective.check(kernel)
    examples: list[CausalExample] = prepare(objective, rows, "the rows")
    return np.array([_mean(kernel, objective, example) for example in examples])


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
