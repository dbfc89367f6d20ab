"""What a kernel weighs and costs, from its config alone: parameters by part, memory, FLOPs and cache per token.

Free of torch: models too large for this machine can be looked at as well.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nacre.kernel.config import KernelConfig

_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Anatomy:
    """Figures about one kernel.

    `parameters` counts by part: `embedding`, `attention`, `cross_attention`, `feed_forward`, `norm`, `head`; a tied
    output matrix counts once, as embedding. `memory_bytes` is parameters times bytes each (int8 without its scales).
    `flops_per_token` is one forward pass, by stack and head, averaged over a text of `context` tokens; a
    multiplication and an addition are two, lookups and norms none; training takes three times as much. In an
    encoder-decoder `encoder` is per source token, the rest per target token. `kv_cache_bytes_per_token` is what
    decoding keeps per token and text; `cross_cache_bytes_per_token` the same per source token. With `sliding_window`
    no more than the window's tokens are kept in the layers that have one.
    """

    family: str
    layout: str
    head: str
    layers: dict[str, int]
    hidden_size: int
    vocab_size: int
    heads: int
    kv_heads: int
    context: int
    sliding_window: int | None
    parameters: dict[str, int]
    total_parameters: int
    memory_bytes: dict[str, int]
    flops_per_token: dict[str, int]
    kv_cache_bytes_per_token: dict[str, int]
    cross_cache_bytes_per_token: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def anatomy(config: KernelConfig, context: int | None = None) -> Anatomy:
    """The anatomy of a kernel for texts of `context` tokens, by default the longest that it takes."""
    context = min(context or config.max_positions, config.max_positions)
    parameters = _parameters(config)
    total = sum(parameters.values())
    depth = config.stack_layers
    own_keys = 2 * config.key_heads * config.head_width * depth.get("decoder", 0)
    cross_keys = own_keys if config.layout == "encoder-decoder" else 0
    return Anatomy(
        family=config.family,
        layout=config.layout,
        head=config.head,
        layers=depth,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        heads=config.heads,
        kv_heads=config.key_heads,
        context=context,
        sliding_window=config.sliding_window,
        parameters=parameters,
        total_parameters=total,
        memory_bytes={name: total * size for name, size in _BYTES.items()},
        flops_per_token=_flops(config, context),
        kv_cache_bytes_per_token={name: own_keys * size for name, size in _BYTES.items()},
        cross_cache_bytes_per_token={name: cross_keys * size for name, size in _BYTES.items()},
    )


def _norm(config: KernelConfig, width: int) -> int:
    return width * (2 if config.norm == "layer" else 1)


def _linear(inputs: int, outputs: int, bias: bool) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _attention_matrices(config: KernelConfig) -> int:
    inner, keys = config.heads * config.head_width, config.key_heads * config.head_width
    return config.hidden_size * (2 * inner + 2 * keys)


def _attention(config: KernelConfig) -> int:
    inner, keys = config.heads * config.head_width, config.key_heads * config.head_width
    biases = (inner + 2 * keys if config.qkv_bias else 0) + (config.hidden_size if config.attention_output_bias else 0)
    return _attention_matrices(config) + biases


def _feed_forward(config: KernelConfig) -> int:
    size, inner = config.hidden_size, config.ffn_width
    into = _linear(size, inner, config.ffn_bias) * (2 if config.gated else 1)
    return into + _linear(inner, size, config.ffn_bias)


def _embedding(config: KernelConfig) -> int:
    size = config.hidden_size
    rows = config.vocab_size + config.token_types + config.task_types
    if config.position == "learned":
        rows += config.max_positions + config.position_offset
    if config.is_vision:
        rows += 1 + config.channels * config.patch_size**2 + 1  # class token, patch matrix and its bias
    return rows * size


def _head(config: KernelConfig) -> int:
    size, classes = config.hidden_size, len(config.labels)
    count = _linear(size, size, True) if config.pooler else 0
    if config.head in ("lm", "mlm", "pretraining") and not config.tied:
        count += size * config.vocab_size
    if config.head in ("mlm", "pretraining"):
        count += _linear(size, size, True) + _norm(config, size) + config.vocab_size
    if config.head == "pretraining":
        count += _linear(size, 2, True)
    if config.head in ("classify", "tag"):
        unbiased = config.head == "classify" and config.pooling == "last" and config.layout == "decoder"
        count += _linear(size, classes, not unbiased)
    return count


def _parameters(config: KernelConfig) -> dict[str, int]:
    depth = config.stack_layers
    layers, both = sum(depth.values()), config.layout == "encoder-decoder"
    norms = _norm(config, config.hidden_size) * (2 * layers + (depth["decoder"] if both else 0))
    norms += _norm(config, config.hidden_size) * (config.embedding_norm + len(depth) * (config.norm_placement == "pre"))
    if config.qk_norm:
        norms += 2 * _norm(config, config.head_width) * layers
    relative = config.relative_buckets * config.heads * len(depth) if config.position == "relative" else 0
    return {
        "embedding": _embedding(config),
        "attention": _attention(config) * layers + relative,
        "cross_attention": _attention(config) * depth["decoder"] if both else 0,
        "feed_forward": _feed_forward(config) * layers,
        "norm": norms,
        "head": _head(config),
    }


def _keys_seen(config: KernelConfig, context: int, window: int | None, causal: bool) -> float:
    """How many keys a query sees on average in a text of `context` tokens."""
    if not causal:
        return context
    if window is None or window >= context:
        return (context + 1) / 2
    return (window * (window + 1) / 2 + (context - window) * window) / context


def _flops(config: KernelConfig, context: int) -> dict[str, int]:
    inner, size = config.heads * config.head_width, config.hidden_size
    matrices = _attention_matrices(config) + size * config.ffn_width * (3 if config.gated else 2)
    out: dict[str, int] = {}
    for name, layers in config.stack_layers.items():
        total = 2.0 * matrices * layers
        for layer in range(layers):
            total += 4 * inner * _keys_seen(config, context, config.window(layer), name == "decoder")
        if name == "decoder" and config.layout == "encoder-decoder":
            # Queries and outputs per target token, keys and values per source token (as many), scores over all of them.
            total += layers * (2.0 * _attention_matrices(config) + 4 * inner * context)
        out[name] = round(total)
    if config.is_vision:
        out["encoder"] += 2 * size * config.channels * config.patch_size**2
    out["head"] = _head_flops(config)
    return out


def _head_flops(config: KernelConfig) -> int:
    """Per token; heads over one pooled vector per text count nothing here."""
    size = config.hidden_size
    if config.head in ("lm", "mlm", "pretraining"):
        return 2 * size * config.vocab_size + (0 if config.head == "lm" else 2 * size * size)
    return 2 * size * len(config.labels) if config.head == "tag" else 0
