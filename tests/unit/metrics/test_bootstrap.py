"""Intervals: seeded, ordered, and honest in the corners."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.errors import ConfigError, DataError
from nacre.metrics import classification as metrics
from nacre.metrics.bootstrap import Bootstrap, interval, interval_of, mean_interval, paired, wilson


def rows(seed: int, n: int = 300, right: float = 0.8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, n)
    predicted = np.where(rng.random(n) < right, true, rng.integers(0, 4, n))
    return metrics.class_rows(true, predicted, 4)


def test_the_same_seed_gives_the_same_interval() -> None:
    table = rows(0)
    assert interval(table, metrics.macro_f1_of_sums) == interval(table, metrics.macro_f1_of_sums)
    other = interval(table, metrics.macro_f1_of_sums, Bootstrap(seed=1))
    assert other != interval(table, metrics.macro_f1_of_sums)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_interval_holds_the_value_and_narrows_with_the_level(method: str) -> None:
    table = rows(1)
    wide = interval(table, metrics.accuracy_of_sums, Bootstrap(method=method))  # type: ignore[arg-type]
    narrow = interval(table, metrics.accuracy_of_sums, Bootstrap(level=0.5, method=method))  # type: ignore[arg-type]
    assert wide.low < narrow.low < wide.value < narrow.high < wide.high
    assert wide.method == method


def test_accuracy_agrees_with_wilson() -> None:
    table = rows(2, n=1000)
    found = interval(table, metrics.accuracy_of_sums, Bootstrap(resamples=4000))
    check = wilson(round(found.value * 1000), 1000)
    assert (found.low, found.high) == pytest.approx((check.low, check.high), abs=0.004)


def test_a_perfect_score_has_a_point_interval_and_wilson_says_more() -> None:
    table = metrics.class_rows([0, 1] * 20, [0, 1] * 20, 2)
    assert interval(table, metrics.accuracy_of_sums).low == 1.0
    assert 0.9 < wilson(40, 40).low < 1.0


def test_paired_sees_what_separate_intervals_do_not() -> None:
    """Two systems that differ on 15 of 500 examples, always in favour of the second."""
    true = np.zeros(500, dtype=np.int64)
    first = (np.arange(500) % 5 == 0).astype(np.int64)
    second = first.copy()
    second[np.flatnonzero(first)[:15]] = 0
    tables = [metrics.class_rows(true, guess, 2) for guess in (first, second)]
    difference = paired(*tables, metrics.accuracy_of_sums)
    assert difference.value == pytest.approx(0.03)
    assert difference.low > 0
    assert difference.p_value < 0.01
    separate = [interval(table, metrics.accuracy_of_sums) for table in tables]
    assert separate[0].high > separate[1].low


def test_a_system_does_not_differ_from_itself() -> None:
    difference = paired(rows(3), rows(3), metrics.accuracy_of_sums)
    assert (difference.value, difference.p_value) == (0.0, 1.0)


def test_paired_needs_the_same_examples() -> None:
    with pytest.raises(DataError, match="300 and 200"):
        paired(rows(0), rows(0, n=200), metrics.accuracy_of_sums)


def test_resamples_without_a_value_are_counted() -> None:
    def auc(index: np.ndarray) -> float:
        return float("nan") if 0 not in index else float(index.mean())

    assert interval_of(auc, 20).undefined > 0


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows(4)
    whole = interval(table, metrics.accuracy_of_sums)
    monkeypatch.setattr("nacre.metrics.bootstrap._CHUNK", 1000)
    assert interval(table, metrics.accuracy_of_sums) == whole


def test_mean_interval_of_a_constant_is_a_point() -> None:
    found = mean_interval(np.full(10, 0.25))
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("bad", [{"resamples": 10}, {"level": 1.0}, {"method": "studentised"}])
def test_settings_are_checked(bad: dict) -> None:
    with pytest.raises(ConfigError):
        Bootstrap(**bad)


def test_no_example_is_an_error() -> None:
    with pytest.raises(DataError, match="no example"):
        interval(np.zeros((0, 3)), metrics.accuracy_of_sums)
