"""Was a model trained on rows in the very order in which they are published? A test with an exact p.

A model that has read a file from top to bottom finds the file's own order likelier than another order of the same rows
(Oren et al. 2023, arXiv 2310.17623). Where rows were put in order at random, every order is as likely under the null.
In each of several shards, rows that stand together are scored in their own order and in shuffled ones; under the
null any of these could have been the file's own, so that drawing one of each shard gives the exact distribution. How a
foreign run joined its rows is unknown, so they are scored both as training packs them, each with its end token, and as
the lines of one text; the smaller p is doubled.

All of it stands on the order being random. A file sorted by time, by subject or by source has an order that a model
prefers which never saw it, and no look at the text alone can rule that out. So the test decides only where somebody
answers for the order (`is_random`), and not even then where shared words or lengths tell it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
ASSUMPTION = "the rows of the data set were put in their order at random"
ENDED, LINES = "each with its end token", "as lines of one text"
CONTROL_ALPHA = 0.05


@dataclass(frozen=True)
class ExchangeTest:
    """`shards` of rows that stand together, each scored in its own order and in `shuffles` others; `draws` from what
    that gives, so that the least p is 1 over one more. `max_flops` bounds the scoring: fewer shards where needed.
    `is_random`: somebody answers for it that the rows' order was drawn at random; else the test decides nothing."""

    shards: int = 24
    shuffles: int = 19
    draws: int = 9_999
    seed: int = 0
    max_flops: float = 2e13
    is_random: bool = False


@dataclass(frozen=True)
class Shard:
    """Rows that stand together and fit into one context, however joined: their texts and tokens."""

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)


def exchange_test(scorer: Scorer, rows: Rows, settings: ExchangeTest | None = None) -> Evidence:
    """The evidence that the model was trained on the rows in their order. Without `value` where too few rows fit.

    Cost: shards x (shuffles + 1) forward passes over a context, for each of two ways to join rows.
    """
    how = settings or ExchangeTest()
    shards = list(shards_of(scorer, rows, how.shards))
    joins = _joins(scorer)
    cost = len(joins) * (how.shuffles + 1) * scorer.context * scorer.flops_per_token
    shards = shards[: int(how.max_flops / cost)]
    if len(shards) < LEAST_SHARDS:
        template = "{n} groups of {rows} or more rows fit a context of {context} tokens and the bound on cost: too few"
        return Evidence(NAME, None, text=say(template, n=len(shards), rows=LEAST_ROWS, context=scorer.context))
    rng = np.random.default_rng(how.seed)
    orders = [
        [list(range(len(one))), *(rng.permutation(len(one)).tolist() for _ in range(how.shuffles))] for one in shards
    ]
    found = {join: drawn_p(_likely(scorer, shards, orders, end), how.draws, rng) for join, end in joins.items()}
    control = _control(shards, orders, how.draws, rng)
    return _evidence(found, shards, control, how)


def _joins(scorer: Scorer) -> Mapping[str, tuple[int, ...]]:
    """The ways to join rows, with the tokens that end each row."""
    lines = {LINES: tuple(scorer.ids("\n"))}
    return lines if scorer.tokenizer.eos_id is None else {ENDED: (scorer.tokenizer.eos_id,), **lines}


def _evidence(
    found: Mapping[str, tuple[float, float]], shards: Sequence[Shard], control: float, how: ExchangeTest
) -> Evidence:
    best = min(found, key=lambda one: found[one][1])
    value, p = found[best][0], min(holm([p for _, p in found.values()]))
    text = say(
        "in {n} groups of {rows:.0f} rows the published order lies {value:+.2f} standard deviations above shuffled "
        "ones, {join}",
        n=len(shards), rows=float(np.mean([len(one) for one in shards])), value=value, join=best,
    )  # fmt: skip
    if control <= CONTROL_ALPHA:
        template = "{found}; but the text alone tells the order (p {control:.2g}), so this decides nothing"
        text = say(template, found=text, control=control)
    elif not how.is_random:
        text = say("{found}; nobody answers for it that this order is random, so this decides nothing", found=text)
    else:
        text = say("{found}, if it is true that this order is random (--shuffled)", found=text)
    decides = how.is_random and control > CONTROL_ALPHA
    detail = {"shards": len(shards), "shuffles": how.shuffles, "draws": how.draws, "text_control_p": control,
              "joins": {join: {"value": value, "p": p} for join, (value, p) in found.items()}}  # fmt: skip
    return Evidence(NAME, value, p, "exact" if decides else "heuristic", text, ASSUMPTION, detail)


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
    left, end = scorer.context - 1, max(map(len, _joins(scorer).values()))
    kept: list[tuple[str, tuple[int, ...]]] = []
    for text in texts:
        ids = tuple(scorer.ids(text))
        if len(ids) + end > left:
            break
        left -= len(ids) + end
        kept.append((text, ids))
    return Shard(tuple(text for text, _ in kept), tuple(ids for _, ids in kept))


def _likely(
    scorer: Scorer, shards: Sequence[Shard], orders: Sequence[Sequence[Sequence[int]]], end: Sequence[int]
) -> Floats:
    """(S, R + 1) log-likelihood in nats of every shard in each of its orders, its rows ended by `end`."""
    values = np.array([
        scorer.sums([[token for row in order for token in (*shard.ids[row], *end)] for order in tried])
        for shard, tried in zip(shards, orders, strict=True)
    ])  # fmt: skip
    check_finite(values.ravel())
    return values


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
