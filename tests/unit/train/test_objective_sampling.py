"""Class weights and balanced epochs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nacre.errors import ConfigError, DataError
from nacre.train.sampling import balanced_indexes, class_weights

LABELS = [0] * 50 + [1] * 7 + [2] * 20


def test_inverse_weights_make_classes_equal() -> None:
    counts = [50, 7, 20]
    weights = class_weights(counts, "inverse")
    assert weights is not None
    products = np.array(weights) * counts
    assert np.allclose(products, products[0])
    assert products.sum() == pytest.approx(sum(counts))


def test_effective_weights_against_the_formula_and_its_limits() -> None:
    counts, beta = [50, 7, 20], 0.99
    raw = np.array([(1 - beta) / (1 - beta**count) for count in counts])
    expected = raw * sum(counts) / (raw * counts).sum()
    assert np.allclose(class_weights(counts, "effective", beta), expected, rtol=1e-12)
    assert np.allclose(class_weights(counts, "effective", 0.0), np.ones(3))
    inverse = class_weights(counts, "inverse")
    assert inverse is not None
    assert np.allclose(class_weights(counts, "effective", 1 - 1e-12), inverse, rtol=1e-6)


def test_classes_without_rows_have_finite_weights() -> None:
    weights = class_weights([5, 0], "inverse")
    assert weights == pytest.approx((1.0, 5.0))
    assert class_weights([5, 0], "none") is None


def test_over_sampling_repeats_in_whole_rounds() -> None:
    drawn = balanced_indexes(LABELS, "over", seed=1, epoch=0)
    assert Counter(LABELS[row] for row in drawn) == {0: 50, 1: 50, 2: 50}
    times = Counter(drawn)
    assert all(times[row] == 1 for row in range(50))
    assert {times[row] for row in range(50, 57)} == {7, 8}
    assert {times[row] for row in range(57, 77)} == {2, 3}


def test_under_sampling_takes_another_part_each_epoch() -> None:
    drawn = [balanced_indexes(LABELS, "under", seed=1, epoch=epoch) for epoch in range(40)]
    assert all(Counter(LABELS[row] for row in one) == {0: 7, 1: 7, 2: 7} for one in drawn)
    assert {row for one in drawn for row in one} == set(range(len(LABELS)))


@pytest.mark.parametrize("how", ["none", "over", "under"])
def test_order_is_a_function_of_seed_and_epoch(how: str) -> None:
    one = balanced_indexes(LABELS, how, seed=3, epoch=2)  # type: ignore[arg-type]
    assert one == balanced_indexes(LABELS, how, seed=3, epoch=2)  # type: ignore[arg-type]
    assert one != balanced_indexes(LABELS, how, seed=3, epoch=3)  # type: ignore[arg-type]
    assert one != balanced_indexes(LABELS, how, seed=4, epoch=2)  # type: ignore[arg-type]
    assert balanced_indexes([], how, seed=0, epoch=0) == []  # type: ignore[arg-type]


def test_what_cannot_be_weighed() -> None:
    with pytest.raises(DataError, match="no rows"):
        class_weights([0, 0], "inverse")
    with pytest.raises(ConfigError, match="beta"):
        class_weights([1, 2], "effective", 1.0)
    with pytest.raises(ConfigError, match="weighting"):
        class_weights([1, 2], "sqrt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="balance"):
        balanced_indexes([0], "both", seed=0, epoch=0)  # type: ignore[arg-type]
