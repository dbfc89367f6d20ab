"""Adapters in the folder format of PEFT, in and out: `adapter_config.json` and `adapter_model.safetensors`.

PEFT names modules as the class of `transformers` does that `hf.save` declares for the kernel. Where that class keeps
queries, keys and values in one matrix (GPT-2), three adapters are written as one: the same matrix A once, different
ones stacked, with B as a block diagonal. A head that no class of `transformers` has stands beside the adapter in
`head.safetensors`, as in `hf.save`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nacre.errors import CheckpointError
from nacre.kernel import lora
from nacre.kernel.config import KernelConfig
from nacre.kernel.families import FAMILIES
from nacre.kernel.hf_files import HEAD, read_json, read_safetensors
from nacre.kernel.hf_tensors import Entry, entries
from nacre.kernel.lora import LoraLinear
from nacre.kernel.lora_config import LoraConfig
from nacre.kernel.model import Kernel
from nacre.lineage.durable import write_atomic

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TASKS = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS", "none": "FEATURE_EXTRACTION", "lm": "CAUSAL_LM"}

# Keys that do not change what the adapter computes, given its tensors.
_HARMLESS = frozenset(
    {
        "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
        "parent_library", "inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
        "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora",
        "fan_in_fan_out", "init_lora_weights", "bias", "runtime_config", "qalora_group_size",
        "megatron_core", "eva_config",
    }
)  # fmt: skip
_INITS_THAT_KEEP_THE_BASE = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class _Adapter:
    """One adapter as PEFT holds it: `a` (R, in), `b` (out, R), and the factor of B A."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def save(kernel: Kernel, folder: str | Path, base: str | None = None) -> None:
    """Writes the kernel's adapters and trained head; `base` is what PEFT calls the model they belong to.

    Raises CheckpointError where there are no adapters, and where something else is trained besides, which would be
    lost.
    """
    _refuse_images(kernel.config)
    found = lora.adapters(kernel)
    if not found:
        raise CheckpointError("the kernel has no adapters", remedy="attach some: nacre.kernel.lora.attach(kernel, ...)")
    head = {name: parameter.detach() for name, parameter in lora.head_parameters(kernel).items()}
    others = [
        name for name, p in kernel.named_parameters() if p.requires_grad and name not in head and ".lora_" not in name
    ]
    if others:
        what = f"{others[0]} is trained in full: an adapter folder would lose it ({len(others)} such parameters)"
        raise CheckpointError(what, remedy="freeze it, or fold the adapters and save the whole model")
    held, shown, prefix = _stored_as(kernel.config)
    tensors: dict[str, Tensor] = {}
    modules: dict[str, _Adapter] = {}
    for entry in entries(shown, _weights_of(kernel, list(found))):
        name = (prefix if entry.in_body else "") + entry.theirs.removesuffix(".weight")
        modules[name] = _joined([kernel.get_submodule(one.removesuffix(".weight")) for one in entry.canonical])
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = modules[name].a
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = modules[name].b
    saved: set[str] = set()
    if held:
        for entry in entries(shown, head):
            name = (prefix if entry.in_body else "") + entry.theirs
            tensors[f"{_PREFIX}{name}"] = head[entry.canonical[0]]
            saved.add(entry.theirs.partition(".")[0])
    described = _described(kernel, shown, modules, sorted(saved), base)
    _write(Path(folder), described, tensors, {} if held else head)


def load(kernel: Kernel, folder: str | Path) -> list[str]:
    """Attaches the adapters of a folder to `kernel`, the model they were made for; the adapted canonical names.

    Heads saved with them (`modules_to_save`) replace the kernel's own. Afterwards adapters and head are trainable and
    everything else is frozen. Raises CheckpointError, before the kernel is changed, for a method or setting that these
    adapters cannot express, and for tensors that do not fit.
    """
    _refuse_images(kernel.config)
    folder = Path(folder)
    given = read_json(folder / CONFIG)
    _refuse(given)
    if not (folder / WEIGHTS).is_file():
        remedy = "convert it with PEFT: model.save_pretrained(folder, safe_serialization=True)"
        raise CheckpointError(f"no {WEIGHTS} in {folder}", remedy=remedy)
    stored = read_safetensors(folder / WEIGHTS)
    if lora.adapters(kernel):
        raise CheckpointError("the kernel has adapters already", remedy="fold them first, or load the base again")
    state = kernel.state_dict()
    _, shown, _ = _stored_as(kernel.config)
    inside = [name for name in state if not _beside(kernel.config, name)]
    known = {entry.theirs: entry for entry in entries(shown, inside)}
    pairs, whole = _sorted(kernel.config, stored, known)
    planned = [_planned(kernel, known[f"{name}.weight"], pair, given, name) for name, pair in pairs.items()]
    values = {name: value for theirs, value in whole.items() for name, value in _parts(known[theirs], value, state)}
    if (folder / HEAD).is_file():
        values |= read_safetensors(folder / HEAD)
    _check_values(values, state)
    layers = [layer for group in planned for layer in group]
    for name, layer in layers:
        lora.replace(kernel, name, layer)
    kernel.load_state_dict(values, strict=False)
    lora.train_adapters(kernel)
    return list(lora.adapters(kernel))


def _refuse_images(config: KernelConfig) -> None:
    """PEFT goes by the modules of the running class, and those of ViT are called otherwise than its tensors on disk."""
    if config.is_vision:
        what = f"adapters of a {config.family} have no names that PEFT and its checkpoints share"
        raise CheckpointError(what, remedy="fold the adapters and save the whole model")


# ---- writing


def _stored_as(config: KernelConfig) -> tuple[bool, KernelConfig, str]:
    """Whether the class of `transformers` holds the head; the config of that class; the prefix of its body's names."""
    held = config.head_in_checkpoint
    shown = config if held else config.replace(head="none", labels=(), pooler=None)
    return held, shown, "" if shown.head == "none" else FAMILIES[config.family].prefix


def _beside(config: KernelConfig, name: str) -> bool:
    return not config.head_in_checkpoint and name.partition(".")[0] == "classifier"


def _weights_of(kernel: Kernel, names: Sequence[str]) -> list[str]:
    """The weights of adapted modules and of those that are stored in one tensor with them."""
    family = FAMILIES[kernel.config.family]
    groups = {part: parts for parts in family.fused.values() for part in parts}
    wanted: list[str] = []
    for name in names:
        number = re.search(r"\.layers\.(\d+)\.", name)
        template = re.sub(r"\.layers\.\d+\.", ".layers.{i}.", f"{name}.weight")
        for one in groups.get(template, (template,)):
            wanted.append(one.replace("{i}", number[1] if number else ""))
    return list(dict.fromkeys(wanted))


def _joined(parts: Sequence[nn.Module]) -> _Adapter:
    """The adapters of matrices that are stored as one; a part without an adapter gets zeros."""
    made = [one for one in parts if isinstance(one, LoraLinear)]
    first = made[0]
    scale, shared = first.config.scale, all(torch.equal(one.lora_a, first.lora_a) for one in made)
    rows = []
    for part in parts:
        assert isinstance(part, nn.Linear)
        own = part.lora_b * (part.config.scale / scale) if isinstance(part, LoraLinear) else None
        if shared:
            rows.append(first.lora_b.new_zeros(part.out_features, first.config.rank) if own is None else own)
        else:
            blocks = [
                own if one is part and own is not None else one.lora_b.new_zeros(part.out_features, one.config.rank)
                for one in made
            ]
            rows.append(torch.cat(blocks, dim=1))
    a = first.lora_a if shared else torch.cat([one.lora_a for one in made])
    return _Adapter(a.detach().cpu().contiguous(), torch.cat(rows).detach().cpu().contiguous(), scale)


def _described(
    kernel: Kernel, shown: KernelConfig, modules: dict[str, _Adapter], saved: list[str], base: str | None
) -> dict[str, Any]:
    """`adapter_config.json`. The commonest rank and alpha are the general ones, others stand in the patterns."""
    sizes = {name: (one.rank, _whole(one.scale * one.rank)) for name, one in modules.items()}
    (rank, alpha), _ = Counter(sizes.values()).most_common(1)[0]
    task = "SEQ_2_SEQ_LM" if shown.layout == "encoder-decoder" and shown.head == "lm" else _TASKS.get(shown.head)
    first = next(iter(lora.adapters(kernel).values()))
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": first.config.dropout,
        "target_modules": sorted(modules),
        "modules_to_save": saved or None,
        "rank_pattern": {name: size[0] for name, size in sizes.items() if size[0] != rank},
        "alpha_pattern": {name: size[1] for name, size in sizes.items() if size[1] != alpha},
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": bool(FAMILIES[shown.family].transposed),
        "init_lora_weights": True,
    }


def _whole(value: float) -> float | int:
    return round(value) if abs(value - round(value)) < 1e-9 else value


def _write(folder: Path, described: dict[str, Any], tensors: dict[str, Tensor], head: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: one.cpu().contiguous() for name, one in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    (folder / HEAD).unlink(missing_ok=True)
    if head:
        save_file({name: one.cpu().contiguous() for name, one in head.items()}, folder / HEAD)
    for file in (folder / WEIGHTS, folder / HEAD):
        if file.is_file():
            file.chmod(0o644)  # safetensors makes a file for its owner alone
    write_atomic(folder / CONFIG, (json.dumps(described, indent=2, sort_keys=True) + "\n").encode())


# ---- reading


def _refuse(given: dict[str, Any]) -> None:
    """Raises CheckpointError for whatever these adapters cannot express."""
    if given.get("peft_type") != "LORA":
        what = f"{CONFIG}: the method is {given.get('peft_type')!r}, and only LORA is read"
        raise CheckpointError(what, remedy="merge it with PEFT (merge_and_unload) and load the merged model")
    odd = {key: value for key, value in given.items() if key not in _HARMLESS and value not in (None, False, {}, [])}
    if given.get("bias", "none") != "none":
        odd["bias"] = given["bias"]
    init = given.get("init_lora_weights", True)
    if not any(init is one or init == one for one in _INITS_THAT_KEEP_THE_BASE):
        odd["init_lora_weights"] = init  # PiSSA and its kin change the base's weights as well
    # What use_qalora and loftq would switch on is off; their settings alone say nothing.
    for key in ("loftq_config", "corda_config", "lora_ga_config"):
        if init is True or init is False:
            odd.pop(key, None)
    if odd:
        key, value = next(iter(odd.items()))
        what = (
            f"{CONFIG}: {key} = {str(value)[:60]!r} changes what the adapter computes, and a kernel has no such thing"
        )
        raise CheckpointError(what, remedy="merge it with PEFT (merge_and_unload) and load the merged model")


_Pair = dict[str, Tensor]


def _sorted(
    config: KernelConfig, stored: dict[str, Tensor], known: dict[str, Entry]
) -> tuple[dict[str, _Pair], dict[str, Tensor]]:
    """The tensors of a folder as pairs A, B by module, and whole ones, named without PEFT's prefix and the body's."""
    prefix = FAMILIES[config.family].prefix
    pairs: dict[str, _Pair] = {}
    whole: dict[str, Tensor] = {}
    for key, value in stored.items():
        name = key.removeprefix(_PREFIX)
        name = name.removeprefix(prefix) if prefix else name
        module, _, part = name.rpartition(".lora_")
        target, where = (f"{module}.weight", part) if module else (name, "")
        if target not in known or (module and part not in ("A.weight", "B.weight")):
            what = f"the adapter tensor {key!r} belongs to nothing that this {config.family} kernel has"
            remedy = "load the model that the adapter was made for, with its head: kernel.with_head(...)"
            raise CheckpointError(what, remedy=remedy)
        if module:
            pairs.setdefault(module, {})[where[0]] = value
        else:
            whole[name] = value
    if not pairs:
        raise CheckpointError(f"{WEIGHTS} holds no adapters", remedy="name the folder of a LoRA adapter")
    return pairs, whole


def _planned(
    kernel: Kernel, entry: Entry, pair: _Pair, given: dict[str, Any], name: str
) -> list[tuple[str, LoraLinear]]:
    """The adapted layers that one adapter of PEFT stands for: several where theirs is one matrix of ours joined."""
    if set(pair) != {"A", "B"}:
        raise CheckpointError(
            f"the adapter of {name} has no lora_{'B' if 'A' in pair else 'A'}", remedy="fetch it again"
        )
    prefix = FAMILIES[kernel.config.family].prefix
    rank = int(_pattern(given.get("rank_pattern") or {}, (name, prefix + name), given.get("r", 8)))
    alpha = float(_pattern(given.get("alpha_pattern") or {}, (name, prefix + name), given.get("lora_alpha", 8)))
    a, b = pair["A"], pair["B"]
    layers = [
        (one.removesuffix(".weight"), kernel.get_submodule(one.removesuffix(".weight"))) for one in entry.canonical
    ]
    if not all(isinstance(layer, nn.Linear) for _, layer in layers):
        raise CheckpointError(f"{name} is no linear layer, and only these can be adapted", remedy="merge it with PEFT")
    sizes = [layer.out_features for _, layer in layers if isinstance(layer, nn.Linear)]
    first = layers[0][1]
    assert isinstance(first, nn.Linear)
    if a.shape != (rank, first.in_features) or b.shape != (sum(sizes), rank):
        what = f"the adapter of {name} has the shapes {tuple(a.shape)}, {tuple(b.shape)}"
        remedy = f"{(rank, first.in_features)}, {(sum(sizes), rank)} is what {CONFIG} and the kernel ask for"
        raise CheckpointError(what, remedy=remedy)
    config = LoraConfig(
        rank, alpha, float(given.get("lora_dropout", 0.0)), ("*",), rslora=bool(given.get("use_rslora", False))
    )
    made = []
    for (ours, layer), rows in zip(layers, torch.split(b, sizes), strict=True):
        assert isinstance(layer, nn.Linear)
        adapted = LoraLinear(layer, config, torch.Generator(layer.weight.device).manual_seed(0))
        with torch.no_grad():
            adapted.lora_a.copy_(a)
            adapted.lora_b.copy_(rows)
        made.append((ours, adapted))
    return made


def _pattern(patterns: dict[str, Any], names: Sequence[str], default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in patterns.items():
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
            return value
    return default


def _parts(entry: Entry, value: Tensor, state: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """A whole tensor of theirs under canonical names."""
    value = value.T if entry.transposed else value
    if len(entry.canonical) == 1:
        return [(entry.canonical[0], value)]
    sizes = [state[name].shape[0] for name in entry.canonical]
    if sum(sizes) != value.shape[0]:
        what = f"the adapter brings {entry.theirs} of the shape {tuple(value.shape)}; the kernel has {sum(sizes)} rows"
        raise CheckpointError(what, remedy="load the model that the adapter was made for")
    return list(zip(entry.canonical, torch.split(value, sizes), strict=True))


def _check_values(values: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    for name, value in values.items():
        if name not in state or value.shape != state[name].shape:
            has = tuple(state[name].shape) if name in state else "none"
            what = f"the adapter brings {name} of the shape {tuple(value.shape)}; the kernel has {has}"
            raise CheckpointError(what, remedy="give the kernel the head that was trained: kernel.with_head(...)")
