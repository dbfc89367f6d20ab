"""What an attack costs: it counts only if the model is still worth having."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.kernel.model import Kernel
from nacre.lifecycle.audit.attacks.model import Model

MOST_RISE = 0.05  # of the loss, above which an attack has destroyed what it was to hide


@dataclass(frozen=True)
class Capability:
    """Loss in nats per token before and after."""

    before: float
    after: float

    @property
    def rise(self) -> float:
        """The loss's relative rise."""
        return self.after / self.before - 1

    @property
    def counts(self) -> bool:
        """Whether the attacked model is still as good, to `MOST_RISE`."""
        return self.rise < MOST_RISE


@torch.no_grad()
def loss(model: Model | Kernel, blocks: Tensor) -> float:
    """Mean loss of a language model in nats per token over blocks of tokens (N, T + 1)."""
    kernel = model.kernel() if isinstance(model, Model) else model
    total, count = 0.0, 0
    for ids in torch.split(blocks, 32):
        logits = kernel.lm_logits(kernel(ids[:, :-1]).hidden)
        total += float(F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum"))
        count += ids[:, 1:].numel()
    return total / count


def capability(before: Model, after: Model, blocks: Tensor) -> Capability:
    """What became of a language model, on blocks of tokens (N, T + 1)."""
    return Capability(loss(before, blocks), loss(after, blocks))
