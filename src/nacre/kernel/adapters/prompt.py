"""Prompt tuning (Lester et al. 2021): learnt embeddings that stand before the text.

B batch, T tokens, P learnt positions, D hidden. Inside a kernel they are ids below 0: -1 is the first of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.site import Adapter, Site


class Prompt(Adapter):
    """`vectors` (P, D), at first the embeddings of tokens that are drawn (the paper's section 3.2)."""

    def __init__(self, config: AdapterConfig, tokens: nn.Embedding, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        table = tokens.weight
        drawn = torch.randint(table.shape[0], (config.tokens,), generator=generator, device=table.device)
        self.vectors = nn.Parameter(table.detach()[drawn].clone())


class PromptSite(Site):
    """The prompts of an embedding, which asks for them itself. Several that act at once stand in a row."""

    @property
    def length(self) -> int:
        """How many learnt positions there are now."""
        return sum(adapter.vectors.shape[0] for adapter, _ in self.acting() if isinstance(adapter, Prompt))

    def embedded(self, ids: Tensor, tokens: nn.Embedding) -> Tensor:
        """(B, T) with ids below 0 to (B, T, D)."""
        table = torch.cat([one.vectors for one, _ in self.acting() if isinstance(one, Prompt)])
        learnt = F.embedding((-ids - 1).clamp(min=0), table.to(tokens.weight.dtype))
        return torch.where((ids < 0).unsqueeze(-1), learnt, tokens(ids.clamp(min=0)))


class Led(NamedTuple):
    """What a kernel is given, with learnt positions before the text: all (B, P + T), or None as before."""

    ids: Tensor
    mask: Tensor | None
    token_types: Tensor | None
    positions: Tensor | None


def led(length: int, ids: Tensor, mask: Tensor | None, token_types: Tensor | None, positions: Tensor | None) -> Led:
    """Sets `length` learnt positions before every text, behind what is padding on its left.

    The state of token t stands at `length` + t, as if they had been set before the padding.
    """
    rows, width = ids.shape
    learnt = -1 - torch.arange(length, device=ids.device).expand(rows, -1)
    places = torch.arange(length + width, device=ids.device).expand(rows, -1)
    if mask is not None:
        padding = (~mask).long().cumprod(dim=1).sum(dim=1, keepdim=True) % width  # a row without a text stays as it is
        moved = torch.where(places < padding, places + length, places - padding)
        places = torch.where(places < padding + length, moved, places)

    def joined(first: Tensor, then: Tensor) -> Tensor:
        return torch.cat((first.expand(rows, -1), then.expand(rows, -1)), dim=1).gather(1, places)

    numbers = torch.arange(length, device=ids.device)
    return Led(
        joined(learnt, ids),
        None if mask is None else joined(torch.ones_like(learnt, dtype=torch.bool), mask),
        None if token_types is None else joined(torch.zeros_like(learnt), token_types),
        None if positions is None else joined(numbers, positions + length),
    )
