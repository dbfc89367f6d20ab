"""The folder of an adapter on disk: `adapter_config.json` and `adapter_model.safetensors`, as PEFT has them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nacre.errors import CheckpointError
from nacre.kernel.adapters.adapted import disabled, is_adapter
from nacre.kernel.hf_files import HEAD, read_json
from nacre.kernel.model import Kernel
from nacre.lineage.durable import write_atomic

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_DIGESTED = 4096  # numbers of each parameter that tell one base from another
BASE = "base.json"  # a file of its own: PEFT warns of keys it does not know, and safetensors shuffles its metadata

# Keys of LoRA's config that do not change what the adapter computes, given its tensors.
_HARMLESS = frozenset(
    {
        "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
        "parent_library", "inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
        "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora",
        "use_dora", "fan_in_fan_out", "init_lora_weights", "bias", "runtime_config", "qalora_group_size",
        "megatron_core", "eva_config",
    }
)  # fmt: skip
_INITS_THAT_KEEP_THE_BASE = (True, False, None, "gaussian", "orthogonal", "eva")


def write(
    folder: Path, described: dict[str, Any], tensors: dict[str, Tensor], head: dict[str, Tensor], base: str
) -> None:
    """Writes an adapter; `head` are tensors that no class of `transformers` has, `base` the digest of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / HEAD).unlink(missing_ok=True)
    if head:
        save_file({name: one.detach().cpu().contiguous().clone() for name, one in head.items()}, folder / HEAD)
    for file in (folder / WEIGHTS, folder / HEAD):
        if file.is_file():
            file.chmod(0o644)  # safetensors makes a file for its owner alone
    write_atomic(folder / BASE, (json.dumps({"base": base}) + "\n").encode())
    write_atomic(folder / CONFIG, (json.dumps(described, indent=2, sort_keys=True) + "\n").encode())


def require_weights(folder: Path) -> Path:
    """The file with the tensors; CheckpointError where there is none."""
    if not (folder / WEIGHTS).is_file():
        remedy = "convert it with PEFT: model.save_pretrained(folder, safe_serialization=True)"
        raise CheckpointError(f"no {WEIGHTS} in {folder}", remedy=remedy)
    return folder / WEIGHTS


def check_base(module: nn.Module, folder: Path, full: Sequence[str]) -> None:
    """Raises CheckpointError where the adapter says that it was made for a model with other weights than `module`.

    `full`: parameters that the adapter replaces, which may differ. Nothing is said of adapters that PEFT wrote.
    """
    if is_base(module, folder, full) is False:
        raise CheckpointError(
            f"the adapter in {folder} was made for a model with other weights",
            remedy="load the model that it was made for; to use it here all the same: load(..., any_base=True)",
        )


def is_base(module: nn.Module, folder: Path, full: Sequence[str]) -> bool | None:
    """Whether the adapter says that it was made for the weights of `module`; None where it says nothing of such."""
    made_for = str(read_json(folder / BASE).get("base")) if (folder / BASE).is_file() else ""
    return made_for == base_digest(module, full) if made_for.partition(":")[0] == _kind(module) else None


def base_digest(module: nn.Module, full: Sequence[str]) -> str:
    """What tells a model from others: the kind of its names, and a digest over the beginning of each parameter but
    those in `full` and of adapters. Rounded to bfloat16: a model is the same in every format it is loaded in."""
    digest, skipped = hashlib.sha256(), set(full)
    with disabled(module), torch.no_grad():
        for name, one in sorted(module.named_parameters()):
            if name in skipped or is_adapter(name):
                continue
            first = one.detach().flatten()[:_DIGESTED].cpu()
            first = first.to(torch.bfloat16) if first.is_floating_point() else first
            digest.update(
                f"{name} {tuple(one.shape)}".encode() + first.contiguous().view(torch.uint8).numpy().tobytes()
            )
    return f"{_kind(module)}:sha256:{digest.hexdigest()}"


def _kind(module: nn.Module) -> str:
    return "kernel" if isinstance(module, Kernel) else "transformers"


def refuse_lora(given: Mapping[str, Any]) -> None:
    """Raises CheckpointError for whatever LoRA can be told that these adapters cannot express."""
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


def pattern(patterns: Mapping[str, Any], names: Sequence[str], default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    for one, value in patterns.items():
        if any(re.match(rf"(.*\.)?({one})$", name) for name in names):
            return value
    return default


def check_values(values: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError for a whole tensor that the model has not, or has in another shape."""
    for name, value in values.items():
        if name not in state or value.shape != state[name].shape:
            has = tuple(state[name].shape) if name in state else "none"
            what = f"the adapter brings {name} of the shape {tuple(value.shape)}; the model has {has}"
            raise CheckpointError(what, remedy="give the model the head that was trained: kernel.with_head(...)")
