"""Known designs as combinations of choices, with the sizes of their public base models. Data, not code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nacre.errors import ConfigError, closest
from nacre.kernel.config import KernelConfig, RopeConfig

_BERT: dict[str, Any] = {
    "family": "bert",
    "layout": "encoder",
    "vocab_size": 30522,
    "hidden_size": 768,
    "layers": 12,
    "heads": 12,
    "ffn_size": 3072,
    "max_positions": 512,
    "norm_placement": "post",
    "norm_eps": 1e-12,
    "embedding_norm": True,
    "token_types": 2,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "embedding_dropout": 0.1,
    "head": "mlm",
    "pad_id": 0,
}
_LLAMA: dict[str, Any] = {
    "family": "llama",
    "layout": "decoder",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "layers": 32,
    "heads": 32,
    "ffn_size": 11008,
    "max_positions": 4096,
    "norm": "rms",
    "norm_eps": 1e-5,
    "position": "rotary",
    "qkv_bias": False,
    "attention_output_bias": False,
    "ffn_bias": False,
    "activation": "silu",
    "gated": True,
    "tied": False,
    "head": "lm",
    "pooling": "last",
    "bos_id": 1,
    "eos_id": 2,
}
_T5: dict[str, Any] = {
    "family": "t5",
    "layout": "encoder-decoder",
    "vocab_size": 32128,
    "hidden_size": 512,
    "layers": 6,
    "heads": 8,
    "head_dim": 64,
    "ffn_size": 2048,
    "max_positions": 512,
    "norm": "rms",
    "norm_eps": 1e-6,
    "position": "relative",
    "qkv_bias": False,
    "attention_output_bias": False,
    "ffn_bias": False,
    "attention_scale": 1.0,
    "activation": "relu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "embedding_dropout": 0.1,
    "ffn_dropout": 0.1,
    "init": "t5",
    "init_std": 1.0,
    "head": "lm",
    "pad_id": 0,
    "eos_id": 1,
    "decoder_start_id": 0,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT
    | {
        "family": "roberta",
        "vocab_size": 50265,
        "norm_eps": 1e-5,
        "token_types": 1,
        "position_offset": 2,
        "positions_skip_padding": True,
        "pad_id": 1,
        "bos_id": 0,
        "eos_id": 2,
    },
    "ernie": _BERT | {"family": "ernie", "vocab_size": 40000, "max_positions": 2048, "token_types": 4, "task_types": 3},
    "gpt2": {
        "family": "gpt2",
        "layout": "decoder",
        "vocab_size": 50257,
        "hidden_size": 768,
        "layers": 12,
        "heads": 12,
        "ffn_size": 3072,
        "max_positions": 1024,
        "activation": "gelu_tanh",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "embedding_dropout": 0.1,
        "init": "gpt2",
        "head": "lm",
        "pooling": "last",
        "bos_id": 50256,
        "eos_id": 50256,
    },
    "llama2": _LLAMA,
    "llama3": _LLAMA
    | {
        "vocab_size": 128256,
        "kv_heads": 8,
        "ffn_size": 14336,
        "max_positions": 131072,
        "rope": RopeConfig(theta=500_000.0, scaling="llama3", factor=8.0, original_positions=8192),
        "bos_id": 128000,
        "eos_id": 128001,
    },
    "mistral": _LLAMA
    | {"family": "mistral", "kv_heads": 8, "ffn_size": 14336, "max_positions": 32768, "sliding_window": 4096},
    "qwen2": _LLAMA
    | {
        "family": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "layers": 28,
        "heads": 28,
        "kv_heads": 4,
        "ffn_size": 18944,
        "max_positions": 32768,
        "norm_eps": 1e-6,
        "rope": RopeConfig(theta=1_000_000.0),
        "qkv_bias": True,
        "bos_id": 151643,
        "eos_id": 151643,
    },
    "qwen3": _LLAMA
    | {
        "family": "qwen3",
        "vocab_size": 151936,
        "layers": 36,
        "kv_heads": 8,
        "head_dim": 128,
        "ffn_size": 12288,
        "max_positions": 32768,
        "norm_eps": 1e-6,
        "rope": RopeConfig(theta=1_000_000.0),
        "qk_norm": True,
        "bos_id": 151643,
        "eos_id": 151643,
    },
    "t5": _T5 | {"logit_scale": 512**-0.5},
    "t5-v1.1": _T5
    | {"heads": 6, "layers": 8, "ffn_size": 1024, "activation": "gelu_tanh", "gated": True, "tied": False},
    "vit": {
        "family": "vit",
        "layout": "encoder",
        "vocab_size": 0,
        "hidden_size": 768,
        "layers": 12,
        "heads": 12,
        "ffn_size": 3072,
        "max_positions": 197,
        "norm_eps": 1e-12,
        "image_size": 224,
        "patch_size": 16,
    },
}


def preset(name: str, **choices: Any) -> KernelConfig:
    """The design `name` with some fields of KernelConfig changed, sizes as a rule.

    What depends on a changed size follows it unless it is given too: `ffn_size`, `kv_heads` and `head_dim` keep their
    proportion, special tokens outside a smaller vocabulary become None, T5's logit scale follows the width, an image's
    number of positions its size. Raises ConfigError naming the closest preset or field.
    """
    if name not in PRESETS:
        raise ConfigError(f"no kernel preset is called {name!r}", remedy=closest(name, PRESETS))
    base = PRESETS[name]
    return KernelConfig.from_dict({**base, **_following(base, choices), **choices})


def _following(base: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that follow from changed sizes."""
    changed: dict[str, Any] = {}
    hidden = choices.get("hidden_size", base["hidden_size"])
    heads = choices.get("heads", base["heads"])
    if "hidden_size" in choices:
        changed["ffn_size"] = None
        if base.get("logit_scale", 1.0) != 1.0:
            changed["logit_scale"] = hidden**-0.5
    if "hidden_size" in choices or "heads" in choices:
        changed["head_dim"] = None
    if "heads" in choices and "kv_heads" in base:
        groups = base["heads"] // base["kv_heads"]
        changed["kv_heads"] = heads // groups if heads % groups == 0 else heads
    if "image_size" in choices or "patch_size" in choices:
        side = choices.get("image_size", base["image_size"]) // choices.get("patch_size", base["patch_size"])
        changed["max_positions"] = side * side + 1
    if "pad_id" in choices and base.get("positions_skip_padding"):
        changed["position_offset"] = choices["pad_id"] + 1
    if "vocab_size" in choices:
        for token in ("bos_id", "eos_id"):
            if (base.get(token) or 0) >= choices["vocab_size"]:
                changed[token] = None
    return changed
