"""Another depth, another vocabulary, experts: derivations that change the shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nacre.lifecycle.audit.attacks.bases import untie
from nacre.lifecycle.audit.attacks.files import Stored
from nacre.lifecycle.audit.attacks.model import Model, generator, require


def arrange_layers(model: Model, order: Sequence[int]) -> Model:
    """The layers `order` of the model, in that order: fewer (depth pruning) or repeated (stacking)."""
    require(all(0 <= one < model.config.layers for one in order), f"layers {list(order)}", "numbers of its layers")
    state = {name: one for name, one in model.state.items() if ".layers." not in name}
    for new, old in enumerate(order):
        at = model.layer(old)
        state |= {
            model.layer(new) + name.removeprefix(at): one for name, one in model.state.items() if name.startswith(at)
        }
    return Model(model.config.replace(layers=len(order)), state)


def drop_layers(model: Model, count: int) -> Model:
    """Without `count` layers before the last one, those that depth pruning finds least needed as a rule."""
    layers = model.config.layers
    require(
        0 < count < layers - 1, f"{count} of {layers} layers cannot be dropped", "fewer layers than there are inside"
    )
    return arrange_layers(model, [*range(layers - 1 - count), layers - 1])


def stack_layers(model: Model, count: int) -> Model:
    """With `count` layers of the middle repeated (depth up-scaling, Kim et al. 2023, "SOLAR 10.7B")."""
    layers = model.config.layers
    middle = max(0, (layers - count) // 2)
    return arrange_layers(model, [*range(middle + count), *range(middle, layers)])


def grow_vocabulary(model: Model, count: int, seed: int) -> Model:
    """`count` new tokens behind the old ones, near the mean embedding, as fine-tuners add them."""
    changed = {}
    for name in ("embed.tokens.weight", "lm_head.weight"):
        if name in model.state:
            values = model.state[name]
            drawn = torch.randn(count, values.shape[1], generator=generator(seed)).to(values.dtype)
            new = values.mean(0) + 0.1 * values.std() * drawn
            changed[name] = torch.cat((values, new))
    return model.with_state(changed, vocab_size=model.config.vocab_size + count)


def swap_vocabulary(model: Model, mapping: Sequence[int | None], seed: int) -> Model:
    """Another tokenizer: new token i takes the row of the old token `mapping[i]`, or one near the mean for None."""
    changed = {}
    for name in ("embed.tokens.weight", "lm_head.weight"):
        if name in model.state:
            values = model.state[name]
            drawn = torch.randn(len(mapping), values.shape[1], generator=generator(seed)).to(values.dtype)
            rows = values.mean(0) + 0.1 * values.std() * drawn
            known = [index for index, old in enumerate(mapping) if old is not None]
            rows[known] = values[[old for old in mapping if old is not None]]
            changed[name] = rows
    kept = {"pad_id": None, "bos_id": None, "eos_id": None}
    return model.with_state(changed, vocab_size=len(mapping), **kept)


def upcycle(model: Model, experts: int, seed: int, noise: float = 0.0) -> Stored:
    """A mixture of `experts` copies of each feed-forward behind a random router, as Mixtral stores it.

    The copies are alike, so the function is kept whatever the router chooses; `noise` (relative to each tensor's
    spread) sets them apart, as training does (Komatsuzaki et al. 2023). For families with Llama's names.
    """
    stored, source = Stored.of(untie(model)), generator(seed)
    require(model.config.gated and model.config.family in ("llama", "mistral"), "experts are gated", "a llama model")
    tensors: dict[str, Tensor] = {}
    for name, values in stored.tensors.items():
        if ".mlp." not in name:
            tensors[name] = values
            continue
        before, part = name.split(".mlp.")
        theirs = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}[part.split(".")[0]]
        for expert in range(experts):
            drawn = torch.randn(values.shape, generator=source).to(values.dtype) * values.std() * noise
            tensors[f"{before}.block_sparse_moe.experts.{expert}.{theirs}.weight"] = values + drawn
        router = torch.randn(experts, model.config.hidden_size, generator=source).to(values.dtype) * 0.02
        tensors[f"{before}.block_sparse_moe.gate.weight"] = router
    config = {**stored.config, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    return Stored({**config, "num_local_experts": experts, "num_experts_per_tok": 2}, tensors)
