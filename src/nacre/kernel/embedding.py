"""Input to hidden states: tokens or patches, with the positions and types that are added to them.

B batch, T tokens, D hidden, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.kernel.config import KernelConfig
from nacre.kernel.norm import make_norm

if TYPE_CHECKING:
    from nacre.kernel.adapters.prompt import PromptSite


class Embedding(nn.Module):
    """Tokens (B, T) or pixels (B, C, height, width) to (B, T, D)."""

    adapters: PromptSite | None  # learnt embeddings, whose ids are below 0

    def __init__(self, config: KernelConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.offset, self.dropout = config.position_offset, config.embedding_dropout
        self.tokens = None if config.is_vision else nn.Embedding(config.vocab_size, size)
        self.patches = (
            nn.Conv2d(config.channels, size, config.patch_size, config.patch_size) if config.is_vision else None
        )
        self.cls = nn.Parameter(torch.empty(size)) if config.is_vision else None
        rows = config.max_positions + config.position_offset
        self.positions = nn.Embedding(rows, size) if config.position == "learned" else None
        self.token_types = nn.Embedding(config.token_types, size) if config.token_types else None
        # ERNIE's task types: only the first is ever used, as in `transformers` when none is given.
        self.task_types = nn.Embedding(config.task_types, size) if config.task_types else None
        self.norm = make_norm(config, size) if config.embedding_norm else None
        self.register_module("adapters", None)

    def forward(
        self, ids: Tensor, positions: Tensor | None, start: int = 0, token_types: Tensor | None = None
    ) -> Tensor:
        """`positions` (B, T) count from 0; without them they run on from `start`."""
        x = self._content(ids)
        if self.token_types is not None:
            x = x + (self.token_types.weight[0] if token_types is None else self.token_types(token_types))
        if self.positions is not None:
            first = start + self.offset
            rows = self.positions.weight[first : first + x.shape[1]]
            x = x + (rows if positions is None else self.positions(positions + self.offset))
        if self.task_types is not None:
            x = x + self.task_types.weight[0]
        if self.norm is not None:
            x = self.norm(x)
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

    def _content(self, ids: Tensor) -> Tensor:
        if self.patches is not None and self.cls is not None:
            patches = self.patches(ids).flatten(2).transpose(1, 2)
            return torch.cat((self.cls.to(patches.dtype).expand(patches.shape[0], 1, -1), patches), dim=1)
        assert self.tokens is not None
        if self.adapters is not None and self.adapters.length:
            return self.adapters.embedded(ids, self.tokens)
        vectors: Tensor = self.tokens(ids)
        return vectors
