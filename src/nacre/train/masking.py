"""Which tokens are masked and what they become (BERT, appendix A.1), for whole batches at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.train.objective import IGNORE
from nacre.train.objectives.config import MaskRates

# The masked positions of a batch are filled up to a multiple of this many: few shapes for a compiled head.
PICK_MULTIPLE = 16


@dataclass(frozen=True)
class Masked:
    """`ids` (B, T) after masking. `picks` (N,) are the selected positions in the flattened batch and `targets` (N,) the
    tokens that were there; both are padded to a multiple of PICK_MULTIPLE, by position 0 and IGNORE."""

    ids: Tensor
    picks: Tensor
    targets: Tensor
    n_selected: int


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch, uniform in [0, 1): three for each token (B, T), and `rounding` (B, 1).

    Each row draws its own, in turn and as many as it has tokens: how rows are spread over batches changes nothing.
    """

    words: Tensor
    fates: Tensor
    replacements: Tensor
    rounding: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor], width: int) -> Draws:
        """The draws of rows, each from `draw`, for a batch of `width` positions."""
        numbers = torch.zeros(len(rows), 3, width)
        for place, row in zip(numbers, rows, strict=True):
            place[:, : row.shape[1] - 1] = row[:, :-1]
        rounding = torch.stack([row[0, -1:] for row in rows])
        return cls(numbers[:, 0], numbers[:, 1], numbers[:, 2], rounding)


def draw(n: int, rng: torch.Generator) -> Tensor:
    """(3, n + 1) random numbers: what one row of `n` tokens needs."""
    return torch.rand(3, n + 1, generator=rng)


def select(groups: Tensor, share: float, draws: Draws) -> Tensor:
    """(B, T) bool: the tokens to predict, whole groups of them, at least one group in every row that has any.

    `groups` (B, T) int64 numbers the words of a row from 0, in [0, T); -1 marks tokens that are never selected.
    Groups are taken in random order up to `share` of the row's tokens. The budget is rounded at random and the last
    group taken or left by its middle, so that `share` is met on average and not only bounded.
    """
    eligible = groups >= 0
    index = groups.clamp_min(0)
    sizes = torch.zeros(groups.shape).scatter_add_(1, index, eligible.float())
    order = draws.words.masked_fill(sizes == 0, 2.0).argsort(dim=1, stable=True)
    in_order = sizes.gather(1, order)
    before = in_order.cumsum(1) - in_order
    budget = share * eligible.sum(1, keepdim=True) + draws.rounding - 0.5
    taken = (in_order > 0) & (before + in_order / 2 <= budget)
    taken[:, 0] |= in_order[:, 0] > 0
    return torch.zeros(groups.shape, dtype=torch.bool).scatter(1, order, taken).gather(1, index) & eligible


def corrupt(ids: Tensor, selected: Tensor, mask_id: int, words: Tensor, rates: MaskRates, draws: Draws) -> Masked:
    """Replaces selected tokens by `mask_id` or by one of `words` (the ids of ordinary tokens), at the given rates."""
    replacement = words[(draws.replacements * len(words)).long()]
    masked = selected & (draws.fates < rates.masked)
    swapped = selected & ~masked & (draws.fates < rates.masked + rates.random)
    picks = selected.flatten().nonzero().squeeze(1)
    spare = -len(picks) % PICK_MULTIPLE if len(picks) else PICK_MULTIPLE
    return Masked(
        ids=torch.where(swapped, replacement, ids.masked_fill(masked, mask_id)),
        picks=torch.cat([picks, picks.new_zeros(spare)]),
        targets=torch.cat([ids.flatten()[picks], picks.new_full((spare,), IGNORE)]),
        n_selected=len(picks),
    )
