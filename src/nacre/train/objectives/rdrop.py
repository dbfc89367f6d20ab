"""R-Drop: two passes with different dropout, which are to agree (Liang et al. 2021, "R-Drop")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from nacre.train.objective import IGNORE, Loss, Outputs, Predictive
from nacre.train.objectives.config import RDropConfig
from nacre.train.objectives.wrapped import Wrapped, told

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


class RDrop(Wrapped):
    """loss = (L1 + L2) / 2 + `alpha` / 4 * (KL(p1 || p2) + KL(p2 || p1)): half of the paper's equation 4, so that a
    kernel without dropout has the plain loss. Metric: `disagreement`, the KL of both directions halved."""

    inner: Predictive[Any, Any]

    def __init__(self, inner: Predictive[Any, Any], config: RDropConfig | None = None) -> None:
        super().__init__(inner)
        self.config = config or RDropConfig()

    def training_loss(self, kernel: Kernel, batch: Any) -> Loss:
        first, second = self.inner.outputs(kernel, batch), self.inner.outputs(kernel, batch)
        one, two = self.inner.loss_of(first), self.inner.loss_of(second)
        apart = disagreement(first, second)
        total = (one.sum + two.sum) / 2 + self.config.alpha / 2 * apart
        return Loss(total, one.count, {**one.metrics, "disagreement": told(apart, one.count)})


def disagreement(first: Outputs, second: Outputs) -> Tensor:
    """(KL(p1 || p2) + KL(p2 || p1)) / 2 in nats, summed over what is trained."""
    p, q = first.logits.float().log_softmax(-1), second.logits.float().log_softmax(-1)
    both = F.kl_div(q, p, reduction="none", log_target=True) + F.kl_div(p, q, reduction="none", log_target=True)
    return (both.sum(-1) * (first.targets != IGNORE)).sum() / 2
