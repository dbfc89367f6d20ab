"""Prefixes and prompts under PEFT's names: one tensor, `prompt_embeddings`.

L layers, P learnt positions, K key heads, E head width. A prefix is (P, 2 L K E): keys and values of layer after layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from nacre.errors import CheckpointError
from nacre.kernel.adapters.adapted import adapters
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.foreign import LayeredPrefix
from nacre.kernel.adapters.names import Names
from nacre.kernel.adapters.peft_files import CONFIG
from nacre.kernel.adapters.prefix import Prefix
from nacre.kernel.adapters.prompt import Prompt
from nacre.kernel.model import Kernel

PREFIX = "base_model."
TENSOR = "prompt_embeddings"
TYPES = {"PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt"}


def written(names: Names, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The part of `adapter_config.json` that is the method's, and the tensors."""
    found = list(adapters(names.module, name).items())
    one = found[0][1]
    pair = names.task == "SEQ_2_SEQ_LM"
    described: dict[str, Any] = {"num_virtual_tokens": one.config.tokens, "num_transformer_submodules": 1}
    described |= {"num_attention_heads": None, "num_layers": None}
    if isinstance(one, Prompt):
        _refuse_first_state(names)
        described |= {"peft_type": "PROMPT_TUNING", "token_dim": one.vectors.shape[1], "prompt_tuning_init": "RANDOM"}
        return described, {TENSOR: one.vectors.detach()}
    if pair:
        raise CheckpointError(
            "PEFT has one prefix for several layers of an encoder-decoder, and here every layer has its own",
            remedy="tune a prompt, LoRA or bottlenecks",
        )
    layers = _layers(names.module, [cast(Any, adapter) for _, adapter in found])
    tokens, heads, width = layers[0].keys.shape
    rows = [part.detach() for layer in layers for part in (layer.keys, layer.values)]
    described |= {"peft_type": "PREFIX_TUNING", "token_dim": heads * width, "num_attention_heads": heads}
    described |= {"num_layers": len(layers), "prefix_projection": False, "encoder_hidden_size": None}
    return described, {TENSOR: torch.stack(rows, dim=1).reshape(tokens, -1)}


def filled(names: Names, name: str, stored: Mapping[str, Tensor], given: Mapping[str, Any]) -> None:
    """Sets the values of a folder into the adapter `name`, which `config_of` described and `attach` made."""
    values = stored[TENSOR]
    made = list(adapters(names.module, name).values())
    with torch.no_grad():
        if isinstance(made[0], Prompt):
            made[0].vectors.copy_(values[: made[0].config.tokens])
            return
        layers = _layers(names.module, cast(Any, made))
        tokens, heads, width = layers[0].keys.shape
        rows = values.reshape(tokens, -1, heads, width)
        # PEFT repeats the rows for the cross-attention of an encoder-decoder and gives that half up again.
        step = 4 if int(given.get("num_transformer_submodules") or 1) == 2 else 2
        for number, layer in enumerate(layers):
            layer.keys.copy_(rows[:, (step * number) % rows.shape[1]])
            layer.values.copy_(rows[:, (step * number + 1) % rows.shape[1]])


def config_of(names: Names, stored: Mapping[str, Tensor], given: Mapping[str, Any]) -> AdapterConfig:
    """The adapter that a folder describes; CheckpointError where it does not fit the model."""
    method = TYPES[str(given.get("peft_type"))]
    tokens, values = int(given.get("num_virtual_tokens") or 0), stored.get(TENSOR)
    if values is None or values.dim() != 2 or tokens < 1:
        raise CheckpointError(f"{CONFIG} and its tensors describe no {method}", remedy="fetch the adapter again")
    pair = names.task == "SEQ_2_SEQ_LM"
    both = int(given.get("num_transformer_submodules") or 1) == 2
    if method == "prompt":
        _refuse_first_state(names)
        wanted = (tokens * 2 if both else tokens, _width(names.module))
        targets: tuple[str, ...] = ()
    else:
        layers, heads, width = _shape(names.module)
        wanted = (tokens, 2 * layers * heads * width)
        targets = ("decoder",) if pair and isinstance(names.module, Kernel) else ()
    if tuple(values.shape) != wanted:
        raise CheckpointError(
            f"the {method} has the shape {tuple(values.shape)}; this model asks for {wanted}",
            remedy="load the model that the adapter was made for",
        )
    return AdapterConfig(cast(Any, method), targets=targets, tokens=tokens)


def _layers(module: nn.Module, found: list[Prefix | LayeredPrefix]) -> list[Prefix]:
    first = found[0]
    return first.prefixes if isinstance(first, LayeredPrefix) else cast(list[Prefix], found)


def _width(module: nn.Module) -> int:
    return int(cast(Any, module.config).hidden_size)


def _shape(module: nn.Module) -> tuple[int, int, int]:
    """Layers, key heads and head width that a prefix of this model has."""
    if isinstance(module, Kernel):
        config = module.config
        return config.decoder_layers or config.layers, config.key_heads, config.head_width
    given: Any = module.config
    heads = given.num_attention_heads
    layers = getattr(given, "num_decoder_layers", None) or given.num_hidden_layers
    width = getattr(given, "head_dim", None) or getattr(given, "d_kv", None) or given.hidden_size // heads
    return layers, getattr(given, "num_key_value_heads", None) or heads, width


def _refuse_first_state(names: Names) -> None:
    """PEFT classifies by the state of the first learnt position, a kernel by that of the text's first token."""
    module = names.module
    if isinstance(module, Kernel) and names.task == "SEQ_CLS" and module.config.pooling == "cls":
        raise CheckpointError(
            "PEFT classifies by the first position of a prompt, a kernel by the first token of the text: "
            "the same prompt would give other logits",
            remedy="use a prefix, LoRA, or pooling: mean",
        )
