"""A kernel known by its config alone: what is declared, under a public family's name, and nothing proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.canonical import Canonical, Layout, Sizes
from nacre.lifecycle.audit.kernel import declared
from nacre.lifecycle.audit.kernel.families import FAMILIES, Family
from nacre.lifecycle.audit.kernel.graph import Design, digest
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.subject import Subject

_DECLARED = "a config alone: family and sizes are declared, nothing is proven by a tensor"


def from_config(subject: Subject) -> Canonical:
    """What a config declares. Raises CheckpointError where it names no known family."""
    if not subject.config:
        reason = subject.missing.get("kernel") or "neither a config nor tensor names"
        raise CheckpointError(reason, remedy="name a folder with config.json or weights")
    config = declared.language_config(subject.config)
    family = _family(config)
    if family is None:
        named = repr(declared.model_type(config))
        raise CheckpointError(
            say("the config alone names no known family (model_type {named})", named=named),
            remedy="audit its weights or their index: tensor names and shapes tell the design",
        )
    design = _with_biases(family.design(), config)
    graph = (*design.lines(), *declared.lines(config))
    said = declared.sizes(config)
    sizes = Sizes(said["layers"], said["hidden"], said["heads"], said["kv_heads"], said["head_size"], said["ffn"],
                  said["vocabulary"], said["experts"])  # fmt: skip
    layout: Layout = family.layout  # type: ignore[assignment]
    gated = any(role.endswith("gate") for kind in design.layers for role in kind)
    return Canonical(layout, sizes, digest(graph), "", graph, family.name, gated, notes=(_DECLARED,), basis="config")


def _family(config: Mapping[str, Any]) -> Family | None:
    word = declared.model_type(config)
    if word == "chatglm" and config.get("rmsnorm") is True:
        word = "chatglm2"
    if word == "deepseek_v2" and config.get("q_lora_rank") is None:
        return next(one for one in FAMILIES if one.name == "DeepSeek-V2-Lite")
    return next((one for one in FAMILIES if word in one.model_types), None)


def _with_biases(design: Design, config: Mapping[str, Any]) -> Design:
    """Llama's class takes biases from two fields."""
    added = {field: roles for field, roles in (("attention_bias", "qkvo"), ("mlp_bias", ("gate", "up", "down")))
             if config.get(field) is True}  # fmt: skip
    if not added or declared.model_type(config) not in ("llama", "mistral", "granite"):
        return design
    extra = {f"{role}.bias" for roles in added.values() for role in roles}
    return replace(design, layers=frozenset(kind | extra for kind in design.layers))
