"""What an adapter is told. Free of torch, so that plans can check it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import Any, Literal

from nacre.errors import ConfigError

Method = Literal["lora", "bottleneck", "prefix", "prompt", "bias"]
METHODS: tuple[Method, ...] = ("lora", "bottleneck", "prefix", "prompt", "bias")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2022, section 4.1): a matrix W becomes W + scale * B A, and W is not trained.

    `rank` is that of A (rank, in) and B (out, rank); the scale is `alpha` / rank, or `alpha` / sqrt(rank) with `rslora`
    (Kalajdzievski 2023). `dora` trains the length of every row apart from its direction (Liu et al. 2024, equation 5).
    `dropout` acts on what A reads, in training only. `targets` are ends of, or glob patterns over, module names (`q`,
    `attention.*`, `decoder.layers.3.ffn.up`); none: the matrices that PEFT takes for the family. `train`: modules that
    are trained in full and saved beside the adapter (`embed.tokens`).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    rslora: bool = False
    dora: bool = False
    train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora: rank is {self.rank}", remedy="give 1 or more; 8 and 16 are customary")
        if not 0 < self.alpha < inf:
            raise ConfigError(f"lora: alpha is {self.alpha}", remedy="give a number above 0; twice the rank, say")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora: dropout is {self.dropout}", remedy="give a share from 0 (off) up to 1")

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


# Which settings a method has; `method` and `train` are of all.
_SETTINGS: dict[Method, tuple[str, ...]] = {
    "lora": ("targets", "dropout", "rank", "alpha", "rslora", "dora"),
    "bottleneck": ("targets", "dropout", "width", "placement"),
    "prefix": ("targets", "tokens"),
    "prompt": ("tokens",),
    "bias": ("targets",),
}


@dataclass(frozen=True)
class AdapterConfig:
    """One adapter: its method, and the settings that this method has.

    - `lora`: `rank`, `alpha`, `rslora`, `dora`, `dropout`, `targets`, as in `LoraConfig`.
    - `bottleneck` (Houlsby et al. 2019): a small network of `width` channels behind the attention and the feed-forward
      of every layer, or behind the feed-forward alone with `placement: ffn` (where Pfeiffer et al. 2021 have theirs).
    - `prefix` (Li and Liang 2021): `tokens` learnt keys and values before those of every attention; `targets` may name
      one stack of an encoder-decoder.
    - `prompt` (Lester et al. 2021): `tokens` learnt embeddings before the text.
    - `bias` (Ben Zaken et al. 2022): the biases of all layers, or of the `targets`.

    A setting of another method is refused.
    """

    method: Method = "lora"
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    rank: int = LoraConfig.rank
    alpha: float = LoraConfig.alpha
    rslora: bool = False
    dora: bool = False
    width: int = 48
    placement: Literal["both", "ffn"] = "both"
    tokens: int = 20
    train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"adapter: there is no method {self.method!r}", remedy=f"one of: {', '.join(METHODS)}")
        own = (*_SETTINGS[self.method], "method", "train")
        for one in fields(self):
            if one.name not in own and getattr(self, one.name) != one.default:
                raise ConfigError(
                    f"adapter: {one.name} is no setting of the method {self.method}",
                    remedy=f"it has: {', '.join(_SETTINGS[self.method])}, train",
                )
        if self.method == "lora":
            self.lora()
        for name in ("width", "tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"adapter: {name} is {getattr(self, name)}", remedy="give 1 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"adapter: dropout is {self.dropout}", remedy="give a share from 0 (off) up to 1")

    def lora(self) -> LoraConfig:
        """The settings of the method `lora`."""
        return LoraConfig(self.rank, self.alpha, self.dropout, self.targets, self.rslora, self.dora, self.train)

    @classmethod
    def of(cls, config: LoraConfig | AdapterConfig) -> AdapterConfig:
        """An adapter's config from either form."""
        if isinstance(config, AdapterConfig):
            return config
        return cls("lora", **{one.name: getattr(config, one.name) for one in fields(config)})


def chosen(lora: LoraConfig | None, adapter: AdapterConfig | None) -> AdapterConfig | None:
    """What a stage was told, by `adapter:` or by `lora:`, its short form; ConfigError where both are given."""
    if lora is not None and adapter is not None:
        raise ConfigError(
            "both lora and adapter are given", remedy="give adapter: alone; `lora: {...}` is its short form"
        )
    return AdapterConfig.of(lora) if lora is not None else adapter


def described(config: AdapterConfig) -> dict[str, Any]:
    """The settings that this method has, by name."""
    return {name: getattr(config, name) for name in ("method", *_SETTINGS[config.method], "train")}
