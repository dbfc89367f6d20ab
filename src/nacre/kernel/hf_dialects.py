"""How each family writes its `config.json`: a table of keys, and two functions for the rest. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nacre.errors import CheckpointError
from nacre.kernel.config import KernelConfig
from nacre.kernel.hf_rope import read_rope, write_rope

Json = dict[str, Any]

OTHER_MODEL = "load this model with transformers instead, or choose another checkpoint"

# Keys that are checked when read, and not written: their classes have no such field, or a default that says the same.
ASSUMED = frozenset({"pretraining_tp", "partial_rotary_factor", "position_embedding_type"})


class Key(NamedTuple):
    """One number or flag: our field, their key, and what their class takes when the key is missing."""

    ours: str
    theirs: str
    default: Any = None


@dataclass(frozen=True)
class Dialect:
    """How one family writes its config: plain keys, keys with the only value that a kernel can express, and the rest.

    `base` is the preset that gives the structure. `read` and `write` handle what is no plain key: they complete the
    fields from the file, and the file from the config.
    """

    base: str
    keys: tuple[Key, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Json, Json], None] = lambda given, fields: None
    write: Callable[[KernelConfig, Json], None] = lambda config, out: None
    known: tuple[str, ...] = ()


_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_THEIR_ACTIVATION = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}


def _activation(name: Any) -> str:
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"config.json: the activation {name!r} is not one a kernel has", remedy=OTHER_MODEL)
    return _ACTIVATIONS[name]


_TOKENS = (Key("pad_id", "pad_token_id"), Key("bos_id", "bos_token_id"), Key("eos_id", "eos_token_id"))


def _tokens(pad: int | None = None, bos: int | None = None, eos: int | None = None) -> tuple[Key, ...]:
    return tuple(key._replace(default=value) for key, value in zip(_TOKENS, (pad, bos, eos), strict=True))


# ---- BERT, ERNIE, RoBERTa


def _read_bert(given: Json, fields: Json) -> None:
    fields["embedding_dropout"] = fields["dropout"]
    fields["activation"] = _activation(given.get("hidden_act", "gelu"))


def _write_bert(config: KernelConfig, out: Json) -> None:
    out["hidden_act"] = _THEIR_ACTIVATION[config.activation]


def _read_ernie(given: Json, fields: Json) -> None:
    _read_bert(given, fields)
    fields["task_types"] = given.get("task_type_vocab_size", 3) if given.get("use_task_id", False) else 0


def _write_ernie(config: KernelConfig, out: Json) -> None:
    _write_bert(config, out)
    out["use_task_id"] = config.task_types > 0
    if config.task_types:
        out["task_type_vocab_size"] = config.task_types


def _read_roberta(given: Json, fields: Json) -> None:
    _read_bert(given, fields)
    fields["position_offset"] = (fields["pad_id"] or 0) + 1
    fields["max_positions"] -= fields["position_offset"]


def _write_roberta(config: KernelConfig, out: Json) -> None:
    _write_bert(config, out)
    out["max_position_embeddings"] = config.max_positions + config.position_offset


_BERT_KEYS = (
    Key("vocab_size", "vocab_size", 30522),
    Key("hidden_size", "hidden_size", 768),
    Key("layers", "num_hidden_layers", 12),
    Key("heads", "num_attention_heads", 12),
    Key("ffn_size", "intermediate_size", 3072),
    Key("max_positions", "max_position_embeddings", 512),
    Key("token_types", "type_vocab_size", 2),
    Key("norm_eps", "layer_norm_eps", 1e-12),
    Key("dropout", "hidden_dropout_prob", 0.1),
    Key("attention_dropout", "attention_probs_dropout_prob", 0.1),
    Key("head_dropout", "classifier_dropout", None),
    Key("init_std", "initializer_range", 0.02),
    Key("tied", "tie_word_embeddings", True),
)
_BERT_FIXED = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}
_BERT_KNOWN = (
    "hidden_act", "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "pooler_type", "gradient_checkpointing", "chunk_size_feed_forward",
)  # fmt: skip


def _bert(base: str, read: Any, write: Any, tokens: tuple[Key, ...], *known: str) -> Dialect:
    return Dialect(base, _BERT_KEYS + tokens, _BERT_FIXED, read, write, _BERT_KNOWN + known)


# ---- GPT-2


def _read_gpt2(given: Json, fields: Json) -> None:
    fields["activation"] = _activation(given.get("activation_function", "gelu_new"))
    fields["ffn_size"] = given.get("n_inner") or 4 * fields["hidden_size"]


def _write_gpt2(config: KernelConfig, out: Json) -> None:
    out["activation_function"] = _THEIR_ACTIVATION[config.activation]
    out["n_inner"] = config.ffn_size


_GPT2 = Dialect(
    "gpt2",
    (
        Key("vocab_size", "vocab_size", 50257),
        Key("hidden_size", "n_embd", 768),
        Key("layers", "n_layer", 12),
        Key("heads", "n_head", 12),
        Key("max_positions", "n_positions", 1024),
        Key("norm_eps", "layer_norm_epsilon", 1e-5),
        Key("dropout", "resid_pdrop", 0.1),
        Key("attention_dropout", "attn_pdrop", 0.1),
        Key("embedding_dropout", "embd_pdrop", 0.1),
        Key("head_dropout", "classifier_dropout", None),
        Key("init_std", "initializer_range", 0.02),
        Key("tied", "tie_word_embeddings", True),
        *_tokens(None, 50256, 50256),
    ),
    {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
    _read_gpt2,
    _write_gpt2,
    (
        "activation_function", "n_inner", "n_ctx", "summary_type", "summary_use_proj", "summary_activation",
        "summary_proj_to_labels", "summary_first_dropout",
    ),
)  # fmt: skip


# ---- Llama, Mistral, Qwen


def _read_llama(given: Json, fields: Json) -> None:
    fields["activation"] = _activation(given.get("hidden_act", "silu"))
    fields["kv_heads"] = given.get("num_key_value_heads", fields["kv_heads"]) or fields["heads"]
    fields["head_dim"] = given.get("head_dim", fields["head_dim"]) or fields["hidden_size"] // fields["heads"]
    fields["rope"] = read_rope(given, fields["max_positions"])


def _write_llama(config: KernelConfig, out: Json) -> None:
    out["hidden_act"] = _THEIR_ACTIVATION[config.activation]
    out["rope_parameters"] = write_rope(config.rope)


def _read_biases(given: Json, fields: Json) -> None:
    _read_llama(given, fields)
    biased = given.get("attention_bias", False)
    fields |= {"qkv_bias": biased, "attention_output_bias": biased}


def _write_biases(config: KernelConfig, out: Json) -> None:
    _write_llama(config, out)
    out["attention_bias"] = config.qkv_bias


def _read_window(given: Json, fields: Json) -> None:
    _read_llama(given, fields)
    window = given.get("sliding_window", 4096) if given.get("use_sliding_window", False) else None
    first = given.get("max_window_layers", 28)
    kinds = given.get("layer_types") or [
        "sliding_attention" if i >= first else "full_attention" for i in range(fields["layers"])
    ]
    odd = sorted(set(kinds) - {"sliding_attention", "full_attention"})
    if odd or len(kinds) != fields["layers"]:
        what = f"config.json: layer_types {kinds} are not full or sliding attention for {fields['layers']} layers"
        raise CheckpointError(what, remedy=OTHER_MODEL)
    full = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    if window is not None and len(full) < len(kinds):
        fields |= {"sliding_window": window, "full_attention_layers": full}


def _write_window(config: KernelConfig, out: Json) -> None:
    _write_llama(config, out)
    out["use_sliding_window"] = config.sliding_window is not None
    if config.sliding_window is not None:
        out["sliding_window"] = config.sliding_window
    out["layer_types"] = [
        "full_attention" if config.window(i) is None else "sliding_attention" for i in range(config.layers)
    ]
    out["max_window_layers"] = config.layers


def _read_qwen2(given: Json, fields: Json) -> None:
    fields |= {"qkv_bias": True, "attention_output_bias": False}
    _read_window(given, fields)


def _read_qwen3(given: Json, fields: Json) -> None:
    _read_biases(given, fields)
    _read_window(given, fields)


def _write_qwen3(config: KernelConfig, out: Json) -> None:
    _write_biases(config, out)
    _write_window(config, out)


def _llama(
    base: str, ours: tuple[Key, ...], read: Any, write: Any, *known: str, fixed: Mapping[str, Any] | None = None
) -> Dialect:
    keys = (
        Key("hidden_size", "hidden_size", 4096),
        Key("layers", "num_hidden_layers", 32),
        Key("heads", "num_attention_heads", 32),
        Key("kv_heads", "num_key_value_heads"),
        Key("head_dim", "head_dim"),
        Key("norm_eps", "rms_norm_eps", 1e-6),
        Key("attention_dropout", "attention_dropout", 0.0),
        Key("head_dropout", "classifier_dropout", None),
        Key("init_std", "initializer_range", 0.02),
        Key("tied", "tie_word_embeddings", False),
    )
    rope = ("hidden_act", "rope_parameters", "rope_scaling", "rope_theta", "original_max_position_embeddings")
    return Dialect(base, keys + ours, {"pretraining_tp": 1, "partial_rotary_factor": 1.0} | dict(fixed or {}), read,
    write, rope + known)  # fmt: skip


_QWEN_KEYS = (
    Key("vocab_size", "vocab_size", 151936),
    Key("ffn_size", "intermediate_size", 22016),
    Key("max_positions", "max_position_embeddings", 32768),
    *_tokens(),
)
_WINDOW_KNOWN = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")


# ---- T5


def _read_t5(given: Json, fields: Json) -> None:
    kind = given.get("feed_forward_proj", "relu")
    gated, _, name = kind.rpartition("-")
    if gated not in ("", "gated"):
        raise CheckpointError(f"config.json: feed_forward_proj is {kind!r}", remedy=OTHER_MODEL)
    fields["gated"] = gated == "gated"
    fields["activation"] = "gelu_tanh" if kind == "gated-gelu" else _activation(name)
    fields["embedding_dropout"] = fields["attention_dropout"] = fields["ffn_dropout"] = fields["dropout"]
    fields["decoder_layers"] = given.get("num_decoder_layers") or fields["layers"]
    # transformers 5 always reports tied weights here and goes by the tensors; `hf.load` does the same.
    fields["tied"] = given.get("tie_word_embeddings", True)
    scaled = given.get("scale_decoder_outputs", fields["tied"])
    fields["logit_scale"] = fields["hidden_size"] ** -0.5 if scaled else 1.0


def _write_t5(config: KernelConfig, out: Json) -> None:
    name = "gelu" if config.gated and config.activation == "gelu_tanh" else _THEIR_ACTIVATION[config.activation]
    out["feed_forward_proj"] = f"gated-{name}" if config.gated else name
    out["num_decoder_layers"] = config.decoder_layers
    out["tie_word_embeddings"] = config.tied
    out["scale_decoder_outputs"] = config.logit_scale != 1.0
    out["is_encoder_decoder"] = True


_T5 = Dialect(
    "t5",
    (
        Key("vocab_size", "vocab_size", 32128),
        Key("hidden_size", "d_model", 512),
        Key("head_dim", "d_kv", 64),
        Key("ffn_size", "d_ff", 2048),
        Key("layers", "num_layers", 6),
        Key("heads", "num_heads", 8),
        Key("max_positions", "n_positions", 512),
        Key("relative_buckets", "relative_attention_num_buckets", 32),
        Key("relative_max_distance", "relative_attention_max_distance", 128),
        Key("dropout", "dropout_rate", 0.1),
        Key("norm_eps", "layer_norm_epsilon", 1e-6),
        Key("init_std", "initializer_factor", 1.0),
        Key("decoder_start_id", "decoder_start_token_id"),
        *_tokens(0, None, 1),
    ),
    {"is_encoder_decoder": True, "is_decoder": False},
    _read_t5,
    _write_t5,
    (
        "feed_forward_proj", "num_decoder_layers", "tie_word_embeddings", "scale_decoder_outputs", "dense_act_fn",
        "is_gated_act", "classifier_dropout", "output_past",
    ),
)  # fmt: skip


# ---- ViT


def _read_vit(given: Json, fields: Json) -> None:
    _read_bert(given, fields)
    for name in ("image_size", "patch_size"):
        value = fields[name]
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise CheckpointError(f"config.json: {name} {value} is not square", remedy=OTHER_MODEL)
            fields[name] = value[0]
    if given.get("pooler_output_size") not in (None, fields["hidden_size"]):
        raise CheckpointError("config.json: pooler_output_size is not hidden_size", remedy=OTHER_MODEL)
    fields["max_positions"] = (fields["image_size"] // fields["patch_size"]) ** 2 + 1


_VIT = Dialect(
    "vit",
    (
        Key("hidden_size", "hidden_size", 768),
        Key("layers", "num_hidden_layers", 12),
        Key("heads", "num_attention_heads", 12),
        Key("ffn_size", "intermediate_size", 3072),
        Key("image_size", "image_size", 224),
        Key("patch_size", "patch_size", 16),
        Key("channels", "num_channels", 3),
        Key("qkv_bias", "qkv_bias", True),
        Key("norm_eps", "layer_norm_eps", 1e-12),
        Key("dropout", "hidden_dropout_prob", 0.0),
        Key("attention_dropout", "attention_probs_dropout_prob", 0.0),
        Key("init_std", "initializer_range", 0.02),
    ),
    {"pooler_act": "tanh"},
    _read_vit,
    _write_bert,
    ("hidden_act", "encoder_stride", "pooler_output_size"),
)

_LLAMA_KEYS = (
    Key("vocab_size", "vocab_size", 32000),
    Key("ffn_size", "intermediate_size", 11008),
    Key("max_positions", "max_position_embeddings", 2048),
    Key("ffn_bias", "mlp_bias", False),
    *_tokens(None, 1, 2),
)
_MISTRAL_KEYS = (
    Key("vocab_size", "vocab_size", 32000),
    Key("ffn_size", "intermediate_size", 14336),
    Key("max_positions", "max_position_embeddings", 131072),
    Key("sliding_window", "sliding_window", 4096),
    Key("kv_heads", "num_key_value_heads", 8),
    *_tokens(None, 1, 2),
)
_QWEN3_KEYS = (*_QWEN_KEYS, Key("head_dim", "head_dim", 128), Key("kv_heads", "num_key_value_heads", 32))

DIALECTS: Mapping[str, Dialect] = {
    "bert": _bert("bert", _read_bert, _write_bert, _tokens(pad=0)),
    "ernie": _bert("ernie", _read_ernie, _write_ernie, _tokens(pad=0), "use_task_id", "task_type_vocab_size"),
    "roberta": _bert("roberta", _read_roberta, _write_roberta, _tokens(1, 0, 2)),
    "gpt2": _GPT2,
    "llama": _llama("llama2", _LLAMA_KEYS, _read_biases, _write_biases, "attention_bias"),
    "mistral": _llama("mistral", _MISTRAL_KEYS, _read_llama, _write_llama),
    "qwen2": _llama("qwen2", _QWEN_KEYS, _read_qwen2, _write_window, *_WINDOW_KNOWN),
    "qwen3": _llama("qwen3", _QWEN3_KEYS, _read_qwen3, _write_qwen3, *_WINDOW_KNOWN, "attention_bias"),
    "t5": _T5,
    "vit": _VIT,
}
