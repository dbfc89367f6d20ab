"""Rotary positions in `config.json`: the keys `rope_parameters` (transformers 5) and `rope_scaling` (before)."""

from __future__ import annotations

from typing import Any

from nacre.errors import CheckpointError, ConfigError
from nacre.kernel.config import RopeConfig

# Our field -> their key, for each kind of scaling; all but `factor` and the length may be missing.
_KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_positions": "original_max_position_embeddings",
        "low_frequency_factor": "low_freq_factor",
        "high_frequency_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_positions": "original_max_position_embeddings",
        "attention_factor": "attention_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "mscale": "mscale",
        "mscale_all_dim": "mscale_all_dim",
        "truncate": "truncate",
    },
}


def read_rope(given: dict[str, Any], max_positions: int) -> RopeConfig:
    """The rotary positions of a parsed `config.json`; raises CheckpointError for a kind or key that a kernel lacks."""
    values = dict(given.get("rope_scaling") or given.get("rope_parameters") or {})
    kind: Any = values.pop("rope_type", values.pop("type", "default"))
    values.pop("type", None)
    theta = values.pop("rope_theta", given.get("rope_theta", 10_000.0))
    kind = "none" if kind == "default" else kind
    if kind not in _KEYS:
        what = f"config.json: rope type {kind!r} is not one a kernel has ({', '.join(k for k in _KEYS if k != 'none')})"
        raise CheckpointError(what, remedy="load this model with transformers instead, or choose another checkpoint")
    if values.pop("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
        what = "config.json: partial_rotary_factor: a kernel rotates whole heads only"
        raise CheckpointError(what, remedy="load this model with transformers instead, or choose another checkpoint")
    fields = {ours: values.pop(theirs) for ours, theirs in _KEYS[kind].items() if values.get(theirs) is not None}
    left = [key for key, value in values.items() if value is not None and key != "original_max_position_embeddings"]
    if left:
        what = f"config.json: rope keys {sorted(left)} have no meaning for the rope type {kind!r}"
        raise CheckpointError(what, remedy="remove them, or correct rope_type")
    if "original_positions" in _KEYS[kind]:
        fields["original_positions"] = given.get(
            "original_max_position_embeddings", fields.get("original_positions", max_positions)
        )
    if kind != "none" and "factor" not in fields:
        raise CheckpointError(f"config.json: rope type {kind!r} without a factor", remedy="add rope factor")
    try:
        return RopeConfig(theta=float(theta), scaling=kind, **fields)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"config.json: rope parameters {given!r}: {error}", remedy="correct them") from error


def write_rope(rope: RopeConfig) -> dict[str, Any]:
    """The value of `rope_parameters`."""
    out: dict[str, Any] = {"rope_type": "default" if rope.scaling == "none" else rope.scaling, "rope_theta": rope.theta}
    for ours, theirs in _KEYS[rope.scaling].items():
        value = getattr(rope, ours)
        if value is not None:
            out[theirs] = value
    return out
