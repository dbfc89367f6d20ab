"""A smaller kernel out of a larger one: some of its layers, some of its tokens, the weights it has for these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.kernel.config import KernelConfig
from nacre.kernel.model import Kernel

Take = Literal["even", "first", "last"]
_OF_TOKENS = ("embed.tokens.weight", "lm_head.weight", "mlm.bias", "mlm.decoder.weight")


def chosen(n: int, of: int, take: Take) -> tuple[int, ...]:
    """Which `n` of `of` layers: `even` takes every other, every third ... from the first on (DistilBERT, Sanh et al.
    2019, section 3). ConfigError where there are not so many."""
    if not 1 <= n <= of:
        raise ConfigError(f"{n} layers of a kernel that has {of}", remedy=f"give 1 to {of}")
    if take == "even":
        return tuple(index * of // n for index in range(n))
    return tuple(range(n)) if take == "first" else tuple(range(of - n, of))


def shrunk(kernel: Kernel, layers: Sequence[int], tokens: Sequence[int] | None = None) -> Kernel:
    """A kernel of these layers of each stack, in this order, which knows these tokens (None: all), with copies of the
    weights that `kernel` has for them. Token `tokens[i]` becomes token i; special tokens of the config move along.

    ConfigError for a layer or token that is not there, or a special token that is left out.
    """
    config = _smaller(kernel.config, layers, tokens)
    with torch.device("meta"):
        small = Kernel(config)
    state = kernel.state_dict()
    rows = None if tokens is None else torch.tensor(tokens)
    taken = {name: _taken(name, state[_source(name, layers)], rows) for name in small.state_dict()}
    small.load_state_dict(taken, strict=True, assign=True)
    small.requires_grad_(True)
    return small.train(kernel.training)


def _smaller(config: KernelConfig, layers: Sequence[int], tokens: Sequence[int] | None) -> KernelConfig:
    for depth in config.stack_layers.values():
        if not layers or not all(0 <= layer < depth for layer in layers):
            raise ConfigError(
                f"layers {list(layers)} of a kernel that has {depth}", remedy=f"give some of 0 to {depth - 1}"
            )
    full = tuple(place for place, layer in enumerate(layers) if layer in config.full_attention_layers)
    changes: dict[str, object] = {"layers": len(layers), "full_attention_layers": full}
    if config.layout == "encoder-decoder":
        changes["decoder_layers"] = len(layers)
    if tokens is not None:
        place = {token: index for index, token in enumerate(tokens)}
        if len(place) != len(tokens) or not all(0 <= token < config.vocab_size for token in tokens):
            raise ConfigError("a token is named twice, or is not there", remedy="name each of the tokens to keep once")
        changes["vocab_size"] = len(tokens)
        for name in ("pad_id", "bos_id", "eos_id", "decoder_start_id"):
            changes[name] = _moved(name, getattr(config, name), place)
    return config.replace(**changes)


def _moved(name: str, value: int | tuple[int, ...] | None, place: dict[int, int]) -> int | tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(place[one] for one in value if one in place) or None
    if value not in place:
        raise ConfigError(f"{name} {value} is not among the tokens that are kept", remedy="keep the special tokens")
    return place[value]


def _source(name: str, layers: Sequence[int]) -> str:
    """What a weight of the smaller kernel is called in the larger one."""
    parts = name.split(".")
    if len(parts) > 2 and parts[1] == "layers":
        parts[2] = str(layers[int(parts[2])])
    return ".".join(parts)


def _taken(name: str, tensor: Tensor, rows: Tensor | None) -> Tensor:
    return (tensor if rows is None or name not in _OF_TOKENS else tensor[rows.to(tensor.device)]).detach().clone()
