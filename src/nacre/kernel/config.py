"""What a kernel is made of: orthogonal choices, checked once, before anything is built.

Free of torch. Every family is one combination of these choices (`presets.py`); `replace` changes some of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from nacre.errors import ConfigError, closest
from nacre.kernel.families import FAMILIES

Layout = Literal["encoder", "decoder", "encoder-decoder"]
Norm = Literal["layer", "rms"]
NormPlacement = Literal["pre", "post"]
Position = Literal["learned", "rotary", "relative", "none"]
RopeScaling = Literal["none", "linear", "dynamic", "llama3", "yarn"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Init = Literal["normal", "gpt2", "t5"]
Head = Literal["none", "lm", "mlm", "pretraining", "classify", "tag"]
Pooling = Literal["cls", "mean", "last"]

# Choices that a trained kernel computes the same without: they may be kept beside a checkpoint that has no field for
# them.
TRAINING_ONLY = frozenset(
    {
        "dropout",
        "attention_dropout",
        "embedding_dropout",
        "ffn_dropout",
        "head_dropout",
        "init",
        "init_std",
        "max_positions",
    }
)


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions (RoFormer, section 3.4) and how their frequencies are stretched beyond the trained length.

    `linear` divides positions by `factor`; `dynamic` raises the base once a text is longer than `max_positions` (equal
    to `none` below it, and a kernel takes no longer text); `llama3` divides low frequencies only; `yarn` is YaRN,
    section 3.2 to 3.4: its `attention_factor` scales the tables, and factor 1 is the identity. `original_positions` is
    the length before stretching.
    """

    theta: float = 10_000.0
    scaling: RopeScaling = "none"
    factor: float = 1.0
    original_positions: int | None = None
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        _check_choice(self, "scaling", RopeScaling)
        _require(self.theta > 0, "rope.theta", self.theta, "a positive number, 10000 in the paper")
        _require(self.factor >= 1, "rope.factor", self.factor, "1 or more")
        if self.scaling in ("llama3", "yarn"):
            known = self.original_positions is not None and self.original_positions > 0
            _require(known, "rope.original_positions", self.original_positions, "the context length before stretching")


@dataclass(frozen=True)
class KernelConfig:
    """The whole architecture of a kernel, its head, and the fields that travel with its checkpoint.

    Sizes: `hidden_size` D, `heads` H, `kv_heads` K (None: H), `head_dim` E (None: D / H), `ffn_size` F (None: 4 D, or
    8/3 D rounded up to 64 when gated), `layers` (of each stack; `decoder_layers` where the decoder's differ).
    `max_positions` is the longest text in tokens (images: patches and the class token); relative positions have no
    limit. `position_offset` and `positions_skip_padding` are RoBERTa's: positions start there and count real tokens
    only. `sliding_window` counts the keys a query sees, itself included; `full_attention_layers` are exempt from it.
    `pooler` is BERT's dense layer with tanh over the first token; None: where the head needs it. `attention_scale`
    None is E ** -0.5. `logit_scale` multiplies the hidden state before the language-model head. Raises ConfigError on
    any value or combination that no kernel can have.
    """

    family: str
    layout: Layout
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    max_positions: int
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn_size: int | None = None
    decoder_layers: int | None = None

    norm: Norm = "layer"
    norm_placement: NormPlacement = "pre"
    norm_eps: float = 1e-5
    embedding_norm: bool = False

    position: Position = "learned"
    position_offset: int = 0
    positions_skip_padding: bool = False
    rope: RopeConfig = field(default_factory=RopeConfig)
    relative_buckets: int = 32
    relative_max_distance: int = 128

    sliding_window: int | None = None
    full_attention_layers: tuple[int, ...] = ()
    qk_norm: bool = False
    qkv_bias: bool = True
    attention_output_bias: bool = True
    ffn_bias: bool = True
    attention_scale: float | None = None

    activation: Activation = "gelu"
    gated: bool = False

    tied: bool = True
    logit_scale: float = 1.0
    token_types: int = 0
    task_types: int = 0
    image_size: int = 0
    patch_size: int = 0
    channels: int = 3

    dropout: float = 0.0
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    ffn_dropout: float = 0.0
    head_dropout: float | None = None
    init: Init = "normal"
    init_std: float = 0.02

    head: Head = "none"
    labels: tuple[str, ...] = ()
    pooling: Pooling = "cls"
    pooler: bool | None = None

    pad_id: int | None = None
    bos_id: int | None = None
    eos_id: int | tuple[int, ...] | None = None
    decoder_start_id: int | None = None

    def __post_init__(self) -> None:
        _fill_sizes(self)
        _check_choices(self)
        _check_sizes(self)
        _check_combinations(self)
        _check_head(self)

    @property
    def title(self) -> str:
        """What it is in a few words: family, layers x width (`bert 6 x 384`)."""
        return f"{self.family} {self.layers} x {self.hidden_size}"

    @property
    def is_vision(self) -> bool:
        """Whether the input is pixels (B, channels, image_size, image_size)."""
        return self.image_size > 0

    @property
    def key_heads(self) -> int:
        """K, the number of key and value heads."""
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        """E, the width of one head."""
        return self.head_dim or self.hidden_size // self.heads

    @property
    def ffn_width(self) -> int:
        """F, the width inside the feed-forward."""
        return self.ffn_size or 4 * self.hidden_size

    @property
    def overflows_float16(self) -> bool:
        """Whether float16 is refused: T5's feed-forward exceeds 65,504 in its published weights."""
        return self.family == "t5"

    @property
    def stack_layers(self) -> dict[str, int]:
        """The depth of each stack: `encoder`, `decoder` or both."""
        if self.layout == "encoder-decoder":
            return {"encoder": self.layers, "decoder": self.decoder_layers or self.layers}
        return {self.layout: self.layers}

    @property
    def head_in_checkpoint(self) -> bool:
        """Whether a class of `transformers` holds this head; if not, it is saved beside the body (see `hf.save`)."""
        return self.head != "classify" or self.pooling == FAMILIES[self.family].classify_pooling

    @property
    def needs_pooler(self) -> bool:
        """Whether the head reads the pooler: next-sentence prediction, and text classified by its first token."""
        first = self.head == "classify" and self.pooling == "cls" and self.layout == "encoder" and not self.is_vision
        return self.head == "pretraining" or first

    def window(self, layer: int) -> int | None:
        """The sliding window of one layer, None for full attention."""
        return None if layer in self.full_attention_layers else self.sliding_window

    def replace(self, **changes: Any) -> KernelConfig:
        """A copy with some fields changed; unknown names raise ConfigError naming the closest one."""
        check_names(changes, (f.name for f in fields(self)), "kernel config")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `KernelConfig.from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KernelConfig:
        """Builds a config from plain values (lists for tuples); unknown names raise ConfigError."""
        check_names(values, (f.name for f in fields(cls)), "kernel config")
        given: dict[str, Any] = dict(values)
        if isinstance(given.get("rope"), Mapping):
            check_names(given["rope"], (f.name for f in fields(RopeConfig)), "kernel config: rope")
            given["rope"] = RopeConfig(**given["rope"])
        for name, value in given.items():
            given[name] = tuple(value) if isinstance(value, list) else value
        return cls(**given)


def check_names(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises ConfigError for the first name in `given` that is not in `known`."""
    names = set(known)
    for name in given:
        if name not in names:
            raise ConfigError(f"{where}: unknown field {name!r}", remedy=closest(name, names))


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"kernel config: {name} is {value!r}", remedy=f"{name} must be {wanted}")


def _check_choice(config: object, name: str, choices: Any) -> None:
    value, known = getattr(config, name), get_args(choices)
    if value not in known:
        raise ConfigError(f"kernel config: {name} is {value!r}", remedy=closest(str(value), known))


def _fill_sizes(config: KernelConfig) -> None:
    """Resolves None to the value it stands for, so that equal kernels have equal configs."""

    def fill(name: str, value: object) -> None:
        if getattr(config, name) is None:
            object.__setattr__(config, name, value)

    _require(config.heads > 0, "heads", config.heads, "1 or more")
    _require(config.hidden_size > 0, "hidden_size", config.hidden_size, "1 or more")
    fill("kv_heads", config.heads)
    if config.head_dim is None:
        divides = config.hidden_size % config.heads == 0
        _require(divides, "hidden_size", config.hidden_size, f"a multiple of heads ({config.heads}), or give head_dim")
    fill("head_dim", config.hidden_size // config.heads)
    gated_width = -(-config.hidden_size * 8 // 3 // 64) * 64
    fill("ffn_size", gated_width if config.gated else 4 * config.hidden_size)
    if config.layout == "encoder-decoder":
        fill("decoder_layers", config.layers)
    fill("pooler", config.needs_pooler)
    object.__setattr__(config, "labels", tuple(config.labels))


def _check_choices(config: KernelConfig) -> None:
    if config.family not in FAMILIES:
        raise ConfigError(f"kernel config: family is {config.family!r}", remedy=closest(config.family, FAMILIES))
    for name, choices in (
        ("layout", Layout),
        ("norm", Norm),
        ("norm_placement", NormPlacement),
        ("position", Position),
        ("activation", Activation),
        ("init", Init),
        ("head", Head),
        ("pooling", Pooling),
    ):
        _check_choice(config, name, choices)


def _check_sizes(config: KernelConfig) -> None:
    least = {"vocab_size": 0 if config.is_vision else 2, "layers": 1, "head_dim": 1, "ffn_size": 1, "max_positions": 1}
    for name, bound in least.items():
        _require(getattr(config, name) >= bound, name, getattr(config, name), f"{bound} or more")
    for name in ("dropout", "attention_dropout", "embedding_dropout", "ffn_dropout", "head_dropout"):
        value = getattr(config, name)
        _require(value is None or 0 <= value < 1, name, value, "at least 0 and below 1")
    divides = config.heads % config.key_heads == 0
    _require(divides, "kv_heads", config.kv_heads, f"a divisor of heads ({config.heads})")
    _require(config.norm_eps > 0, "norm_eps", config.norm_eps, "positive, 1e-5 or 1e-6 as a rule")
    window = config.sliding_window
    _require(window is None or window >= 1, "sliding_window", window, "None or 1 and more")
    for name in ("pad_id", "bos_id", "decoder_start_id"):
        value = getattr(config, name)
        _require(value is None or value >= 0, name, value, "a token id or None")


def _check_combinations(config: KernelConfig) -> None:
    if config.position == "rotary":
        _require(config.head_width % 2 == 0, "head_dim", config.head_dim, "even with rotary positions")
    if config.is_vision:
        fits = config.patch_size > 0 and config.image_size % config.patch_size == 0
        _require(fits, "patch_size", config.patch_size, f"a divisor of image_size ({config.image_size})")
        patches = (config.image_size // config.patch_size) ** 2 + 1
        _require(
            config.max_positions == patches,
            "max_positions",
            config.max_positions,
            f"{patches}: patches and class token",
        )
        _require(config.layout == "encoder", "layout", config.layout, "'encoder' for images")
    if config.positions_skip_padding:
        _require(config.pad_id is not None, "pad_id", config.pad_id, "given when positions skip padding")
    if config.layout != "encoder-decoder":
        _require(config.decoder_layers is None, "decoder_layers", config.decoder_layers, "None outside encoder-decoder")
    if config.sliding_window is not None:
        _require(config.layout == "decoder", "sliding_window", config.sliding_window, "None outside the decoder layout")


_HEADS_OF_LAYOUT: dict[str, tuple[str, ...]] = {
    "encoder": ("none", "mlm", "pretraining", "classify", "tag"),
    "decoder": ("none", "lm", "classify", "tag"),
    "encoder-decoder": ("none", "lm"),
}


def _check_head(config: KernelConfig) -> None:
    family = FAMILIES[config.family]
    possible = [head for head in _HEADS_OF_LAYOUT[config.layout] if head in family.classes]
    if config.head not in possible:
        what = f"kernel config: a {config.family} {config.layout} has no head {config.head!r}"
        raise ConfigError(what, remedy=f"heads of it: {', '.join(possible)}")
    if config.head in ("classify", "tag"):
        repeated = len(set(config.labels)) != len(config.labels)
        _require(len(config.labels) >= 1, "labels", config.labels, f"the class names for the head {config.head!r}")
        _require(not repeated, "labels", config.labels, "distinct names")
    else:
        _require(not config.labels, "labels", config.labels, f"empty for the head {config.head!r}")
    if config.head != "none":
        _require(config.pooler == config.needs_pooler, "pooler", config.pooler, f"{config.needs_pooler} for this head")
    _require(not config.pooler or family.pooler, "pooler", config.pooler, f"False: {config.family} has none")
    if config.head == "classify" and config.layout == "decoder":
        _require(
            config.pooling != "cls", "pooling", "cls", "'last' or 'mean': the first token of a decoder sees only itself"
        )
