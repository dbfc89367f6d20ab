"""The contrast objective against its formula, and what is no negative."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, kernel, rng, tokenizer

from nacre.errors import ConfigError, DataError
from nacre.train.objective import prepare
from nacre.train.objectives.config import ContrastConfig
from nacre.train.objectives.contrast import Contrast

ROWS = [{"query": english, "positive": chinese} for english, chinese in zip(ENGLISH, CHINESE, strict=False)]


def measured(rows: list[dict[str, Any]], **config: Any) -> tuple[Contrast, Any, Any]:
    objective = Contrast(tokenizer("bert"), ContrastConfig(**config))
    batch = objective.collate([objective.encode(row) for row in rows], rng())
    return objective, batch, objective.loss(kernel("bert", "none"), batch)


@pytest.mark.parametrize("symmetric", [False, True])
def test_loss_is_the_cross_entropy_of_the_own_positive(symmetric: bool) -> None:
    objective, batch, loss = measured(ROWS, temperature=0.1, symmetric=symmetric)
    queries, positives = objective.predict(kernel("bert", "none"), batch)
    cosines = queries.double() @ positives.double().T / 0.1
    sides = [cosines, cosines.T] if symmetric else [cosines]
    wanted = sum(-float(side.log_softmax(-1).diagonal().sum()) for side in sides) / len(sides)
    assert float(loss.sum.detach()) == pytest.approx(wanted, rel=1e-5)
    assert int(loss.count) == len(ROWS)
    assert torch.allclose(queries.norm(dim=-1), torch.ones(len(ROWS)), atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"query": "Where is it?", "positive": ROWS[0]["positive"]},
        {"query": ROWS[0]["query"], "positive": "另一个答案"},
    ],
    ids=["the same positive", "the same query"],
)
def test_a_true_positive_is_never_a_negative(other: dict[str, str]) -> None:
    _, batch, loss = measured([ROWS[0], other])
    assert batch.excluded.tolist() == [[False, True], [True, False]]
    assert float(loss.sum.detach()) == 0.0  # nothing is left to be told apart
    assert math.isfinite(float(loss.sum))


@pytest.mark.parametrize("symmetric", [False, True])
def test_relevant_ids_exclude_one_way(symmetric: bool) -> None:
    """The second document answers the first query too; the first does not answer the second query."""
    rows = [
        {**ROWS[0], "positive_id": "a", "relevant": ["a", "b"]},
        {**ROWS[1], "positive_id": "b", "relevant": ["b"]},
    ]
    objective, batch, loss = measured(rows, symmetric=symmetric)
    assert batch.excluded.tolist() == [[False, True], [False, False]]
    queries, positives = objective.predict(kernel("bert", "none"), batch)
    cosines = queries @ positives.T / objective.config.temperature
    one_way = float(torch.nn.functional.softplus(cosines[1, 0] - cosines[1, 1]))
    back = float(torch.nn.functional.softplus(cosines[1, 0] - cosines[0, 0]))
    assert float(loss.sum.detach()) == pytest.approx((one_way + back) / 2 if symmetric else one_way, rel=1e-4)


def test_equal_texts_under_different_ids_are_no_negatives() -> None:
    rows = [{**ROWS[0], "positive_id": "a"}, {"query": "else", "positive": ROWS[0]["positive"], "positive_id": "b"}]
    assert measured(rows)[1].excluded.tolist() == [[False, True], [True, False]]


def test_a_batch_of_one_teaches_nothing_and_is_finite() -> None:
    _, _, loss = measured(ROWS[:1])
    assert float(loss.sum.detach()) == 0.0


def test_padding_and_order_change_nothing() -> None:
    objective, _, loss = measured(ROWS)
    longer = [*ROWS, {"query": "word " * 50, "positive": "词" * 40}]
    batch = objective.collate([objective.encode(row) for row in longer], rng())
    alone = objective.predict(kernel("bert", "none"), objective.collate([objective.encode(ROWS[0])], rng()))
    padded = objective.predict(kernel("bert", "none"), batch)
    assert torch.allclose(alone.queries[0], padded.queries[0], atol=1e-5)
    turned = measured(ROWS[::-1])[2]
    assert float(turned.sum) == pytest.approx(float(loss.sum), rel=1e-5)


def test_training_pulls_pairs_together() -> None:
    objective = Contrast(tokenizer("bert"), ContrastConfig())
    batch = objective.collate(prepare(objective, ROWS), rng())
    model = kernel("bert", "none").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    first = float(objective.loss(model, batch).mean)
    for _ in range(30):
        optimizer.zero_grad()
        objective.loss(model, batch).mean.backward()
        optimizer.step()
    assert float(objective.loss(model, batch).mean) < first / 4


def test_wrong_rows_and_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        ContrastConfig(temperature=0.0)
    objective = Contrast(tokenizer("bert"), ContrastConfig(context=4))
    with pytest.raises(DataError, match="same positive"):
        prepare(objective, [{"query": "a", "positive": "b"}, {"query": "c", "positive": "b"}])
    with pytest.raises(DataError, match="'positive' is missing"):
        prepare(objective, [{"query": "a"}])
    objective.encode({"query": "one two three four five", "positive": "b"})
    assert objective.truncated["queries cut at the context"] == 1
