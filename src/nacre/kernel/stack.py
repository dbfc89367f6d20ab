"""A stack of layers: what an encoder or a decoder is.

B batch, T queries, S keys, D hidden, H heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nacre.kernel.attention import Attention, Pattern, Table
from nacre.kernel.cache import Cache, LayerCache
from nacre.kernel.config import KernelConfig
from nacre.kernel.feedforward import FeedForward
from nacre.kernel.norm import make_norm
from nacre.kernel.position import Span, attention_mask, relative_buckets

# Added to the score of a key that must not be seen: finite in bfloat16 too, so that a row without keys stays defined.
_NEVER = -1e30


class Scene(NamedTuple):
    """What a stack is told besides its input: where the tokens stand and what is real."""

    span: Span
    keep: Tensor | None = None
    segments: Tensor | None = None
    rope: Table | None = None
    memory: Tensor | None = None
    memory_keep: Tensor | None = None
    cache: Cache | None = None


class Layer(nn.Module):
    """Attention, cross-attention where there is an encoder to read, feed-forward; norms before or after each."""

    def __init__(self, config: KernelConfig, *, window: int | None, cross: bool) -> None:
        super().__init__()
        self.pre, self.dropout = config.norm_placement == "pre", config.dropout
        self.attention_norm = make_norm(config, config.hidden_size)
        self.attention = Attention(config, window)
        self.cross_norm = make_norm(config, config.hidden_size) if cross else None
        self.cross = Attention(config) if cross else None
        self.ffn_norm = make_norm(config, config.hidden_size)
        self.ffn = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        pattern: Pattern,
        rope: Table | None = None,
        cache: LayerCache | None = None,
        memory: tuple[Tensor, Tensor] | None = None,
        memory_pattern: Pattern | None = None,
    ) -> Tensor:
        """x (B, T, D) to (B, T, D)."""
        normed = self.attention_norm(x) if self.pre else x
        x = x + self._drop(self.attention(normed, pattern, rope, cache))
        x = x if self.pre else self.attention_norm(x)
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            normed = self.cross_norm(x) if self.pre else x
            x = x + self._drop(self.cross.cross(normed, memory, memory_pattern or Pattern()))
            x = x if self.pre else self.cross_norm(x)
        normed = self.ffn_norm(x) if self.pre else x
        x = x + self._drop(self.ffn(normed))
        return x if self.pre else self.ffn_norm(x)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class Stack(nn.Module):
    """All layers of an encoder or a decoder, its relative positions and its last norm."""

    def __init__(self, config: KernelConfig, depth: int, *, causal: bool, cross: bool) -> None:
        super().__init__()
        self.causal, self.checkpointing = causal, False
        self.max_distance = config.relative_max_distance
        relative = config.position == "relative"
        self.relative = nn.Embedding(config.relative_buckets, config.heads) if relative else None
        self.layers = nn.ModuleList(Layer(config, window=config.window(i), cross=cross) for i in range(depth))
        self.norm = make_norm(config, config.hidden_size) if config.norm_placement == "pre" else None

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        """x (B, T, D) to (B, T, D), normed."""
        patterns = {
            window: self._pattern(scene, window, x) for window in {layer.attention.window for layer in self._layers()}
        }
        memory_pattern = None if scene.memory_keep is None else Pattern(scene.memory_keep[:, None, None, :])
        for index, layer in enumerate(self._layers()):
            own = None if scene.cache is None else scene.cache.layers[index]
            memory = self._memory(layer, index, scene)
            given = (x, patterns[layer.attention.window], scene.rope, own, memory, memory_pattern)
            if self.checkpointing and self.training and own is None:
                x = checkpoint(layer, *given, use_reentrant=False)
            else:
                x = layer(*given)
        return x if self.norm is None else self.norm(x)

    @property
    def prefix(self) -> int:
        """How many learnt keys every layer has before all others."""
        return next((layer.attention.prefix for layer in self._layers()), 0)

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _memory(self, layer: Layer, index: int, scene: Scene) -> tuple[Tensor, Tensor] | None:
        """The encoder's keys and values for one layer, computed once per text where there is a cache."""
        if layer.cross is None or scene.memory is None:
            return None
        if scene.cache is None:
            return layer.cross.memory(scene.memory)
        kept = scene.cache.cross[index]
        if kept is None:
            kept = scene.cache.cross[index] = layer.cross.memory(scene.memory)
        return kept

    def _pattern(self, scene: Scene, window: int | None, x: Tensor) -> Pattern:
        span, keep, segments = scene.span, scene.keep, scene.segments
        if window is not None and span.past >= window:
            span = span._replace(first=span.past - window + 1)
            keep = None if keep is None else keep[:, span.first :]
        prefix = self.prefix
        allowed = attention_mask(span, causal=self.causal, window=window, keep=keep, segments=segments, device=x.device)
        if prefix:
            if allowed is None and self.causal and span.new > 1:
                allowed = span.keys(x.device)[None, :] <= span.queries(x.device)[:, None]
            allowed = None if allowed is None else F.pad(allowed, (prefix, 0), value=True)
        if self.relative is None:
            return Pattern(allowed, causal=self.causal and allowed is None and span.new > 1)
        bias = self._relative_bias(span._replace(first=span.first - prefix), x.device)
        if allowed is None and self.causal and span.new > 1:
            allowed = span.keys(x.device)[None, :] <= span.queries(x.device)[:, None]
        return Pattern(bias if allowed is None else bias.masked_fill(~allowed, _NEVER))

    def _relative_bias(self, span: Span, device: torch.device) -> Tensor:
        """What each distance adds to the scores, (1, H, T, S)."""
        assert self.relative is not None
        distance = span.keys(device)[None, :] - span.queries(device)[:, None]
        buckets = relative_buckets(
            distance,
            both_ways=not self.causal,
            buckets=self.relative.num_embeddings,
            max_distance=self.max_distance,
        )
        bias: Tensor = self.relative(buckets)
        return bias.permute(2, 0, 1).unsqueeze(0)
