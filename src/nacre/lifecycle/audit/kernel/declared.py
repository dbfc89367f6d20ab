"""What a config says: sizes to compare with the tensors', and what changes the function without leaving a tensor.

Nothing here is proven. Where tensors contradict it the tensors win, and where they cannot confirm it the value is told
as declared and takes no part in any hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nacre.lifecycle.audit.kernel.lexicon import FUNCTION_FIELDS, NESTED, SIZE_FIELDS
from nacre.lifecycle.audit.said import say, term

# What a config leaves out where it means this.
_SILENT: dict[str, Any] = {"sliding_window": None, "rope_scaling": None, "softcap": None}


def language_config(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The fields of the language model: a multimodal config keeps them in a part of its own."""
    if not config:
        return {}
    for name in NESTED:
        part = config.get(name)
        if isinstance(part, Mapping) and size(part, "hidden") is not None:
            return {**config, **part}
    return config


def size(config: Mapping[str, Any], field: str) -> int | None:
    """A size of SIZE_FIELDS as the config declares it, None where it says nothing usable."""
    for name in SIZE_FIELDS[field]:
        value = _found(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value <= 0:
            continue
        return int(value)
    return None


def sizes(config: Mapping[str, Any]) -> dict[str, int | None]:
    """All sizes a config declares, with those that follow: kv_heads from heads, head_size from both."""
    found = {field: size(config, field) for field in SIZE_FIELDS}
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        found["kv_heads"] = 1
    elif found["kv_heads"] is None or config.get("multi_query_attention") is False:
        found["kv_heads"] = found["heads"]
    if found["head_size"] is None and found["hidden"] and found["heads"]:
        found["head_size"] = found["hidden"] // found["heads"]
    return found


def function(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the config says about activation, norm, positions and scales, in the words of FUNCTION_FIELDS."""
    said: dict[str, Any] = {}
    for field, names in FUNCTION_FIELDS.items():
        values = [_found(config, name) for name in names]
        value = next((one for one in values if one is not None and one is not False), None)
        if value is not None and value != _SILENT.get(field, object()):
            said[field] = value
    if config.get("position_encoding_2d") is True:
        said["position_kind"] = "2d"
    return said


def contradictions(config: Mapping[str, Any], solved: Mapping[str, int | None]) -> list[str]:
    """A sentence for every declared size that the tensors contradict."""
    said: list[str] = []
    for field, theirs in sizes(config).items():
        ours = solved.get(field)
        if field == "ffn" and ours in _other_widths(config, theirs):
            continue
        if theirs is not None and ours is not None and theirs != ours:
            template = "the config declares {field} {theirs}, the tensors have {ours}: the tensors are taken"
            said.append(say(template, field=term(f"size_{field}"), theirs=theirs, ours=ours))
    return said


def _other_widths(config: Mapping[str, Any], width: int | None) -> set[Any]:
    """Widths that a family declares in another field, or as both halves of its gated feed-forward (Qwen-1)."""
    halves = {width // 2} if width and model_type(config) == "qwen" else set()
    experts = {config.get("moe_intermediate_size"), config.get("shared_expert_intermediate_size")}
    return {one for one in halves | experts if one is not None}


def lines(config: Mapping[str, Any]) -> list[str]:
    """Graph lines of what is declared."""
    return [f"declared: {field} = {value}" for field, value in sorted(function(config).items())]


def model_type(config: Mapping[str, Any]) -> str | None:
    """The model's type in lower case, as the config or (without one) its class names it. A claim like any other."""
    word = config.get("model_type") or config.get("general.architecture")
    if isinstance(word, str) and word:
        return word.lower().removesuffix("_text_model").removesuffix("_text")
    classes = config.get("architectures")
    if isinstance(classes, Sequence) and not isinstance(classes, str) and classes and isinstance(classes[0], str):
        return _before_purpose(classes[0])
    return None


def _before_purpose(name: str) -> str:
    for end in ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "VideoForCausalLM", "Model"):
        name = name.removesuffix(end)
    return name.removesuffix("Video").lower()


def _found(config: Mapping[str, Any], name: str) -> Any:
    if name in config:
        return config[name]
    architecture = config.get("general.architecture")
    return config.get(f"{architecture}.{name}") if architecture else None
