"""Prefix tuning (Li and Liang 2021): learnt keys and values that every query sees before all others.

B batch, K key heads, P learnt positions, S keys, E head width. The prefix stands outside of any cache and any window:
it is never forgotten, and padding never comes between it and the text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.site import Adapter, Site


class Prefix(Adapter):
    """`keys` and `values` (P, K, E) of one attention. Several prefixes that act at once stand in a row."""

    def __init__(
        self, config: AdapterConfig, like: Tensor, heads: int, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config)
        self.keys = nn.Parameter(like.new_empty(config.tokens, heads, width))
        self.values = nn.Parameter(like.new_empty(config.tokens, heads, width))
        for one in (self.keys, self.values):
            nn.init.normal_(one, std=0.02, generator=generator)


class PrefixSite(Site):
    """The prefixes of one attention, which asks for them itself."""

    @property
    def length(self) -> int:
        """How many learnt positions there are now."""
        return sum(adapter.keys.shape[0] for adapter, _ in self.acting() if isinstance(adapter, Prefix))

    def before(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K, S, E) with the learnt ones before them, (B, K, P + S, E)."""
        for adapter, _ in reversed(self.acting()):
            assert isinstance(adapter, Prefix)
            keys = torch.cat((_spread(adapter.keys, keys), keys), dim=2)
            values = torch.cat((_spread(adapter.values, values), values), dim=2)
        return keys, values


def _spread(learnt: Tensor, like: Tensor) -> Tensor:
    """(P, K, E) to (B, K, P, E)."""
    return learnt.to(like.dtype).transpose(0, 1).expand(like.shape[0], -1, -1, -1)
