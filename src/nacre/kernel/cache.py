"""What decoding remembers: keys and values of every layer, which slots were padding, and the encoder's output.

B batch, K key heads, S slots, E head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.kernel.config import KernelConfig

_ROOM = 64  # slots kept free when texts are joined, so that the next ones need no copy


class LayerCache:
    """Keys and values of one attention, (B, K, S, E), in a buffer that grows by doubling.

    With a window only the last `window - 1` slots stay reachable: older ones are dropped when the buffer is full, so
    memory is bounded by the window and the largest chunk.
    """

    def __init__(self, window: int | None = None, capacity: int = 0) -> None:
        self.window, self.capacity = window, capacity
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.used = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds T slots and returns all that their queries can reach: views, valid until the next call."""
        new = keys.shape[2]
        reach = self.used if self.window is None else min(self.used, self.window - 1)
        if self.keys is None or self.values is None or self.used + new > self.keys.shape[2]:
            self._make_room(keys, values, reach, new)
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, self.used : self.used + new] = keys
        self.values[:, :, self.used : self.used + new] = values
        first, self.used = self.used - reach, self.used + new
        return self.keys[:, :, first : self.used], self.values[:, :, first : self.used]

    def _make_room(self, keys: Tensor, values: Tensor, reach: int, new: int) -> None:
        needed = reach + new
        size = 0 if self.keys is None else self.keys.shape[2]
        if self.window is not None:
            size = max(size, needed, min(self.capacity or needed, 2 * self.window))
        else:
            size = max(2 * size, needed, self.capacity)
        self.keys = self._moved(self.keys, keys, reach, size)
        self.values = self._moved(self.values, values, reach, size)
        self.used = reach

    def _moved(self, old: Tensor | None, like: Tensor, reach: int, size: int) -> Tensor:
        buffer = like.new_empty(like.shape[0], like.shape[1], size, like.shape[3])
        if old is not None and reach:
            buffer[:, :, :reach] = old[:, :, self.used - reach : self.used]
        return buffer

    def select(self, rows: Tensor) -> None:
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def join(self, other: LayerCache, length: int) -> None:
        """Sets the texts of `other` under its own, both ending at slot `length`; what one lacks is zero."""
        if self.keys is None or self.values is None or other.keys is None or other.values is None:
            return
        reach = length if self.window is None else min(length, self.window - 1)
        size = max(reach + _ROOM, min(self.capacity, other.capacity) if self.window is None else 0)
        self.keys = _stacked(self.keys, self.used, other.keys, other.used, reach, size)
        self.values = _stacked(self.values, self.used, other.values, other.used, reach, size)
        self.used = reach

    def trim(self, length: int) -> None:
        """Forgets the oldest slots, so that at most `length` are left."""
        cut = self.used - min(self.used, length)
        if cut and self.keys is not None and self.values is not None:
            self.keys, self.values, self.used = self.keys[:, :, cut:], self.values[:, :, cut:], self.used - cut


class Cache:
    """The memory of one batch of texts under generation; pass it to every call of the kernel.

    Prompts of different lengths are padded on the left and masked in the first call; later calls give new tokens only,
    with `mask` (B, T) for those, or without where all are real. A prompt may come in chunks. `capacity` is the
    expected total length in tokens: a hint that saves copies. An encoder-decoder kernel keeps its encoder's output
    here, so that later calls pass `None` for the encoder's ids.
    """

    def __init__(self, config: KernelConfig, capacity: int = 0) -> None:
        depth = config.decoder_layers or config.layers
        self.layers = [LayerCache(config.window(i), capacity) for i in range(depth)]
        self.cross: list[tuple[Tensor, Tensor] | None] = [None] * depth
        self.length = 0
        self.mask: Tensor | None = None
        self.encoder_hidden: Tensor | None = None
        self.encoder_mask: Tensor | None = None

    def extend(self, mask: Tensor | None, batch: int, new: int, device: torch.device) -> Tensor | None:
        """Notes T more slots and returns the mask (B, S) over all of them, None while nothing was ever masked."""
        if mask is not None or self.mask is not None:
            past = self.mask
            if past is None:
                past = torch.ones(batch, self.length, dtype=torch.bool, device=device)
            added = torch.ones(batch, new, dtype=torch.bool, device=device) if mask is None else mask
            self.mask = torch.cat((past, added), dim=1)
        self.length += new
        return self.mask

    def select(self, rows: Tensor) -> None:
        """Keeps and reorders texts: `rows` are indices into the batch (finished texts leave, beams are copied)."""
        for layer in self.layers:
            layer.select(rows)
        self.cross = [None if pair is None else (pair[0][rows], pair[1][rows]) for pair in self.cross]
        self.mask = None if self.mask is None else self.mask[rows]
        self.encoder_mask = None if self.encoder_mask is None else self.encoder_mask[rows]
        self.encoder_hidden = None if self.encoder_hidden is None else self.encoder_hidden[rows]

    def join(self, other: Cache) -> None:
        """Adds the texts of `other` below these, so that both go on together; the shorter ones are padded on the left.

        For positions that are counted over real tokens, or by distance. `other` is not to be used afterwards.
        """
        masks = [one.mask if one.mask is not None else one._whole_mask() for one in (self, other)]
        length = max(self.length, other.length)
        mask = torch.cat([F.pad(one, (length - one.shape[1], 0)) for one in masks])
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs, length)
        self._join_encoded(other)
        self.mask, self.length = None if bool(mask.all()) else mask, length

    def trim(self) -> None:
        """Forgets slots that are padding in every text, after longer texts have left."""
        if self.mask is None:
            return
        lead = int((~self.mask.any(dim=0)).long().cumprod(dim=0).sum())
        self.length -= lead
        mask = self.mask[:, lead:]
        self.mask = None if bool(mask.all()) else mask
        for layer in self.layers:
            layer.trim(self.length)

    def _whole_mask(self) -> Tensor:
        """(B, S), all True."""
        keys = self.layers[0].keys
        assert keys is not None
        return torch.ones(keys.shape[0], self.length, dtype=torch.bool, device=keys.device)

    def _join_encoded(self, other: Cache) -> None:
        """The same for what an encoder gave, padded on the right."""
        if self.encoder_hidden is None or other.encoder_hidden is None:
            return
        parts = (self.encoder_hidden, other.encoder_hidden)
        width = max(one.shape[1] for one in parts)
        masks = [
            torch.ones(part.shape[:2], dtype=torch.bool, device=part.device) if mask is None else mask
            for part, mask in zip(parts, (self.encoder_mask, other.encoder_mask), strict=True)
        ]
        mask = torch.cat([F.pad(one, (0, width - one.shape[1])) for one in masks])
        self.encoder_mask = None if bool(mask.all()) else mask
        self.encoder_hidden = torch.cat([F.pad(one, (0, 0, 0, width - one.shape[1])) for one in parts])
        self.cross = [
            None
            if mine is None or theirs is None
            else (_widened(mine[0], theirs[0], width), _widened(mine[1], theirs[1], width))
            for mine, theirs in zip(self.cross, other.cross, strict=True)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        held = [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        held += [t for pair in self.cross if pair is not None for t in pair]
        return sum(t.numel() * t.element_size() for t in held)


def _stacked(first: Tensor, first_used: int, second: Tensor, second_used: int, reach: int, size: int) -> Tensor:
    """The last slots of two buffers, (B1 + B2, K, size, E), both ending at slot `reach`."""
    buffer = first.new_zeros(first.shape[0] + second.shape[0], first.shape[1], size, first.shape[3])
    for rows, old, used in (
        (slice(0, first.shape[0]), first, first_used),
        (slice(first.shape[0], None), second, second_used),
    ):
        kept = min(used, reach)
        buffer[rows, :, reach - kept : reach] = old[:, :, used - kept : used]
    return buffer


def _widened(first: Tensor, second: Tensor, width: int) -> Tensor:
    """Two (B, K, S, E) as one, padded on the right to `width` slots."""
    return torch.cat([F.pad(one, (0, 0, 0, width - one.shape[2])) for one in (first, second)])
