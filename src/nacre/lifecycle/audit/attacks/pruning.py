"""Fewer weights: single ones, patterns, neurons and heads."""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.lifecycle.audit.attacks.model import Model, group_rows, require


def prune_magnitude(model: Model, share: float) -> Model:
    """Sets the smallest `share` of every matrix of the stack to zero."""
    changed = {}
    for name in model.matrices():
        values = model.state[name]
        count = round(share * values.numel())
        zero = values.abs().flatten().argsort()[:count]
        flat = values.flatten().clone()
        flat[zero] = 0
        changed[name] = flat.reshape(values.shape)
    return model.with_state(changed)


def prune_pattern(model: Model, keep: int = 2, of: int = 4) -> Model:
    """Keeps the `keep` largest `of` neighbours in every row: 2:4 by default. A row's rest is left alone."""
    changed = {}
    for name in model.matrices():
        values = model.state[name]
        whole = values.shape[1] - values.shape[1] % of
        blocks = values[:, :whole].reshape(values.shape[0], -1, of)
        kept = torch.zeros_like(blocks).scatter(-1, blocks.abs().topk(keep, dim=-1).indices, 1.0)
        changed[name] = torch.cat(((blocks * kept).reshape(values.shape[0], whole), values[:, whole:]), 1)
    return model.with_state(changed)


def prune_neurons(model: Model, share: float) -> Model:
    """Takes out the `share` of each layer's neurons that write least (by norm of what they read times write)."""
    config = model.config
    left = config.ffn_width - round(share * config.ffn_width)
    changed: dict[str, Tensor] = {}
    for index in range(config.layers):
        at = f"{model.layer(index)}ffn."
        down = model.state[f"{at}down.weight"]
        weight = down.norm(dim=0) * model.state[f"{at}up.weight"].norm(dim=1)
        kept = weight.topk(left).indices.sort().values
        for name in (f"{at}{part}" for part in ("gate.weight", "gate.bias", "up.weight", "up.bias")):
            if name in model.state:
                changed[name] = model.state[name][kept]
        changed[f"{at}down.weight"] = down[:, kept]
    return model.with_state(changed, ffn_size=left)


def prune_heads(model: Model, count: int) -> Model:
    """Takes out the `count` key heads of each layer, with their queries, that write least."""
    config = model.config
    require(0 < count < config.key_heads, f"{count} of {config.key_heads} key heads", "leave at least one key head")
    per_key, left = config.heads // config.key_heads, config.key_heads - count
    changed: dict[str, Tensor] = {}
    for index in range(config.layers):
        at = f"{model.layer(index)}attention."
        out = model.state[f"{at}o.weight"]
        weight = group_rows(out.T, config.key_heads).flatten(1).norm(dim=1)
        weight = weight * group_rows(model.state[f"{at}v.weight"], config.key_heads).flatten(1).norm(dim=1)
        keys = weight.topk(left).indices.sort().values
        queries = (keys[:, None] * per_key + torch.arange(per_key)).flatten()
        for part, order, heads in (("q", queries, config.heads), ("k", keys, left + count), ("v", keys, left + count)):
            for name in (f"{at}{part}.weight", f"{at}{part}.bias"):
                if name in model.state:
                    changed[name] = group_rows(model.state[name], heads)[order].flatten(0, 1)
        changed[f"{at}o.weight"] = group_rows(out.T, config.heads)[queries].flatten(0, 1).T.contiguous()
    return model.with_state(changed, heads=left * per_key, kv_heads=left, head_dim=config.head_width)
