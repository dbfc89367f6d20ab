"""How `nacre show` prints a model's anatomy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nacre.cli.terminal import number, size, table


def anatomy_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The figures of `nacre.kernel.anatomy.Anatomy.to_dict`, as people read them; absent parts are left out."""
    stacks = ", ".join(f"{count} {name} layers" for name, count in found["layers"].items())
    window = f", sliding window {found['sliding_window']:,}" if found["sliding_window"] else ""
    yield "\nanatomy"
    yield f"  family      {found['family']} ({found['layout']}, head: {found['head']})"
    heads = f"{found['heads']} heads ({found['kv_heads']} key-value)"
    yield f"  shape       {stacks}, width {found['hidden_size']:,}, {heads}"
    yield f"  reads       {found['vocab_size']:,} tokens of vocabulary, context {found['context']:,}{window}"
    yield f"  memory      {_by_precision(found['memory_bytes'])}"
    yield f"  FLOPs       {_flops(found['flops_per_token'])}"
    yield f"  KV cache    {_cache(found)}"
    total = found["total_parameters"]
    rows = [
        [part.replace("_", " "), number(count), f"{count / total:.1%}"]
        for part, count in found["parameters"].items()
        if count
    ]
    yield ""
    yield table([*rows, ["total", number(total), ""]], ["parameters", "count", "share"])


def _by_precision(n_bytes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size(count)}" for name, count in n_bytes.items())


def _flops(parts: Mapping[str, int]) -> str:
    named = ", ".join(f"{name} {count:.3g}" for name, count in parts.items() if count)
    return f"{sum(parts.values()):.3g} per token forward ({named})"


def _cache(found: Mapping[str, Any]) -> str:
    own, cross = found["kv_cache_bytes_per_token"], found["cross_cache_bytes_per_token"]
    if not any(own.values()):
        return "none: an encoder keeps nothing between tokens"
    source = f"; per source token {_by_precision(cross)}" if any(cross.values()) else ""
    return f"per token {_by_precision(own)}{source}"
