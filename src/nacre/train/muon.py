"""Muon: momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from nacre.train.precision import multiplies_in_bfloat16

# Quintic whose slope at zero is as steep as possible; from the source above.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """The update rule of `torch.optim.Muon`, for matrices only, with two differences that are about speed.

    Matrices of one shape are orthogonalised together, and in bfloat16 only where the hardware multiplies in it:
    torch's always uses bfloat16, which took some 30 times as long as float32 on a CPU without it.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient. A closure is not supported."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            shapes: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes[weight.shape].append(weight)
            for shape, weights in shapes.items():
                self._step(weights, shape, group)

    def _step(self, weights: list[Tensor], shape: torch.Size, group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        averages = [self._average(weight) for weight in weights]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        # Nesterov: look ahead by one more step of the average.
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        updates = orthogonalise(torch.stack(list(ahead))).to(weights[0].dtype)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
        torch._foreach_add_(weights, list(updates.unbind()), alpha=-rate)

    def _average(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        average: Tensor = state["momentum_buffer"]
        return average


def orthogonalise(matrices: Tensor) -> Tensor:
    """Each of `matrices` (N, rows, columns) with its singular values moved near 1 (Newton-Schulz iteration)."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if multiplies_in_bfloat16(matrices.device) else matrices
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
