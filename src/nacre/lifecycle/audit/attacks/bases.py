"""The same function in another basis: what a forger can do without data, training or loss.

D hidden, F inner, H heads, G key heads, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.lifecycle.audit.attacks.model import Model, generator, group_rows, hidden_axis, require

_RMS = "only pre-norm RMSNorm commutes with a rotation; LayerNorm takes a permutation: permute_hidden"


def permute_hidden(model: Model, seed: int) -> Model:
    """Shuffles the D hidden channels everywhere. Keeps the function, for every norm."""
    order = torch.randperm(model.config.hidden_size, generator=generator(seed))
    return model.with_state({name: _hidden(name, one, order) for name, one in model.state.items()})


def _hidden(name: str, values: Tensor, order: Tensor) -> Tensor:
    if name.endswith(("mlm.dense.weight", "pooler.weight")):
        return values[order][:, order]
    axis = hidden_axis(name)
    if axis is None:
        return values
    return values.index_select(0 if axis == "first" else values.dim() - 1, order)


def fold_gains(model: Model) -> Model:
    """Moves the gains of every hidden RMSNorm into the matrices that read it. Keeps the function; unties the head."""
    require(_rotates(model), f"gains of a {model.config.family} cannot be folded", _RMS)
    model = untie(model)
    changed: dict[str, Tensor] = {}
    for index in range(model.config.layers):
        at = model.layer(index)
        readers = {"attention_norm": ("attention.q", "attention.k", "attention.v"), "ffn_norm": ("ffn.gate", "ffn.up")}
        for norm, names in readers.items():
            gain = model.state[f"{at}{norm}.weight"]
            changed[f"{at}{norm}.weight"] = torch.ones_like(gain)
            for name in (f"{at}{one}.weight" for one in names):
                if name in model.state:
                    changed[name] = model.state[name] * gain
    last = f"{model.stack}.norm.weight"
    changed["lm_head.weight"] = model.state["lm_head.weight"] * model.state[last]
    changed[last] = torch.ones_like(model.state[last])
    return model.with_state(changed)


def untie(model: Model) -> Model:
    """Gives the head its own copy of the embedding. Keeps the function."""
    if not model.config.tied:
        return model
    return model.with_state({"lm_head.weight": model.state["embed.tokens.weight"].clone()}, tied=False)


def rotate_hidden(model: Model, seed: int, dimensions: int | None = None) -> Model:
    """Folds the gains, then turns the hidden space by a random rotation (of its first `dimensions` channels).

    Keeps the function: RMSNorm without gains commutes with rotations.
    """
    model = fold_gains(model)
    size = dimensions or model.config.hidden_size
    turn = torch.eye(model.config.hidden_size, dtype=torch.float64)
    turn[:size, :size] = orthogonal(size, seed)
    changed = {}
    for name, values in model.state.items():
        axis = None if values.dim() < 2 else hidden_axis(name)
        if axis == "last":
            changed[name] = (values.double() @ turn.T).to(values.dtype)
        elif axis == "first" or name.endswith(("attention.o.bias", "ffn.down.bias")):
            changed[name] = (turn @ values.double()).to(values.dtype)
    return model.with_state(changed)


def _rotates(model: Model) -> bool:
    config = model.config
    return (
        config.norm == "rms" and config.norm_placement == "pre" and config.head == "lm" and config.layout == "decoder"
    )


def orthogonal(size: int, seed: int) -> Tensor:
    """A rotation drawn uniformly (Haar), float64 (size, size): QR of a Gaussian with the signs of R taken out."""
    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator(seed)))
    turned: Tensor = q * r.diagonal().sign()
    return turned


def permute_neurons(model: Model, seed: int, scale: float = 0.0) -> Model:
    """Shuffles the F neurons of each layer, and scales them by up to exp(scale) either way where that cancels out.

    Keeps the function. Scaling passes the `up` of a gated feed-forward or a ReLU; other activations refuse it.
    """
    config, source = model.config, generator(seed)
    allowed = config.gated or config.activation == "relu" or scale == 0
    require(allowed, f"neurons behind {config.activation} cannot be scaled", "scale=0 permutes only")
    changed: dict[str, Tensor] = {}
    for index in range(config.layers):
        at = f"{model.layer(index)}ffn."
        order = torch.randperm(config.ffn_width, generator=source)
        factor = torch.exp(scale * (2 * torch.rand(config.ffn_width, generator=source) - 1))
        for name in (f"{at}{part}" for part in ("gate.weight", "gate.bias", "up.weight", "up.bias")):
            if name in model.state:
                values, own = model.state[name], factor if ".up." in name else torch.ones_like(factor)
                changed[name] = values[order] * own.to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
        down = model.state[f"{at}down.weight"]
        changed[f"{at}down.weight"] = down[:, order] / factor.to(down.dtype)
    return model.with_state(changed)


def permute_heads(model: Model, seed: int) -> Model:
    """Shuffles key heads with the queries that read them, and the queries within each. Keeps the function."""
    config, source = model.config, generator(seed)
    per_key = config.heads // config.key_heads
    changed: dict[str, Tensor] = {}
    for index in range(config.layers):
        at = f"{model.layer(index)}attention."
        keys = torch.randperm(config.key_heads, generator=source)
        queries = torch.cat([int(key) * per_key + torch.randperm(per_key, generator=source) for key in keys])
        for part, order in (("q", queries), ("k", keys), ("v", keys)):
            for name in (f"{at}{part}.weight", f"{at}{part}.bias"):
                if name in model.state:
                    values = model.state[name]
                    changed[name] = group_rows(values, len(order))[order].reshape(values.shape)
        out = model.state[f"{at}o.weight"]
        changed[f"{at}o.weight"] = group_rows(out.T, config.heads)[queries].reshape(out.T.shape).T.contiguous()
    return model.with_state(changed)


def rotate_queries(model: Model, seed: int, scale: float = 0.5) -> Model:
    """Turns queries and keys of each key head by the same angle in each of RoPE's planes, scaling one up by up to
    exp(scale) and the other down. Keeps the function; any angle does, as turns of one plane commute."""
    config, source = model.config, generator(seed)
    require(config.position == "rotary", "queries are turned in the planes of rotary positions", "a rotary model")
    require(not config.qk_norm, "a norm on queries and keys does not commute with turns", "a model without qk_norm")
    per_key, half = config.heads // config.key_heads, config.head_width // 2
    changed: dict[str, Tensor] = {}
    for index in range(config.layers):
        at = f"{model.layer(index)}attention."
        angle = 2 * torch.pi * torch.rand(config.key_heads, half, generator=source, dtype=torch.float64)
        factor = torch.exp(scale * (2 * torch.rand(config.key_heads, half, generator=source, dtype=torch.float64) - 1))
        for part, repeats, size in (("q", per_key, factor), ("k", 1, 1 / factor)):
            cos, sin = ((f(angle) * size).repeat_interleave(repeats, 0) for f in (torch.cos, torch.sin))
            for name in (f"{at}{part}.weight", f"{at}{part}.bias"):
                if name in model.state:
                    changed[name] = _turned(model.state[name], cos, sin)
    return model.with_state(changed)


def _turned(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rows (heads * E, ...) with each pair (e, e + E/2) of a head turned; cos and sin are (heads, E / 2)."""
    grouped = group_rows(values.double(), cos.shape[0])
    first, second = grouped.chunk(2, dim=1)
    c, s = (one.reshape(*one.shape, *[1] * (values.dim() - 1)) for one in (cos, sin))
    return torch.cat((first * c - second * s, second * c + first * s), 1).reshape(values.shape).to(values.dtype)


def mix_values(model: Model, seed: int) -> Model:
    """Multiplies the values of each key head by a random well-conditioned matrix and the output by its inverse.

    Keeps the function: attention takes means of values, which is linear.
    """
    config = model.config
    per_key, width = config.heads // config.key_heads, config.head_width
    changed: dict[str, Tensor] = {}
    for index in range(config.layers):
        at = f"{model.layer(index)}attention."
        mixes = torch.stack([_mixing(width, seed * 1000 + index * 100 + head) for head in range(config.key_heads)])
        for name in (f"{at}v.weight", f"{at}v.bias"):
            if name in model.state:
                values = model.state[name]
                grouped = group_rows(values.double().reshape(values.shape[0], -1), config.key_heads)
                changed[name] = (mixes @ grouped).reshape(values.shape).to(values.dtype)
        out = model.state[f"{at}o.weight"]
        inverse = torch.linalg.inv(mixes).repeat_interleave(per_key, 0)
        grouped = out.double().reshape(out.shape[0], config.heads, width)
        changed[f"{at}o.weight"] = torch.einsum("dhe,hef->dhf", grouped, inverse).reshape(out.shape).to(out.dtype)
    return model.with_state(changed)


def _mixing(size: int, seed: int) -> Tensor:
    spread = torch.exp(torch.rand(size, dtype=torch.float64, generator=generator(seed)) - 0.5)
    return orthogonal(size, seed + 1) * spread @ orthogonal(size, seed + 2)


def add_neurons(model: Model, share: float, seed: int) -> Model:
    """Puts dummy neurons among the real ones: random where they read, zero where they write. Keeps the function."""
    config, source = model.config, generator(seed)
    extra = max(1, round(share * config.ffn_width))
    changed: dict[str, Tensor] = {}
    for index in range(config.layers):
        at = f"{model.layer(index)}ffn."
        order = torch.randperm(config.ffn_width + extra, generator=source)
        for name in (f"{at}{part}" for part in ("gate.weight", "gate.bias", "up.weight", "up.bias")):
            if name in model.state:
                values = model.state[name]
                new = torch.randn(extra, *values.shape[1:], generator=source).to(values.dtype) * values.std()
                changed[name] = torch.cat((values, new))[order]
        down = model.state[f"{at}down.weight"]
        changed[f"{at}down.weight"] = torch.cat((down, down.new_zeros(down.shape[0], extra)), 1)[:, order]
    return model.with_state(changed, ffn_size=config.ffn_width + extra)
