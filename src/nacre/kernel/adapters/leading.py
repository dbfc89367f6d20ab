"""What stands before the text, prefixes and prompts: attached to kernels, which know them, and to other models."""

from __future__ import annotations

import torch
from torch import nn

from nacre.errors import ConfigError
from nacre.kernel.adapters import foreign
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.places import matches
from nacre.kernel.adapters.prefix import Prefix, PrefixSite
from nacre.kernel.adapters.prompt import Prompt, PromptSite
from nacre.kernel.adapters.site import put
from nacre.kernel.attention import Attention
from nacre.kernel.model import Kernel

EMBED = "embed"


def attach_prefix(
    module: nn.Module, config: AdapterConfig, name: str, generator: torch.Generator | None = None
) -> list[str]:
    """Learnt keys and values for every self-attention of a kernel's stacks, or of those that `targets` name."""
    if not isinstance(module, Kernel):
        return foreign.attach_prefix(module, config, name, generator)
    stacks = [one for one in ("encoder", "decoder") if getattr(module, one) is not None]
    for target in config.targets:
        if target not in stacks:
            raise ConfigError(
                f"adapter: a prefix stands in whole stacks, and {target!r} is none", remedy=f"one of: {stacks}"
            )
    _check_room(module, config.tokens)
    found = {
        where: one
        for where, one in module.named_modules()
        if isinstance(one, Attention) and matches(where, "*.attention") and _in(where, config.targets or stacks)
    }
    for one in found.values():
        heads = one.k.out_features // one.head_dim
        put(one, name, Prefix(config, one.k.weight, heads, one.head_dim, generator), PrefixSite, hooked=False)
    return list(found)


def attach_prompt(
    module: nn.Module, config: AdapterConfig, name: str, generator: torch.Generator | None = None
) -> list[str]:
    """Learnt embeddings before the text; of an encoder-decoder, before what its encoder reads."""
    if not isinstance(module, Kernel):
        return foreign.attach_prompt(module, config, name, generator)
    if module.embed.tokens is None:
        raise ConfigError("adapter: a prompt stands among tokens, and this kernel reads images", remedy="method: lora")
    _check_room(module, config.tokens)
    put(module.embed, name, Prompt(config, module.embed.tokens, generator), PromptSite, hooked=False)
    return [EMBED]


def _in(where: str, stacks: object) -> bool:
    return isinstance(stacks, tuple | list) and where.partition(".")[0] in stacks


def _check_room(kernel: Kernel, tokens: int) -> None:
    config = kernel.config
    if config.position in ("learned", "rotary") and not config.is_vision and tokens >= config.max_positions:
        raise ConfigError(
            f"adapter: {tokens} learnt positions leave none of {config.max_positions} for a text",
            remedy="lower tokens",
        )
