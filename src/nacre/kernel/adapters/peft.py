"""Adapters in the folder format of PEFT, in and out: `adapter_config.json` and `adapter_model.safetensors`.

LoRA (also rank-stabilised and DoRA), prefixes and prompts are read by PEFT with the same logits, and PEFT's are read
here. Bottlenecks and biases, which PEFT has not, lie in the same two files under the model's own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nacre.errors import CheckpointError, NacreError, closest
from nacre.kernel.adapters import peft_leading, peft_lora
from nacre.kernel.adapters.adapted import (
    DEFAULT,
    activate,
    active,
    adapters,
    attach,
    attached,
    is_adapter,
)
from nacre.kernel.adapters.config import AdapterConfig, Method, described
from nacre.kernel.adapters.names import Names, parts
from nacre.kernel.adapters.peft_files import (
    CONFIG,
    WEIGHTS,
    base_digest,
    check_base,
    check_values,
    is_base,
    refuse_lora,
    require_weights,
    write,
)
from nacre.kernel.adapters.places import full_parameters, head_parameters
from nacre.kernel.adapters.site import put
from nacre.kernel.families import FAMILIES
from nacre.kernel.hf_files import HEAD, read_json, read_safetensors
from nacre.kernel.model import Kernel
from nacre.kernel.resize import grow

__all__ = ["CONFIG", "WEIGHTS", "check_savable", "load", "made_for", "replaced", "save"]
_OWN: dict[str, Method] = {"BOTTLENECK": "bottleneck", "BIAS": "bias"}
_TOKENS = "embed.tokens.weight"


def save(module: nn.Module, folder: str | Path, base: str | None = None, *, name: str | None = None) -> None:
    """Writes an adapter (`name`, or the only active one) with what is trained in full beside it, the head included.

    `base` is what PEFT calls the model it belongs to. Raises CheckpointError where there is no such adapter, and where
    something else is trained besides, which would be lost.
    """
    told, tensors, beside, full = _described(module, base, name)
    write(Path(folder), told, tensors, beside, base_digest(module, full))


def check_savable(module: nn.Module) -> None:
    """Raises CheckpointError, as `save` would, for the active adapter. Cheap: for use before a long training run."""
    _described(module, None, None)


class _Described(NamedTuple):
    """`adapter_config.json`, the tensors, those that no class of `transformers` has, and what is trained in full."""

    told: dict[str, Any]
    tensors: dict[str, Tensor]
    beside: dict[str, Tensor]
    full: list[str]


def _described(module: nn.Module, base: str | None, name: str | None) -> _Described:
    names = Names.of(module)
    name = _wanted(module, name)
    config = attached(module)[name]
    head = head_parameters(module)
    full = full_parameters(module, config.train)
    _refuse_others(module, full)
    if config.method == "lora":
        told, tensors = peft_lora.written(names, name)
        prefix = peft_lora.PREFIX
    elif config.method in ("prefix", "prompt"):
        told, tensors = peft_leading.written(names, name)
        prefix = peft_leading.PREFIX
    else:
        told, tensors = _own(module, name, config)
        prefix = peft_lora.PREFIX
    whole, modules = names.whole(full, head)
    told |= {"task_type": names.task, "base_model_name_or_path": base, "inference_mode": True}
    told["modules_to_save"] = modules or None
    beside = {one: value.detach() for one, value in full.items() if names.beside(one)}
    tensors |= {prefix + one: value for one, value in whole.items()}
    return _Described(told, tensors, beside, list(full))


def load(module: nn.Module, folder: str | Path, *, name: str = DEFAULT, any_base: bool = False) -> list[str]:
    """Attaches the adapter of a folder to `module`, the model it was made for; the names of the adapted modules.

    What was saved whole with it (`modules_to_save`) replaces the model's own; an embedding with more rows makes the
    kernel grow. Afterwards the adapter is the active one, and it and the head are what is trained. Raises
    CheckpointError, before the model is changed, for a method or setting that has no place here, for tensors that do
    not fit, and for weights other than those it was made for, unless `any_base`.
    """
    names, folder = Names.of(module), Path(folder)
    given = read_json(folder / CONFIG)
    stored = _stored(folder, given)
    if name in attached(module):
        raise CheckpointError(
            f"the model has an adapter {name!r} already", remedy="give another name=, or load the base again"
        )
    if given["peft_type"] == "LORA":
        pairs, rest = peft_lora.pairs_of(names, stored)
        if not pairs:
            raise CheckpointError(f"{WEIGHTS} holds no adapters", remedy="name the folder of a LoRA adapter")
    else:
        pairs, rest = {}, {key: value for key, value in stored.items() if not _is_part(key, given)}
    values = _whole(names, rest, folder)
    train = _trained(module, values)
    layers = peft_lora.planned(names, pairs, given, train) if pairs else []
    made = None if pairs else _config(names, stored, given, train)
    _check_whole(module, values)
    if not any_base:
        check_base(module, folder, list(values))
    if isinstance(module, Kernel) and _TOKENS in values:
        grow(module, max(module.config.vocab_size, len(values[_TOKENS])))
    for where, adapter in layers:
        put(module.get_submodule(where), name, adapter)
    if made is not None:
        attach(module, made, torch.Generator().manual_seed(0), name=name)
        _fill(names, name, stored, given)
    module.load_state_dict(values, strict=False)
    activate(module, name)
    return list(adapters(module, name))


def replaced(module: nn.Module, folder: str | Path) -> list[str]:
    """The parameters of `module` in whose place `load` would put those of an adapter's folder, such as the head."""
    values = _replacing(module, Path(folder))
    check_values(values, module.state_dict())
    return list(values)


def made_for(module: nn.Module, folder: str | Path) -> bool | None:
    """Whether an adapter's folder says that it was made for the weights of `module`; None where it does not say, as
    those that PEFT wrote."""
    return is_base(module, Path(folder), list(_replacing(module, Path(folder))))


def _replacing(module: nn.Module, folder: Path) -> dict[str, Tensor]:
    names, given = Names.of(module), read_json(folder / CONFIG)
    stored = _stored(folder, given)
    if given["peft_type"] == "LORA":
        _, rest = peft_lora.pairs_of(names, stored)
    else:
        rest = {key: value for key, value in stored.items() if not _is_part(key, given)}
    return _whole(names, rest, folder)


def _wanted(module: nn.Module, name: str | None) -> str:
    known = attached(module)
    chosen = name if name is not None else next(iter(active(module)), None)
    if chosen is None:
        raise CheckpointError(
            "the model has no adapters that are active",
            remedy="attach some: nacre.kernel.adapters.adapted.attach(module, config)",
        )
    if name is None and len(active(module)) > 1:
        raise CheckpointError(f"several adapters are active: {', '.join(active(module))}", remedy="give name=")
    if chosen not in known:
        raise CheckpointError(f"there is no adapter {chosen!r}", remedy=closest(chosen, known))
    return chosen


def _refuse_others(module: nn.Module, full: Mapping[str, nn.Parameter]) -> None:
    others = [
        one for one, p in module.named_parameters() if p.requires_grad and one not in full and not is_adapter(one)
    ]
    if others:
        what = f"{others[0]} is trained in full: an adapter folder would lose it ({len(others)} such parameters)"
        raise CheckpointError(what, remedy="name it in train, freeze it, or fold the adapters and save the whole model")


# ---- bottlenecks and biases, under the names of the model itself


def _own(module: nn.Module, name: str, config: AdapterConfig) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {
        f"{peft_lora.PREFIX}{where}.{config.method}.{key}": value.detach()
        for where, adapter in adapters(module, name).items()
        for key, value in adapter.named_parameters()
    }
    kind = next(key for key, method in _OWN.items() if method == config.method)
    settings = {key: value for key, value in described(config).items() if key not in ("train", "method")}
    return {"peft_type": kind, "nacre": {**settings, "targets": sorted(adapters(module, name))}}, tensors


def _is_part(key: str, given: Mapping[str, Any]) -> bool:
    method = _OWN.get(str(given["peft_type"]))
    return key == peft_leading.TENSOR if method is None else f".{method}." in key


def _config(
    names: Names, stored: Mapping[str, Tensor], given: Mapping[str, Any], train: tuple[str, ...]
) -> AdapterConfig:
    if given["peft_type"] in peft_leading.TYPES:
        return replace(peft_leading.config_of(names, stored, given), train=train)
    own: Mapping[str, Any] = given.get("nacre") or {}
    settings: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in own.items()}
    try:
        config = AdapterConfig(**settings, method=_OWN[given["peft_type"]], train=train)
    except (TypeError, NacreError) as error:
        raise CheckpointError(f"{CONFIG} describes no adapter: {error}", remedy="write it again") from error
    shapes = {name: tuple(one.shape) for name, one in names.module.named_parameters()}
    for where in config.targets:
        if f"{where}.weight" not in shapes:
            raise peft_lora.not_here(names, where)
    return config


def _fill(names: Names, name: str, stored: Mapping[str, Tensor], given: Mapping[str, Any]) -> None:
    if given["peft_type"] in peft_leading.TYPES:
        peft_leading.filled(names, name, stored, given)
        return
    method = _OWN[given["peft_type"]]
    for where, adapter in adapters(names.module, name).items():
        state = {key: stored[f"{peft_lora.PREFIX}{where}.{method}.{key}"] for key, _ in adapter.named_parameters()}
        adapter.load_state_dict(state)


# ---- reading


def _stored(folder: Path, given: Mapping[str, Any]) -> dict[str, Tensor]:
    known = ("LORA", *peft_leading.TYPES, *_OWN)
    if given.get("peft_type") not in known:
        what = f"{CONFIG}: the method is {given.get('peft_type')!r}, and read are {', '.join(known)}"
        raise CheckpointError(what, remedy="merge it with PEFT (merge_and_unload) and load the merged model")
    if given["peft_type"] == "LORA":
        refuse_lora(given)
    return read_safetensors(require_weights(folder))


def _whole(names: Names, rest: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors that replace the model's own, by the model's names."""
    known, state = names.known(), names.module.state_dict()
    values: dict[str, Tensor] = {}
    stripped = {_bare(names, key): value for key, value in rest.items()}
    for name, value in stripped.items():
        if name in known:
            values |= dict(parts(known[name], value, state))
        elif not _is_copy(names, name, stripped):
            raise peft_lora.not_here(names, name)
    if (folder / HEAD).is_file():
        values |= read_safetensors(folder / HEAD)
    return values


def _bare(names: Names, key: str) -> str:
    """A tensor's name without PEFT's prefix and the body's."""
    return key.removeprefix(peft_lora.PREFIX).removeprefix(peft_leading.PREFIX).removeprefix(names.prefix)


def _is_copy(names: Names, name: str, rest: Mapping[str, Tensor]) -> bool:
    """Whether this is the second copy of a tied matrix that is given as well."""
    source = None if names.shown is None else FAMILIES[names.shown.family].aliases.get(name)
    return source is not None and torch.equal(rest.get(_bare(names, source), torch.empty(0)), rest[name])


def _trained(module: nn.Module, values: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What is trained in full besides the head, as `train` names it."""
    head = head_parameters(module)
    return tuple(sorted({one for one in values if one not in head}))


def _check_whole(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    state = dict(module.state_dict())
    wider = values.get(_TOKENS)
    if isinstance(module, Kernel) and wider is not None and wider.dim() == 2 and _TOKENS in state:
        more = len(wider) - len(state[_TOKENS])
        if more > 0:  # new tokens: the kernel grows
            state[_TOKENS] = state[_TOKENS].new_empty(len(wider), state[_TOKENS].shape[1], device="meta")
            if "lm_head.weight" in state and "lm_head.weight" in values:
                state["lm_head.weight"] = state[_TOKENS]
    check_values(values, state)
