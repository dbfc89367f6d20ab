"""Attention: multi-head, grouped-query, windowed, causal or not, over itself or over an encoder, all through SDPA.

B batch, T queries, S keys, D hidden, H heads, K key heads, E head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from nacre.kernel.cache import LayerCache
from nacre.kernel.config import KernelConfig
from nacre.kernel.norm import make_norm
from nacre.kernel.position import rotate

if TYPE_CHECKING:
    from nacre.kernel.adapters.prefix import PrefixSite


class Pattern(NamedTuple):
    """What may attend to what: a boolean or additive mask (B or 1, H or 1, T or 1, S), or SDPA's own causal one."""

    mask: Tensor | None = None
    causal: bool = False


Table = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Self-attention, or cross-attention where `memory` is given.

    Queries, keys and values have a matrix each: one canonical name per tensor for checkpoints, audits and optimisers
    that work on whole matrices. On a CPU one fused product measured no faster.
    """

    adapters: PrefixSite | None  # learnt keys and values before all others

    def __init__(self, config: KernelConfig, window: int | None = None) -> None:
        super().__init__()
        self.head_dim, self.window = config.head_width, window
        self.scale = config.attention_scale
        self.dropout = config.attention_dropout
        self.grouped = config.key_heads != config.heads
        inner, keys = config.heads * self.head_dim, config.key_heads * self.head_dim
        self.q = nn.Linear(config.hidden_size, inner, bias=config.qkv_bias)
        self.k = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o = nn.Linear(inner, config.hidden_size, bias=config.attention_output_bias)
        self.q_norm = make_norm(config, self.head_dim) if config.qk_norm else None
        self.k_norm = make_norm(config, self.head_dim) if config.qk_norm else None
        self.register_module("adapters", None)

    @property
    def prefix(self) -> int:
        """How many learnt keys stand before all others now; a pattern has their columns too."""
        return 0 if self.adapters is None else self.adapters.length

    def forward(
        self, x: Tensor, pattern: Pattern, rope: Table | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """x (B, T, D) attends to itself and to what `cache` holds; returns (B, T, D)."""
        q, k, v = self._heads(self.q(x)), self._heads(self.k(x)), self._heads(self.v(x)).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        k = k.transpose(1, 2)
        if cache is not None:
            k, v = cache.append(k, v)
        if self.adapters is not None:
            k, v = self.adapters.before(k, v)
        return self._attend(q.transpose(1, 2), k, v, pattern)

    def memory(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values (B, K, S, E) of an encoder's output (B, S, D)."""
        return self._heads(self.k(hidden)).transpose(1, 2), self._heads(self.v(hidden)).transpose(1, 2)

    def cross(self, x: Tensor, memory: tuple[Tensor, Tensor], pattern: Pattern) -> Tensor:
        """x (B, T, D) attends to `memory`; returns (B, T, D)."""
        return self._attend(self._heads(self.q(x)).transpose(1, 2), *memory, pattern)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
        mask = pattern.mask
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q.dtype)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=pattern.causal,
            scale=self.scale,
            enable_gqa=self.grouped,
        )
        joined: Tensor = self.o(out.transpose(1, 2).flatten(2))
        return joined
