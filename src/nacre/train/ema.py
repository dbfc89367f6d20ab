"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """The average `decay * average + (1 - decay) * weight`, updated after every optimiser step.

    The effective decay of step n is `min(decay, n / (n + 9))`, so that the initial weights are soon forgotten
    (as TensorFlow's ExponentialMovingAverage with `num_updates`).
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.weights = weights
        self.average = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Takes in the weights after step `n` (1-based)."""
        decay = min(self.decay, n / (n + 9))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the weights are the average; afterwards they are, bit for bit, what they were."""
        kept = [weight.detach().clone() for weight in self.weights.values()]
        self.copy_to_weights()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(self.weights.values()), kept)

    @torch.no_grad()
    def copy_to_weights(self) -> None:
        torch._foreach_copy_(list(self.weights.values()), list(self.average.values()))

    def state_dict(self) -> dict[str, Tensor]:
        return self.average

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, average in self.average.items():
            average.copy_(state[name])
