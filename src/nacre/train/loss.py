"""Cross-entropy as (sum, count): plain, in chunks that are recomputed, and for classes.

Legend of shapes: N positions or rows, V vocabulary, C classes, D width. Sums are float32 whatever the precision of the
logits (float64 logits keep float64); the caller divides by the count, once per optimiser step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nacre.train.objective import IGNORE
from nacre.train.objectives.config import ClassLoss, TokenLoss


def cross_entropy(logits: Tensor, targets: Tensor, how: TokenLoss | None = None) -> tuple[Tensor, Tensor]:
    """(sum, count) over the positions whose target is not IGNORE. `logits` (N, V), `targets` (N,) int64.

    With every target ignored the sum is 0 and so is its gradient.
    """
    return token_losses(logits, targets, how or TokenLoss()).sum(), (targets != IGNORE).sum()


def token_losses(logits: Tensor, targets: Tensor, how: TokenLoss) -> Tensor:
    """(N,) the loss of each position, 0 where its target is IGNORE: the terms of `cross_entropy`."""
    logits = capped(logits, how.softcap)
    smoothing = how.label_smoothing
    losses = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing)
    if how.z_loss:
        losses = losses + how.z_loss * torch.logsumexp(logits, dim=-1).square() * (targets != IGNORE)
    return losses


def head_cross_entropy(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, how: TokenLoss | None = None
) -> tuple[Tensor, Tensor]:
    """`cross_entropy(head(hidden), targets)`, equal in value and gradient, `how.chunk` positions at a time.

    `hidden` (N, D), `targets` (N,); `head` maps (n, D) to (n, V). With chunks the memory for logits is
    O(chunk * V) instead of O(N * V), for one more pass through the head in the backward.
    """
    how = how or TokenLoss()

    def piece(part: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(head(part), wanted, how)[0]

    count = (targets != IGNORE).sum()
    if not how.chunk or how.chunk >= targets.shape[0]:
        return piece(hidden, targets), count
    sums = [
        # The head draws no random numbers, so its recomputation needs no random state.
        checkpoint(piece, part, wanted, use_reentrant=False, preserve_rng_state=False)
        for part, wanted in zip(_chunks(hidden, how.chunk), _chunks(targets, how.chunk), strict=True)
    ]
    return torch.stack(sums).sum(), count


def _chunks(tensor: Tensor, size: int) -> list[Tensor]:
    return [tensor[at : at + size] for at in range(0, tensor.shape[0], size)]


def token_nll(logits: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """Negative log-likelihood of each target in nats, float32 (N,), 0 where ignored: what evaluation adds up."""
    return F.cross_entropy(capped(logits, softcap), targets, ignore_index=IGNORE, reduction="none")


def class_loss(logits: Tensor, targets: Tensor, how: ClassLoss | None = None) -> tuple[Tensor, Tensor]:
    """(sum, rows) of the loss of classes. `logits` (N, C), `targets` (N,) int64, all of them trained.

    The count is the number of rows, not the sum of weights: weights with mean 1 then keep the scale of the loss.
    """
    how = how or ClassLoss()
    logits = capped(logits, None)
    rows = torch.tensor(targets.shape[0], device=targets.device)
    weights = None if how.weights is None else torch.tensor(how.weights, dtype=logits.dtype, device=logits.device)
    if not how.focal_gamma:
        smoothing = how.label_smoothing
        return F.cross_entropy(logits, targets, weight=weights, reduction="sum", label_smoothing=smoothing), rows
    log_p = F.log_softmax(logits, dim=-1).gather(1, targets.unsqueeze(1)).squeeze(1)
    # expm1 keeps 1 - p exact when p is close to 1, where the focal factor matters most.
    per_row = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny).pow(how.focal_gamma) * -log_p
    return (per_row if weights is None else per_row * weights[targets]).sum(), rows


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Logits in at least float32, soft-capped when a cap is given."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
