"""Several models in one, without training. All take models of one config; `share` is that of the first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nacre.lifecycle.audit.attacks.model import Model, generator, require, same_shapes


def merge_linear(first: Model, second: Model, share: float) -> Model:
    """share * first + (1 - share) * second (Wortsman et al. 2022, "Model soups")."""
    same_shapes((first, second))
    return first.with_state({name: one * share + second.state[name] * (1 - share) for name, one in first.state.items()})


def merge_slerp(first: Model, second: Model, share: float) -> Model:
    """Along the great circle between each pair of tensors (Shoemake 1985); linear where they are nearly parallel."""
    same_shapes((first, second))
    return first.with_state({name: _slerp(one, second.state[name], share) for name, one in first.state.items()})


def _slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    a, b = first.double().flatten(), second.double().flatten()
    cosine = (a @ b / (a.norm() * b.norm()).clamp(min=1e-12)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if torch.sin(angle) < 1e-4:
        return first * share + second * (1 - share)
    mixed = (torch.sin(share * angle) * a + torch.sin((1 - share) * angle) * b) / torch.sin(angle)
    return mixed.reshape(first.shape).to(first.dtype)


def merge_ties(base: Model, models: Sequence[Model], weight: float, density: float = 0.5) -> Model:
    """TIES (Yadav et al. 2023): each model's change trimmed to its largest `density`, the sign of the sum elected,
    and the changes that agree with it averaged; `weight` times that is added to the base."""
    same_shapes((base, *models))
    changed = {}
    for name, start in base.state.items():
        deltas = torch.stack([_trimmed(model.state[name] - start, density) for model in models])
        sign = deltas.sum(0).sign()
        agree = (deltas.sign() == sign) & (deltas != 0)
        mean = (deltas * agree).sum(0) / agree.sum(0).clamp(min=1)
        changed[name] = start + weight * mean
    return base.with_state(changed)


def _trimmed(delta: Tensor, density: float) -> Tensor:
    count = max(1, round(density * delta.numel()))
    least = delta.abs().flatten().topk(count).values[-1]
    return torch.where(delta.abs() >= least, delta, torch.zeros_like(delta))


def merge_dare(base: Model, models: Sequence[Model], weights: Sequence[float], drop: float, seed: int) -> Model:
    """DARE (Yu et al. 2024): each change loses a random share `drop` of its entries, the rest is scaled up to make up
    for it, and the weighted sum is added to the base."""
    same_shapes((base, *models))
    require(len(models) == len(weights), f"{len(models)} models, {len(weights)} weights", "one weight per model")
    source, changed = generator(seed), {}
    for name, start in base.state.items():
        total = torch.zeros_like(start)
        for model, weight in zip(models, weights, strict=True):
            kept = (torch.rand(start.shape, generator=source) >= drop).to(start.dtype)
            total = total + weight * kept * (model.state[name] - start) / (1 - drop)
        changed[name] = start + total
    return base.with_state(changed)
