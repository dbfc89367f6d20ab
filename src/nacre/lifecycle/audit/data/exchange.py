"""Was a model trained on rows in the very order in which they are published? A test with an exact p.

A model that has read a file from top to bottom finds the file's own order likelier than another order of the same rows
(Oren et al. 2023, arXiv 2310.17623). Where rows were put in order at random, every order is as likely under the null.
In each of several shards, rows that stand together are scored in their own order and in shuffled ones; under the
null any of these could have been the file's own, so that drawing one of each shard gives the exact distribution.
Whether the rows' order is random at all is looked at in the text alone: a story in parts has an order that any model
prefers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nacre.lifecycle.audit.data.scoring import Floats, Scorer, check_finite
from nacre.lifecycle.audit.data.texts import Rows, located, plain_text
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.verdict import Evidence
from nacre.metrics.multiple import holm

NAME = "order of publication"
LEAST_SHARDS, LEAST_ROWS = 4, 3
WINDOW = 64  # rows of a shard at most
ASSUMPTION = (
    "the rows were put in their order at random, or in no order that the text of one row foretells from another"
)
CONTROL_ALPHA = 0.05


@dataclass(frozen=True)
class ExchangeTest:
    """`shards` of rows that stand together, each scored in its own order and in `shuffles` others; `draws` from what
    that gives, so that the least p is 1 over one more. `max_flops` bounds the scoring: fewer shards where needed."""

    shards: int = 24
    shuffles: int = 19
    draws: int = 9_999
    seed: int = 0
    max_flops: float = 2e13


@dataclass(frozen=True)
class Shard:
    """Rows that stand together and fit into one context: their texts and tokens."""

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)


def exchange_test(scorer: Scorer, rows: Rows, settings: ExchangeTest | None = None) -> Evidence:
    """The evidence that the model was trained on the rows in their order. Without `value` where too few rows fit.

    Cost: shards x (shuffles + 1) forward passes over a context.
    """
    how = settings or ExchangeTest()
    shards = list(shards_of(scorer, rows, how.shards))
    cost = (how.shuffles + 1) * scorer.context * scorer.flops_per_token
    shards = shards[: int(how.max_flops / cost)]
    if len(shards) < LEAST_SHARDS:
        template = "{n} groups of {rows} or more rows fit a context of {context} tokens and the bound on cost: too few"
        return Evidence(NAME, None, text=say(template, n=len(shards), rows=LEAST_ROWS, context=scorer.context))
    rng = np.random.default_rng(how.seed)
    orders = [
        [list(range(len(one))), *(rng.permutation(len(one)).tolist() for _ in range(how.shuffles))] for one in shards
    ]
    likely = np.array([_likely(scorer, shard, tried) for shard, tried in zip(shards, orders, strict=True)])
    check_finite(likely.ravel())
    value, p = drawn_p(likely, how.draws, rng)
    control = _control(shards, orders, how.draws, rng)
    is_free = control > CONTROL_ALPHA
    found = say(
        "in {n} groups of {rows:.0f} rows the published order lies {value:+.2f} standard deviations above shuffled "
        "ones",
        n=len(shards), rows=float(np.mean([len(one) for one in shards])), value=value,
    )  # fmt: skip
    void = say(
        "{found}; but the text alone tells the order (p {control:.2g}), so this decides nothing",
        found=found,
        control=control,
    )
    detail = {"shards": len(shards), "shuffles": how.shuffles, "draws": how.draws, "text_control_p": control}
    return Evidence(NAME, value, p, "exact" if is_free else "heuristic", found if is_free else void, ASSUMPTION, detail)


def shards_of(scorer: Scorer, rows: Rows, count: int) -> Iterator[Shard]:
    """At most `count` groups of neighbouring rows, spread over all, each as long as a context takes."""
    total = sum(1 for _, row in located(rows) if plain_text(row))
    room = max(LEAST_ROWS, total // max(1, min(count, total // LEAST_ROWS or 1)))
    texts: list[str] = []
    for number, text in enumerate(text for _, row in located(rows) if (text := plain_text(row))):
        if number % room < min(room, WINDOW):
            texts.append(text)
        if number % room == room - 1:
            shard = _fitted(scorer, texts)
            texts = []
            if len(shard) >= LEAST_ROWS:
                yield shard


def _fitted(scorer: Scorer, texts: Sequence[str]) -> Shard:
    left = scorer.context - 1
    kept: list[tuple[str, tuple[int, ...]]] = []
    for text in texts:
        ids = tuple(scorer.ids(text + "\n"))
        if len(ids) > left:
            break
        left -= len(ids)
        kept.append((text, ids))
    return Shard(tuple(text for text, _ in kept), tuple(ids for _, ids in kept))


def _likely(scorer: Scorer, shard: Shard, orders: Sequence[Sequence[int]]) -> Floats:
    return scorer.sums([[token for row in order for token in shard.ids[row]] for order in orders])


def drawn_p(values: Floats, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """The mean over shards of how far column 0 of (S, R + 1) values lies above its row, in standard deviations, and the
    one-sided p of as much when any column of each row could have been the first: (1 + #{as much}) / (draws + 1)."""
    centred = values - values.mean(axis=1, keepdims=True)
    scale = centred.std(axis=1, keepdims=True)
    standard = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
    observed = float(standard[:, 0].sum())
    columns = rng.integers(values.shape[1], size=(draws, len(values)))
    drawn = standard[np.arange(len(values)), columns].sum(axis=1)
    return observed / len(values), (1 + int((drawn >= observed - 1e-9).sum())) / (draws + 1)


def _control(
    shards: Sequence[Shard], orders: Sequence[Sequence[Sequence[int]]], draws: int, rng: np.random.Generator
) -> float:
    """The smaller corrected p of two tests without a model: neighbours share words, neighbours are of like length."""
    alike = np.array(
        [[_likeness(_grams(one), order) for order in tried] for one, tried in zip(shards, orders, strict=True)]
    )
    even = np.array([[_evenness(one, order) for order in tried] for one, tried in zip(shards, orders, strict=True)])
    return min(holm([drawn_p(values, draws, rng)[1] for values in (alike, even)]))


def _grams(shard: Shard) -> list[set[str]]:
    return [{text[at : at + 3] for at in range(max(1, len(text) - 2))} for text in shard.texts]


def _likeness(grams: Sequence[set[str]], order: Sequence[int]) -> float:
    neighbours = pairwise(order)
    return sum(len(grams[a] & grams[b]) / max(1, len(grams[a] | grams[b])) for a, b in neighbours)


def _evenness(shard: Shard, order: Sequence[int]) -> float:
    return -float(sum(abs(len(shard.texts[a]) - len(shard.texts[b])) for a, b in pairwise(order)))
