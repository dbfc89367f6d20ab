"""What a probe reads: one model under canonical names, a tensor at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.canonical import Canonical, Key
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats, TensorSource

Ids = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How much is looked at. What is drawn is drawn from `seed`, so that an audit can be repeated.

    `tokens` and `neurons` bound the matrices that are matched; `layers` is how many pairs of layers are matched in
    full, spread over the depth; `all_pairs` the depth up to which every layer is screened against every other;
    `experts` how many of a mixture's experts are looked at; `corner` the side of the square that ranks are read from.
    """

    tokens: int = 768
    neurons: int = 512
    layers: int = 8
    all_pairs: int = 16
    experts: int = 8
    corner: int = 384
    seed: int = 0


class Block(NamedTuple):
    """The roles of one feed-forward: `gate` is None where it is not gated."""

    gate: str | None
    up: str
    down: str


class Kept:
    """What a subject's `cache` holds from one reference to the next: glances and sketches, by the tokens shared."""

    def __init__(self) -> None:
        self._tokens: Ids | None = None
        self._cache: dict[Any, Any] = {}

    def of(self, tokens: Ids | None) -> dict[Any, Any]:
        """The cache for these tokens, in this order; that for others is dropped, so that one is held at most."""
        known = self._tokens
        is_same = known is tokens if known is None or tokens is None else np.array_equal(tokens, known)
        if not is_same:
            self._tokens, self._cache = tokens, {}
        return self._cache


@dataclass(frozen=True)
class Side:
    """One model. `tokens` are its ids of the shared tokens, in an order that both sides share; None: none are.

    `cache` keeps small results between probes (sketches, never whole matrices).
    """

    canonical: Canonical
    source: TensorSource
    tokens: Ids | None = None
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def has(self, layer: int | None, role: str) -> bool:
        return (layer, role) in self.canonical.views

    def shape(self, layer: int | None, role: str) -> tuple[int, ...]:
        return self.canonical.views[layer, role].shape

    def read(self, layer: int | None, role: str) -> Floats:
        """The values (out, in). Raises CheckpointError where a number is not finite or the bytes are damaged."""
        return finite(self.canonical.views[layer, role].read(self.source), self.canonical.views[layer, role].name)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """`make()`, remembered under `key`."""
        if key not in self.cache:
            self.cache[key] = make()
        value: T = self.cache[key]
        return value

    @property
    def depths(self) -> tuple[int, ...]:
        """The numbers of the layers that hold a feed-forward."""
        found = {layer for layer, role in self.canonical.views if layer is not None and self.blocks(layer)}
        return tuple(sorted(found))

    @property
    def is_post_norm(self) -> bool:
        """Whether norms follow attention and feed-forward, as in BERT: then nothing is folded into what follows."""
        return self.canonical.layout == "encoder" and not self.has(None, "final_norm")

    def blocks(self, layer: int) -> tuple[Block, ...]:
        """The feed-forwards of a layer: one, or one for each expert."""
        names = sorted((role for one, role in self.canonical.views if one == layer and _is_up(role)), key=_expert)
        return tuple(
            Block(gate if self.has(layer, gate := _renamed(up, "gate")) else None, up, _renamed(up, "down"))
            for up in names
            if self.has(layer, _renamed(up, "down"))
        )

    def gain(self, layer: int | None, role: str) -> Floats | None:
        """What the input of `role` is scaled by: the gain of the norm before it (D,), or None where there is none."""
        norm = self._norm_before(layer, role)
        return None if norm is None else self.read(layer, norm)

    def _norm_before(self, layer: int | None, role: str) -> str | None:
        if layer is None:
            return "final_norm" if role == "head" and self.has(None, "final_norm") else None
        if _stem(role) in ("q", "k", "v"):
            names: tuple[str, ...] = () if self.is_post_norm else ("norm1",)
        elif _stem(role) in ("gate", "up", "router"):
            names = ("norm1",) if self.is_post_norm else ("pre_ffn", "norm2", "norm1")
        else:
            names = ()
        return next((name for name in names if self.has(layer, name)), None)

    def folded(self, layer: int | None, role: str) -> Floats:
        """The matrix with the gain of the norm before it multiplied into its columns: what no folding changes."""
        values, gain = self.read(layer, role), self.gain(layer, role)
        return values if gain is None else values * gain

    def embeddings(self, settings: Settings) -> Floats:
        """(n, D) rows of a seeded sample of the shared tokens, the same tokens on both sides."""
        return self.once(("embeddings", settings), lambda: self._embeddings(settings))

    def _embeddings(self, settings: Settings) -> Floats:
        shared = np.arange(0) if self.tokens is None else self.tokens
        chosen = np.random.default_rng([settings.seed, 1]).permutation(len(shared))[: settings.tokens]
        view, ids = self.canonical.views[None, "embedding"], shared[np.sort(chosen)]
        is_whole = view.start == 0 and view.stop is None and view.step == 1 and view.index is None
        if view.transposed or not is_whole or len(ids) * 8 > view.shape[0]:
            return self.read(None, "embedding")[ids]
        rows = [self.source.read(view.name, slice(int(one), int(one) + 1)) for one in ids]
        return finite(np.concatenate(rows), view.name)

    def stream(self, settings: Settings) -> Floats:
        """(n, D) what enters the stack for each sampled token: its row, normed as the family does it, centred or not.

        LayerNorm subtracts the mean over D. Constant shifts (biases, positions) are dropped: features are centred
        over tokens later.
        """
        rows = self.embeddings(settings)
        if self.has(None, "embedding_norm"):
            rows = normed(rows, is_centred=self.is_layer_norm) * self.read(None, "embedding_norm")
        return rows

    @property
    def is_layer_norm(self) -> bool:
        """Whether norms subtract the mean: those with a bias do."""
        return any(role.endswith(".bias") and "norm" in role for _, role in self.canonical.views)


def finite(values: Floats, name: str) -> Floats:
    """`values`, after a look at whether all are numbers. Raises CheckpointError naming the tensor."""
    if np.isfinite(values.sum(dtype=np.float64)) or np.isfinite(values).all():
        return values
    bad = int(values.size - np.isfinite(values).sum())
    template = "tensor {name} holds {n:,} values that are not finite numbers (NaN or infinity)"
    raise CheckpointError(
        say(template, name=repr(name), n=bad),
        remedy="fetch the checkpoint again, or audit another revision of it",
    )


def normed(rows: Floats, *, is_centred: bool) -> Floats:
    """Each row over its root mean square, after its mean is taken off where `is_centred` (LayerNorm)."""
    rows = rows - rows.mean(axis=1, keepdims=True) if is_centred else rows
    scale = np.sqrt(np.mean(np.square(rows), axis=1, keepdims=True)) + 1e-12
    out: Floats = rows / scale
    return out


def spread(items: tuple[T, ...], count: int) -> tuple[T, ...]:
    """At most `count` of `items`, evenly over their order, both ends included."""
    if len(items) <= count:
        return items
    picked = np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))
    return tuple(items[one] for one in picked)


def layer_keys(side: Side, role: str) -> tuple[Key, ...]:
    """The keys of `role` over the layers, in order."""
    return tuple(sorted((key for key in side.canonical.views if key[0] is not None and key[1] == role), key=str))


def _stem(role: str) -> str:
    return role.partition(".")[0]


def _is_up(role: str) -> bool:
    stem, _, rest = role.partition(".")
    return stem == "up" and (not rest or rest.isdigit())


def _expert(role: str) -> int:
    rest = role.partition(".")[2]
    return int(rest) if rest else -1


def _renamed(role: str, stem: str) -> str:
    return ".".join([stem, *role.split(".")[1:]])
