"""Statistics of the probes: tails, grids, low ranks, paths, what they do not change under."""

from __future__ import annotations

import math

import numpy as np
import pytest
from audit_models import Arrays, side_of
from scipy import stats

from nacre.errors import DataError
from nacre.lifecycle.audit import calibration
from nacre.lifecycle.audit.weights import basis, exact, invariant, polar
from nacre.lifecycle.audit.weights.delta import low_rank
from nacre.lifecycle.audit.weights.levels import pattern, rounding
from nacre.lifecycle.audit.weights.matching import fisher, log10_tail, monotone_path
from nacre.lifecycle.audit.weights.side import Settings

SETTINGS = Settings()


def drawn(seed: int, layers: int = 2, hidden: int = 48, ffn: int = 96, gated: bool = True) -> Arrays:
    draw = np.random.default_rng(seed)
    arrays: Arrays = {(None, "embedding"): draw.normal(size=(300, hidden)).astype(np.float32)}
    for layer in range(layers):
        for role in ("gate", "up") if gated else ("up",):
            arrays[layer, role] = draw.normal(size=(ffn, hidden)).astype(np.float32)
        arrays[layer, "down"] = draw.normal(size=(hidden, ffn)).astype(np.float32)
        arrays[layer, "norm2"] = (1 + 0.2 * draw.random(hidden)).astype(np.float32)
    return arrays


def test_tails_are_those_of_t_and_go_on_where_floats_end() -> None:
    for count in (5, 100, 512, 3000):
        for rho in np.linspace(-0.95, 0.95, 39):
            t = rho * math.sqrt((count - 2) / (1 - rho**2))
            expected = stats.t.logsf(t, count - 2) / math.log(10)
            if expected > -200 and expected > -math.lgamma(count + 1) / math.log(10):
                assert log10_tail(float(rho), count) == pytest.approx(expected, abs=1e-9, rel=1e-9)
    assert log10_tail(0.999, 512) < log10_tail(0.99, 512) < -400
    assert log10_tail(1.0, 512) == pytest.approx(-math.lgamma(513) / math.log(10))
    assert log10_tail(0.9, 11_008) < -3000


def test_fisher_is_scipys_and_does_not_reach_zero() -> None:
    p = [0.02, 0.4, 0.7]
    assert 10 ** fisher([math.log10(one) for one in p]) == pytest.approx(stats.combine_pvalues(p).pvalue)
    assert fisher([-900.0, -900.0]) < -1790


def test_p_of_unrelated_models_is_uniform() -> None:
    p = [basis.probe(side_of(drawn(i)), side_of(drawn(1000 + i)), SETTINGS).p_value for i in range(40)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize("gated", [True, False])
def test_invariant_survives_a_change_of_basis_and_basis_does_not(gated: bool) -> None:
    a, draw = drawn(0, gated=gated), np.random.default_rng(9)
    turn = np.linalg.qr(draw.normal(size=(48, 48)))[0].astype(np.float32)
    b: Arrays = {(None, "embedding"): a[None, "embedding"] @ turn}
    for layer in range(2):
        order = draw.permutation(96)
        scale = np.exp(draw.normal(size=96))[:, None].astype(np.float32) if gated else np.float32(1)
        for role in ("gate", "up") if gated else ("up",):
            folded = (a[layer, role] * a[layer, "norm2"]) @ turn
            b[layer, role] = (folded * (scale if gated and role == "up" else 1))[order]
        b[layer, "down"] = (turn.T @ a[layer, "down"] / np.asarray(scale).T)[:, order]
        b[layer, "norm2"] = np.ones(48, np.float32)
    assert invariant.probe(side_of(a), side_of(b), SETTINGS).detail["rho"] > 0.99
    assert abs(basis.probe(side_of(a), side_of(b), SETTINGS).value or 0) < 0.3
    assert abs(invariant.probe(side_of(a), side_of(drawn(5, gated=gated)), SETTINGS).value or 0) < 5


def test_layers_are_found_where_they_went() -> None:
    a = drawn(0, layers=4)
    b = {(None if i is None else {1: 0, 2: 1, 3: 2}[i], role): v for (i, role), v in a.items() if i != 0}
    found = invariant.probe(side_of(b), side_of(a), SETTINGS)
    assert [(one["a"], one["b"]) for one in found.detail["layers"]] == [(0, 1), (1, 2), (2, 3)]
    assert exact.probe(side_of(b), side_of(a), SETTINGS).detail["moved"] == {"0": [1], "1": [2], "2": [3]}


def test_equal_defaults_are_no_evidence() -> None:
    a, b = drawn(0), drawn(1)
    for side in (a, b):
        side[0, "norm1"] = np.ones(48, np.float32)
        side[0, "up.bias"] = np.zeros(96, np.float32)
    found = exact.probe(side_of(a), side_of(b), SETTINGS)
    assert (found.detail["equal"], found.detail["counted"], found.p_value) == (2, 0, 1.0)


def test_path_is_the_best_monotone_one() -> None:
    score = np.zeros((3, 5), np.float32)
    score[0, 1] = score[1, 2] = score[2, 4] = 1
    assert monotone_path(score) == [(0, 1), (1, 2), (2, 4)]
    assert monotone_path(np.zeros((3, 3), np.float32)) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [0, 32])
def test_grids_are_found_with_their_group(bits: int, group: int) -> None:
    values = np.random.default_rng(bits).normal(size=(128, 96)).astype(np.float32)
    parts = values.reshape(-1, group) if group else values
    step = np.abs(parts).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    found = rounding((np.rint(parts / step) * step).reshape(values.shape).astype(np.float32))
    assert found is not None
    assert found.bits == bits
    assert rounding(values) is None
    assert rounding(np.where(np.abs(values) < 1.6, 0, values).astype(np.float32)) is None


def test_patterns_of_zeros() -> None:
    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    order = np.argsort(np.argsort(np.abs(values.reshape(-1, 4)), axis=1), axis=1)
    assert pattern(np.where(order.reshape(64, 64) < 2, 0, values).astype(np.float32)) == "2:4"
    assert pattern(np.where(np.abs(values) < 0.7, 0, values).astype(np.float32)) is None


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_rank_is_told_above_rounding(rank: int) -> None:
    draw = np.random.default_rng(rank)
    low = draw.normal(size=(96, rank)) @ draw.normal(size=(rank, 200))
    found = low_rank(low + 1e-3 * draw.normal(size=low.shape))
    assert (found[0], found[1] > 0.99) == (rank, True)
    assert low_rank(draw.normal(size=(96, 200)))[0] == 0


def test_polar_rate_is_continuous_and_its_trace_small_by_chance() -> None:
    assert polar.rate(0.5) == pytest.approx(polar.rate(0.5 + 1e-9), abs=1e-6)
    assert abs(polar.probe(side_of(drawn(0)), side_of(drawn(1)), SETTINGS).value or 0) < 0.2


def test_calibration_counts_ties_against_the_subject() -> None:
    table = calibration.parse({"nulls": {"invariant": [3.0, 1.0, 2.0]}, "power": []})
    assert table.p_value("invariant", 2.0) == (0.75, "calibrated")
    assert table.p_value("invariant", 9.0) == (0.25, "calibrated")
    assert table.p_value("body", 9.0) == (None, "heuristic")
    with pytest.raises(DataError):
        calibration.parse({"nulls": 3})
