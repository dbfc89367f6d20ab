"""Which modules an adapter stands beside, by name: those of a kernel, or those of any model of `transformers`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from nacre.errors import ConfigError, closest
from nacre.kernel.adapters.bias import has_bias
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.lora import is_linear
from nacre.kernel.families import FAMILIES
from nacre.kernel.model import Kernel

# Parts of a kernel that a task's head consists of, by head: trained in full beside the adapters.
_HEADS = {"classify": ("classifier", "pooler"), "tag": ("classifier",), "pretraining": ("pooler", "nsp")}
_FOREIGN_HEADS = ("classifier", "score")  # as PEFT has it
_LAYER = re.compile(r"(^|\.)\d+\.")


def places(module: nn.Module, config: AdapterConfig) -> list[str]:
    """Names of the modules beside which `config` puts an adapter, in the order of the model.

    Raises ConfigError for a target that matches nothing, and for a model whose defaults are not known.
    """
    able, what = _ABLE[config.method]
    found = {name: one for name, one in module.named_modules() if able(one) and _is_inside(module, name)}
    targets = config.targets or default_targets(module, config)
    for target in targets:
        if not any(matches(name, target) for name in found):
            raise ConfigError(
                f"adapter: the target {target!r} matches no {what}",
                remedy=closest(target, {name.rsplit(".", 1)[-1] for name in found} | set(found)),
            )
    if not found:
        raise ConfigError(f"this model has no {what}", remedy="another method, such as lora")
    return [name for name in found if not targets or any(matches(name, target) for target in targets)]


def default_targets(module: nn.Module, config: AdapterConfig) -> tuple[str, ...]:
    """Ends of the names that a method takes when it is told nothing; empty: all that are able."""
    if config.method == "bias":
        return ()
    family = family_of(module)
    if config.method == "lora":
        # As PEFT; GPT-2 has queries, keys and values in one matrix.
        ours: tuple[str, ...] = ("attention.q", "attention.v")
        ours += ("cross.q", "cross.v") if family == "t5" else ()
        ours = ("attention.q", "attention.k", "attention.v") if family == "gpt2" else ours
    else:
        ours = ("ffn.down",) if config.placement == "ffn" else ("attention.o", "cross.o", "ffn.down")
        ours = ours if family == "t5" else tuple(one for one in ours if not one.startswith("cross."))
    return ours if isinstance(module, Kernel) else _translated(family, ours)


def family_of(module: nn.Module) -> str:
    """The family of a kernel or a model of `transformers`; ConfigError for one that no kernel has."""
    if isinstance(module, Kernel):
        return module.config.family
    kind = str(getattr(getattr(module, "config", None), "model_type", type(module).__name__))
    family = next((name for name, one in FAMILIES.items() if one.model_type == kind), None)
    if family is None:
        raise ConfigError(
            f"adapter: no default targets are known for the model type {kind!r}",
            remedy="name them: targets: [ends of module names, such as q_proj]",
        )
    return family


def _translated(family: str, ours: Sequence[str]) -> tuple[str, ...]:
    """Ends of canonical names as patterns over the names of `transformers`."""
    known = FAMILIES[family]
    fused = {part: theirs for theirs, parts in known.fused.items() for part in parts}
    found = {
        known.in_class(theirs).removesuffix(".weight").replace("{i}", "*")
        for name, theirs in {**known.names, **fused}.items()
        if name.endswith(".weight") and any(matches(name.removesuffix(".weight"), one) for one in ours)
    }
    return tuple(sorted(found))


def matches(name: str, target: str) -> bool:
    """Whether a target, an end of a name or a pattern over it, means this module."""
    return fnmatchcase(name, target) or fnmatchcase(name, f"*.{target}")


def head_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained in full beside adapters: a classifier with its pooler; no language-model head."""
    parts = _HEADS.get(module.config.head, ()) if isinstance(module, Kernel) else _FOREIGN_HEADS
    return {name: one for name, one in module.named_parameters() if name.partition(".")[0] in parts}


def full_parameters(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The head, and what `patterns` name besides; ConfigError for one that matches nothing."""
    found = head_parameters(module)
    own = dict(module.named_parameters())
    for pattern in patterns:
        named = {name: one for name, one in own.items() if matches(name, pattern) or matches(name, f"{pattern}.*")}
        if not named:
            known = {name.rpartition(".")[0] for name in own} | set(own)
            raise ConfigError(f"adapter: train: {pattern!r} matches no parameter", remedy=closest(pattern, known))
        found |= named
    return found


def _is_inside(module: nn.Module, name: str) -> bool:
    """Inside a stack of a kernel, or a numbered layer of another model; heads are trained in full."""
    if isinstance(module, Kernel):
        return name.partition(".")[0] in ("encoder", "decoder")
    return bool(_LAYER.search(name))


_ABLE: dict[str, tuple[Callable[[nn.Module], bool], str]] = {
    "lora": (is_linear, "linear layer"),
    "bottleneck": (is_linear, "linear layer"),
    "bias": (has_bias, "module with a bias"),
}
