"""Losses against formulas written out in float64, and the memory-saving form against the plain one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.train.loss import class_loss, cross_entropy, head_cross_entropy, token_nll
from nacre.train.objective import IGNORE
from nacre.train.objectives.config import ClassLoss, TokenLoss

N, D, V = 23, 12, 37
SETTINGS = [
    TokenLoss(),
    TokenLoss(label_smoothing=0.1),
    TokenLoss(softcap=5.0),
    TokenLoss(z_loss=1e-2),
    TokenLoss(label_smoothing=0.2, softcap=3.0, z_loss=1e-2),
]


def problem(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    hidden = torch.randn(N, D, generator=rng)
    weight = torch.randn(V, D, generator=rng)
    targets = torch.randint(V, (N,), generator=rng)
    targets[[0, 5, N - 1]] = IGNORE
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def oracle(logits: np.ndarray, targets: list[int], how: TokenLoss) -> tuple[float, int]:
    """The definition, one position at a time, in float64."""
    total, count = 0.0, 0
    for row, target in zip(logits.astype(np.float64), targets, strict=True):
        if target == IGNORE:
            continue
        if how.softcap is not None:
            row = how.softcap * np.tanh(row / how.softcap)
        log_z = math.log(np.exp(row - row.max()).sum()) + row.max()
        log_p = row - log_z
        smooth = how.label_smoothing
        total += -(1 - smooth) * log_p[target] - smooth / len(row) * log_p.sum() + how.z_loss * log_z**2
        count += 1
    return total, count


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_trap_06_cross_entropy_is_its_definition(how: TokenLoss, dtype: torch.dtype) -> None:
    hidden, weight, targets = problem(dtype)
    logits = (hidden @ weight.T).detach()
    total, count = cross_entropy(logits, targets, how)
    expected, expected_count = oracle(logits.double().numpy(), targets.tolist(), how)
    # bfloat16 logits are summed in float32: what differs from float64 is float32 alone.
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert total.item() == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 2e-6)
    assert int(count) == expected_count == N - 3


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_trap_06_chunks_have_the_values_and_gradients_of_the_whole(
    how: TokenLoss, chunk: int, dtype: torch.dtype
) -> None:
    results = []
    for size in (0, chunk):
        hidden, weight, targets = problem(dtype)
        setting = TokenLoss(how.label_smoothing, how.softcap, how.z_loss, size)
        total, count = head_cross_entropy(lambda part, weight=weight: part @ weight.T, hidden, targets, setting)
        total.backward()
        results.append((total.detach(), count, hidden.grad, weight.grad))
    whole, pieces = results
    # Chunks of bfloat16 add their weight gradients in bfloat16, in another order.
    close = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 5e-2, "atol": 5e-2}
    assert torch.allclose(pieces[0], whole[0], rtol=1e-10 if dtype == torch.float64 else 1e-6)
    assert int(pieces[1]) == int(whole[1])
    for mine, reference in zip(pieces[2:], whole[2:], strict=True):
        assert mine is not None
        assert reference is not None
        assert torch.allclose(mine, reference, **close)
    ignored = problem()[2] == IGNORE
    assert pieces[2] is not None
    assert not pieces[2][ignored].any()


def test_trap_06_chunks_never_hold_the_logits_of_the_whole() -> None:
    hidden, weight, targets = problem()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        head_cross_entropy(lambda part: part @ weight.T, hidden, targets, TokenLoss(chunk=4))
    assert max(saved, default=0) < N * V / 2


@pytest.mark.parametrize("how", SETTINGS)
def test_trap_05_nothing_to_train_is_zero_and_finite(how: TokenLoss) -> None:
    hidden, weight, targets = problem()
    total, count = cross_entropy(hidden @ weight.T, torch.full_like(targets, IGNORE), how)
    total.backward()
    assert (total.item(), int(count)) == (0.0, 0)
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_sums_over_parts_add_up_in_float64() -> None:
    hidden, weight, targets = problem(torch.float64)
    logits = hidden @ weight.T
    whole, _ = cross_entropy(logits, targets)
    parts = sum(cross_entropy(logits[at : at + 3], targets[at : at + 3])[0] for at in range(0, N, 3))
    assert torch.allclose(whole, torch.as_tensor(parts), rtol=1e-12)


def test_evaluation_scores_tokens_without_smoothing() -> None:
    hidden, weight, targets = problem(torch.float64)
    nll = token_nll((hidden @ weight.T).detach(), targets, softcap=5.0)
    expected, _ = oracle((hidden @ weight.T).detach().numpy(), targets.tolist(), TokenLoss(softcap=5.0))
    assert nll.sum().item() == pytest.approx(expected, rel=1e-12)
    assert (nll[targets == IGNORE] == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 4.0)])
def test_focal_loss_is_the_published_formula(gamma: float, weights: tuple[float, ...] | None) -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(40, 3)) * 4, rng.integers(0, 3, size=40)
    expected = 0.0
    for row, target in zip(logits, targets, strict=True):
        p = math.exp(row[target]) / sum(math.exp(value) for value in row)
        expected += -(1.0 if weights is None else weights[target]) * (1 - p) ** gamma * math.log(p)
    total, rows = class_loss(torch.tensor(logits), torch.tensor(targets), ClassLoss(focal_gamma=gamma, weights=weights))
    assert total.item() == pytest.approx(expected, rel=1e-10)
    assert int(rows) == 40


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradient_is_finite_where_a_class_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    total, _ = class_loss(logits, torch.tensor([0, 0]), ClassLoss(focal_gamma=gamma))
    total.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_focal_gradient_against_finite_differences() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    targets, how = torch.tensor([0, 1, 2, 3, 0, 1]), ClassLoss(focal_gamma=2.0, weights=(1.0, 2.0, 0.5, 1.0))
    assert torch.autograd.gradcheck(lambda x: class_loss(x, targets, how)[0], logits)


def test_smoothed_and_weighted_class_loss_is_its_definition() -> None:
    rng = np.random.default_rng(3)
    logits, targets, weights, smooth = rng.normal(size=(10, 3)), rng.integers(0, 3, size=10), (0.5, 1.0, 4.0), 0.1
    expected = 0.0
    for row, target in zip(logits, targets, strict=True):
        log_p = row - math.log(np.exp(row).sum())
        expected += -(1 - smooth) * weights[target] * log_p[target] - smooth / 3 * float(np.dot(weights, log_p))
    how = ClassLoss(label_smoothing=smooth, weights=weights)
    assert class_loss(torch.tensor(logits), torch.tensor(targets), how)[0].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    "values", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"softcap": 0.0}, {"z_loss": -1.0}, {"chunk": -1}]
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TokenLoss(**values)  # type: ignore[arg-type]
