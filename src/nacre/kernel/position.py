"""Where a token stands: rotary tables, relative buckets, and what may attend to what.

B batch, T queries, S keys, H heads, E head width, P table length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nacre.kernel.config import RopeConfig

_FIRST_TABLE = 4096


def rope_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """The angular frequency of each pair of channels (E / 2) in float32, and the factor on the tables."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    plain = 1.0 / rope.theta**exponents
    if rope.scaling == "linear":
        return plain / rope.factor, 1.0
    if rope.scaling == "llama3":
        return _llama3(rope, plain), 1.0
    if rope.scaling == "yarn":
        return _yarn(rope, plain, head_dim), _yarn_attention_factor(rope)
    return plain, 1.0  # `dynamic` too: its base changes only beyond max_positions, where no text may reach


def _llama3(rope: RopeConfig, plain: Tensor) -> Tensor:
    assert rope.original_positions is not None
    wavelength = 2 * math.pi / plain
    smooth = (rope.original_positions / wavelength - rope.low_frequency_factor) / (
        rope.high_frequency_factor - rope.low_frequency_factor
    )
    between = (1 - smooth) * plain / rope.factor + smooth * plain
    scaled = torch.where(wavelength > rope.original_positions / rope.low_frequency_factor, plain / rope.factor, between)
    return torch.where(wavelength < rope.original_positions / rope.high_frequency_factor, plain, scaled)


def _yarn(rope: RopeConfig, plain: Tensor, head_dim: int) -> Tensor:
    assert rope.original_positions is not None
    length = rope.original_positions

    def channel(turns: float) -> float:
        return head_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = channel(rope.beta_fast), channel(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high = high + 0.001 if high == low else high
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0, 1)
    return plain / rope.factor * ramp + plain * (1 - ramp)


def _yarn_attention_factor(rope: RopeConfig) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0

    if rope.mscale and rope.mscale_all_dim:
        return scale(rope.mscale) / scale(rope.mscale_all_dim)
    return scale(1.0)


class Rotary(nn.Module):
    """Tables of cosines and sines, (P, E / 2) in float32, half-split as in `transformers`.

    They are computed from the config and nothing else: every move of the module (`to`, `to_empty`, `half`) computes
    them again, so that neither a cast nor a meta device can spoil them. They grow by doubling, up to `max_positions`.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, rope: RopeConfig, head_dim: int, max_positions: int) -> None:
        super().__init__()
        self.rope, self.head_dim, self.max_positions = rope, head_dim, max_positions
        self._fill(min(max_positions, _FIRST_TABLE), torch.device("cpu"))

    def forward(self, positions: Tensor | None, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Rows for `positions` (B, T), below `end`, as (B, T, 1, E / 2); else start to end, as (1, T, 1, E / 2)."""
        if end > self.cos.shape[0]:
            self._fill(min(self.max_positions, max(end, 2 * self.cos.shape[0])), self.cos.device)
        if positions is None:
            return self.cos[None, start:end, None], self.sin[None, start:end, None]
        return self.cos[positions].unsqueeze(2), self.sin[positions].unsqueeze(2)

    def _fill(self, length: int, device: torch.device) -> None:
        frequencies, factor = rope_frequencies(self.rope, self.head_dim)
        angles = torch.arange(length, dtype=torch.float32, device="cpu")[:, None] * frequencies
        self.register_buffer("cos", (angles.cos() * factor).to(device), persistent=False)
        self.register_buffer("sin", (angles.sin() * factor).to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill(self.cos.shape[0], self.cos.device)
        return self


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turns each pair of channels (e, e + E/2) of x (B, T, H, E) by its angle; the result has the dtype of x."""
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def relative_buckets(distance: Tensor, *, both_ways: bool, buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance (key minus query): exact near by, logarithmic further off (T5, section 2.1)."""
    offset = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        offset = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    spread = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (spread * (buckets - exact)).long()).clamp(max=buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


class Span(NamedTuple):
    """Which slots a call works on: queries `past` to `past + new`, keys `first` to `past + new`."""

    past: int
    new: int
    first: int = 0

    def queries(self, device: torch.device) -> Tensor:
        return torch.arange(self.past, self.past + self.new, device=device)

    def keys(self, device: torch.device) -> Tensor:
        return torch.arange(self.first, self.past + self.new, device=device)


def attention_mask(
    span: Span, *, causal: bool, window: int | None, keep: Tensor | None, segments: Tensor | None, device: torch.device
) -> Tensor | None:
    """True where a query may attend, (1 or B, 1, 1 or T, S); None where SDPA needs none, or has its own causal one.

    `keep` (B, S) is True at real keys; `segments` (B, S) keeps documents apart. A query that may attend to nothing
    (padding) attends to itself, so that no row is empty and no value undefined.
    """
    narrow = window is not None and span.past + span.new - span.first > window
    if keep is None and segments is None and not narrow and (not causal or span.past == 0 or span.new == 1):
        return None
    if not causal and segments is None:
        return None if keep is None else keep[:, None, None, :]
    queries, keys = span.queries(device)[:, None], span.keys(device)[None, :]
    allowed = (keys <= queries if causal else torch.ones_like(keys <= queries))[None, None]
    if window is not None:
        allowed = allowed & (keys > queries - window)
    if segments is not None:
        allowed = allowed & (segments[:, None, -span.new :, None] == segments[:, None, None, :])
    if keep is not None:
        allowed = (allowed & keep[:, None, None, :]) | (keys == queries)
    return allowed


def positions_in_segments(segments: Tensor) -> Tensor:
    """Positions (B, T) that restart at 0 wherever the segment id (B, T) changes."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    changes = torch.ones_like(segments, dtype=torch.bool)
    changes[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(changes, index, 0).cummax(dim=1).values
