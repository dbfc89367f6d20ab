"""Prefixes and prompts of a model of `transformers`, which is told of them by a hook before its body.

B batch, T tokens, P learnt positions, L layers, K key heads, E head width.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from nacre.errors import ConfigError
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.prefix import Prefix
from nacre.kernel.adapters.prompt import Prompt
from nacre.kernel.adapters.site import CHILD, Adapter, Site, put


class LayeredPrefix(Adapter):
    """The prefixes of all L layers of a model."""

    def __init__(self, config: AdapterConfig, shape: tuple[int, int, int], like: Tensor, generator: Any = None) -> None:
        super().__init__(config)
        layers, heads, width = shape
        self.layers = nn.ModuleList(Prefix(config, like, heads, width, generator) for _ in range(layers))

    def pairs(self, batch: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (B, K, P, E) of every layer."""

        def spread(learnt: Tensor) -> Tensor:
            return learnt.to(dtype).transpose(0, 1).expand(batch, -1, -1, -1)

        return [(spread(one.keys), spread(one.values)) for one in self.prefixes]

    @property
    def prefixes(self) -> list[Prefix]:
        """One of each layer, in order."""
        return [one for one in self.layers if isinstance(one, Prefix)]


class LeadingSite(Site):
    """Adapters before the text, beside the body of a model: `told` changes what it is given, `stripped` its answer."""

    led = 0  # learnt embeddings in the call under way

    def told(self, body: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """Arguments with the learnt positions in them."""
        acting = [one for one, _ in self.acting()]
        self.led = 0
        if not acting:
            return args, given
        if args:
            given, args = {"input_ids": args[0], **given}, ()
        for one in reversed(acting):
            if isinstance(one, Prompt):
                self.led += _with_prompt(body, one, given)
            elif isinstance(one, LayeredPrefix):
                _with_prefix(body, one, given)
        return args, given

    def stripped(self, body: nn.Module, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> Any:
        """The states of the text alone: those of prompts are taken off."""
        if self.led and not _is_pair(body):
            out.last_hidden_state = out.last_hidden_state[:, self.led :]
        return out


def attach_prefix(
    module: nn.Module, config: AdapterConfig, name: str, generator: torch.Generator | None = None
) -> list[str]:
    """Learnt keys and values for every layer (of an encoder-decoder, of its decoder)."""
    if config.targets:
        raise ConfigError("adapter: a prefix of a transformers model has no targets", remedy="leave targets out")
    given: Any = module.config
    heads = getattr(given, "num_attention_heads", None)
    layers = getattr(given, "num_decoder_layers", None) or getattr(given, "num_hidden_layers", None)
    if heads is None or layers is None:
        raise ConfigError("adapter: the model's config names no layers and heads", remedy="method: lora")
    width = getattr(given, "head_dim", None) or getattr(given, "d_kv", None) or given.hidden_size // heads
    shape = (layers, getattr(given, "num_key_value_heads", None) or heads, width)
    weight = _embedding(module).weight
    return _put(module, name, LayeredPrefix(config, shape, weight, generator))


def attach_prompt(
    module: nn.Module, config: AdapterConfig, name: str, generator: torch.Generator | None = None
) -> list[str]:
    """Learnt embeddings before the text (of an encoder-decoder, of its encoder)."""
    return _put(module, name, Prompt(config, _embedding(module), generator))


def _put(module: nn.Module, name: str, adapter: Adapter) -> list[str]:
    body = cast(nn.Module, module.base_model)
    before = body._modules.get(CHILD)
    put(body, name, adapter, LeadingSite, hooked=False)
    if before is None:
        site = cast(LeadingSite, body._modules[CHILD])
        site.hooks = [
            body.register_forward_pre_hook(site.told, with_kwargs=True),
            body.register_forward_hook(site.stripped, with_kwargs=True),
        ]
    return [next(where for where, one in module.named_modules() if one is body)]


def _embedding(module: nn.Module) -> nn.Embedding:
    asked = getattr(module, "get_input_embeddings", None)
    found = asked() if asked is not None else None
    if not isinstance(found, nn.Embedding) or not hasattr(module, "base_model"):
        raise ConfigError(
            f"adapter: {type(module).__name__} is no model of transformers that reads tokens", remedy="method: lora"
        )
    return found


def _is_pair(body: nn.Module) -> bool:
    return bool(getattr(body.config, "is_encoder_decoder", False))


def _held(cache: Any) -> int:
    return 0 if cache is None else int(cache.get_seq_length())


def _widen(given: dict[str, Any], name: str, length: int, value: int) -> None:
    """Sets `length` columns of `value` before a (B, T) argument."""
    if (held := given.get(name)) is not None:
        given[name] = torch.cat((held.new_full((held.shape[0], length), value), held), dim=1)


def _shift_positions(given: dict[str, Any], length: int) -> None:
    """Positions that were given count the text alone, as `generate` does."""
    if given.get("position_ids") is not None:
        given["position_ids"] = given["position_ids"] + length


def _with_prompt(body: nn.Module, prompt: Prompt, given: dict[str, Any]) -> int:
    """Sets the prompt before the text; how many learnt embeddings this call reads: none, where a cache holds them."""
    length = prompt.vectors.shape[0]
    _widen(given, "attention_mask", length, 1)
    _shift_positions(given, length)
    if given.get("encoder_outputs") is not None or _held(given.get("past_key_values")):
        return 0
    _widen(given, "token_type_ids", length, 0)
    if (positions := given.get("position_ids")) is not None:
        numbers = torch.arange(length, device=positions.device).expand(positions.shape[0], -1)
        given["position_ids"] = torch.cat((numbers, positions), dim=1)
    vectors = given.pop("inputs_embeds", None)
    if vectors is None:
        vectors = _embedding(body)(given["input_ids"])
    given.pop("input_ids", None)
    first = prompt.vectors.to(vectors.dtype).expand(vectors.shape[0], -1, -1)
    given["inputs_embeds"] = torch.cat((first, vectors), dim=1)
    return length


def _with_prefix(body: nn.Module, prefix: LayeredPrefix, given: dict[str, Any]) -> None:
    from transformers import DynamicCache, EncoderDecoderCache

    pair = _is_pair(body)
    _widen(given, "decoder_attention_mask" if pair else "attention_mask", prefix.config.tokens, 1)
    _shift_positions(given, prefix.config.tokens)
    held = given.get("past_key_values")
    if _held(held):
        return
    texts = (given.get(name) for name in ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds"))
    batch = next(one for one in texts if one is not None).shape[0]
    weight = _embedding(body).weight
    pairs = prefix.pairs(batch, weight.dtype)
    if held is None:
        cache: Any = DynamicCache(pairs)
        given["past_key_values"] = EncoderDecoderCache(cache, DynamicCache()) if pair else cache
        return
    own = held.self_attention_cache if pair else held
    for number, (keys, values) in enumerate(pairs):
        own.update(keys, values, number)
