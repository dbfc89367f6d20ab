"""The checkpoint families of `transformers`: which class holds which head, and what each tensor is called there.

Data, not code, and free of torch, so that a config can be checked before anything heavy is imported. Canonical names
are those of `nacre.kernel.model.Kernel.state_dict()`; `{i}` counts layers. A new family is one `Family` here, one
reader and writer of its `config.json` in `hf_config.py`, and one preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Names = Mapping[str, str]


def _frozen(names: dict[str, str]) -> Names:
    return MappingProxyType(names)


def _both(canonical: str, theirs: str) -> dict[str, str]:
    """The weight and the bias of one module."""
    return {f"{canonical}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


@dataclass(frozen=True)
class Family:
    """One `model_type` of `transformers`.

    `classes` maps a head of `KernelConfig.head` to the class that holds it. `names` and `head_names` map canonical
    tensor names to theirs; names of the body stand under `prefix` in every class but the base class. `fused` lists
    canonical names that are stored as one tensor; `transposed` lists those stored as (in, out). `aliases` are
    duplicates of tied tensors, accepted when equal. `inert` are endings of tensors without information (old buffers).
    `unused` are endings that the base class has and some head classes do not: tolerated there, and reported. `running`
    are parts of names that the class in memory, by whose modules PEFT goes, has otherwise than the file.
    """

    model_type: str
    classes: Names
    prefix: str
    names: Names
    head_names: Mapping[str, Names]
    pooler: bool = False
    classify_pooling: str = "cls"
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    aliases: Names = field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()
    untied: tuple[tuple[str, str], ...] = ()
    ungated: tuple[tuple[str, str], ...] = ()
    inert: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    running: tuple[tuple[str, str], ...] = ()

    def in_class(self, theirs: str) -> str:
        """A name of theirs on disk, or a pattern over such names, as the class in memory has it."""
        for stored, held in self.running:
            theirs = theirs.replace(stored, held)
        return theirs


def _bert_layer(stack: str) -> dict[str, str]:
    ours, theirs = "encoder.layers.{i}", f"{stack}.{{i}}"
    return {
        **_both(f"{ours}.attention.q", f"{theirs}.attention.self.query"),
        **_both(f"{ours}.attention.k", f"{theirs}.attention.self.key"),
        **_both(f"{ours}.attention.v", f"{theirs}.attention.self.value"),
        **_both(f"{ours}.attention.o", f"{theirs}.attention.output.dense"),
        **_both(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm"),
        **_both(f"{ours}.ffn.up", f"{theirs}.intermediate.dense"),
        **_both(f"{ours}.ffn.down", f"{theirs}.output.dense"),
        **_both(f"{ours}.ffn_norm", f"{theirs}.output.LayerNorm"),
    }


_BERT_BODY = {
    "embed.tokens.weight": "embeddings.word_embeddings.weight",
    "embed.positions.weight": "embeddings.position_embeddings.weight",
    "embed.token_types.weight": "embeddings.token_type_embeddings.weight",
    **_both("embed.norm", "embeddings.LayerNorm"),
    **_bert_layer("encoder.layer"),
}
_BERT_POOLER = _both("pooler", "pooler.dense")
_BERT_MLM = {
    **_both("mlm.dense", "cls.predictions.transform.dense"),
    **_both("mlm.norm", "cls.predictions.transform.LayerNorm"),
    "mlm.bias": "cls.predictions.bias",
    "mlm.decoder.weight": "cls.predictions.decoder.weight",
}
_BERT_HEADS: dict[str, Names] = {
    "none": _frozen({}),
    "mlm": _frozen(_BERT_MLM),
    "pretraining": _frozen(_BERT_MLM | _both("nsp", "cls.seq_relationship")),
    "classify": _frozen(_both("classifier", "classifier")),
    "tag": _frozen(_both("classifier", "classifier")),
}
_OLD_NORM = ((".gamma", ".weight"), (".beta", ".bias"))


def _bert_family(model_type: str, name: str, extra: dict[str, str]) -> Family:
    return Family(
        model_type=model_type,
        classes=_frozen(
            {
                "none": f"{name}Model",
                "mlm": f"{name}ForMaskedLM",
                "pretraining": f"{name}ForPreTraining",
                "classify": f"{name}ForSequenceClassification",
                "tag": f"{name}ForTokenClassification",
            }
        ),
        prefix=f"{model_type}.",
        names=_frozen(_BERT_BODY | extra | _BERT_POOLER),
        head_names=_BERT_HEADS,
        pooler=True,
        aliases=_frozen(
            {
                "cls.predictions.decoder.weight": f"{model_type}.embeddings.word_embeddings.weight",
                "cls.predictions.decoder.bias": "cls.predictions.bias",
            }
        ),
        renamed=_OLD_NORM,
        untied=(("cls.predictions.bias", "cls.predictions.decoder.bias"),),
        inert=("embeddings.position_ids", "embeddings.token_type_ids"),
        unused=("pooler.dense.weight", "pooler.dense.bias"),
    )


_ROBERTA_MLM = {
    **_both("mlm.dense", "lm_head.dense"),
    **_both("mlm.norm", "lm_head.layer_norm"),
    "mlm.bias": "lm_head.bias",
    "mlm.decoder.weight": "lm_head.decoder.weight",
}
_ROBERTA = Family(
    model_type="roberta",
    classes=_frozen(
        {
            "none": "RobertaModel",
            "mlm": "RobertaForMaskedLM",
            "classify": "RobertaForSequenceClassification",
            "tag": "RobertaForTokenClassification",
        }
    ),
    prefix="roberta.",
    names=_frozen(_BERT_BODY | _BERT_POOLER),
    head_names={
        "none": _frozen({}),
        "mlm": _frozen(_ROBERTA_MLM),
        # RoBERTa's classifier brings its own dense layer: the same function as BERT's pooler.
        "classify": _frozen(_both("pooler", "classifier.dense") | _both("classifier", "classifier.out_proj")),
        "tag": _frozen(_both("classifier", "classifier")),
    },
    pooler=True,
    aliases=_frozen(
        {
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }
    ),
    renamed=_OLD_NORM,
    untied=(("lm_head.bias", "lm_head.decoder.bias"),),
    inert=("embeddings.position_ids", "embeddings.token_type_ids"),
    unused=("pooler.dense.weight", "pooler.dense.bias"),
)

_GPT2 = Family(
    model_type="gpt2",
    classes=_frozen(
        {
            "none": "GPT2Model",
            "lm": "GPT2LMHeadModel",
            "classify": "GPT2ForSequenceClassification",
            "tag": "GPT2ForTokenClassification",
        }
    ),
    prefix="transformer.",
    names=_frozen(
        {
            "embed.tokens.weight": "wte.weight",
            "embed.positions.weight": "wpe.weight",
            **_both("decoder.layers.{i}.attention_norm", "h.{i}.ln_1"),
            **_both("decoder.layers.{i}.attention.o", "h.{i}.attn.c_proj"),
            **_both("decoder.layers.{i}.ffn_norm", "h.{i}.ln_2"),
            **_both("decoder.layers.{i}.ffn.up", "h.{i}.mlp.c_fc"),
            **_both("decoder.layers.{i}.ffn.down", "h.{i}.mlp.c_proj"),
            **_both("decoder.norm", "ln_f"),
        }
    ),
    fused={
        f"h.{{i}}.attn.c_attn.{part}": tuple(f"decoder.layers.{{i}}.attention.{p}.{part}" for p in "qkv")
        for part in ("weight", "bias")
    },
    transposed=(".attn.c_attn.weight", ".attn.c_proj.weight", ".mlp.c_fc.weight", ".mlp.c_proj.weight"),
    head_names={
        "none": _frozen({}),
        "lm": _frozen({"lm_head.weight": "lm_head.weight"}),
        "classify": _frozen({"classifier.weight": "score.weight"}),
        "tag": _frozen(_both("classifier", "classifier")),
    },
    classify_pooling="last",
    aliases=_frozen({"lm_head.weight": "transformer.wte.weight"}),
    inert=(".attn.bias", ".attn.masked_bias"),
)


def _llama_family(model_type: str, name: str) -> Family:
    ours, theirs = "decoder.layers.{i}", "layers.{i}"
    names = {
        "embed.tokens.weight": "embed_tokens.weight",
        f"{ours}.attention_norm.weight": f"{theirs}.input_layernorm.weight",
        f"{ours}.ffn_norm.weight": f"{theirs}.post_attention_layernorm.weight",
        f"{ours}.attention.q_norm.weight": f"{theirs}.self_attn.q_norm.weight",
        f"{ours}.attention.k_norm.weight": f"{theirs}.self_attn.k_norm.weight",
        "decoder.norm.weight": "norm.weight",
    }
    for part in "qkvo":
        names |= _both(f"{ours}.attention.{part}", f"{theirs}.self_attn.{part}_proj")
    for part in ("gate", "up", "down"):
        names |= _both(f"{ours}.ffn.{part}", f"{theirs}.mlp.{part}_proj")
    return Family(
        model_type=model_type,
        classes=_frozen(
            {
                "none": f"{name}Model",
                "lm": f"{name}ForCausalLM",
                "classify": f"{name}ForSequenceClassification",
                "tag": f"{name}ForTokenClassification",
            }
        ),
        prefix="model.",
        names=_frozen(names),
        head_names={
            "none": _frozen({}),
            "lm": _frozen({"lm_head.weight": "lm_head.weight"}),
            "classify": _frozen({"classifier.weight": "score.weight"}),
            "tag": _frozen(_both("classifier", "score")),
        },
        classify_pooling="last",
        aliases=_frozen({"lm_head.weight": "model.embed_tokens.weight"}),
        inert=("rotary_emb.inv_freq",),
    )


def _t5_stack(stack: str, *, cross: bool) -> dict[str, str]:
    block, ffn = f"{stack}.block.{{i}}.layer", 2 if cross else 1
    ours = f"{stack}.layers.{{i}}"
    names = {
        f"{stack}.relative.weight": f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        f"{stack}.norm.weight": f"{stack}.final_layer_norm.weight",
        f"{ours}.attention_norm.weight": f"{block}.0.layer_norm.weight",
        f"{ours}.ffn_norm.weight": f"{block}.{ffn}.layer_norm.weight",
        f"{ours}.ffn.down.weight": f"{block}.{ffn}.DenseReluDense.wo.weight",
    }
    for part in "qkvo":
        names[f"{ours}.attention.{part}.weight"] = f"{block}.0.SelfAttention.{part}.weight"
    if cross:
        names[f"{ours}.cross_norm.weight"] = f"{block}.1.layer_norm.weight"
        for part in "qkvo":
            names[f"{ours}.cross.{part}.weight"] = f"{block}.1.EncDecAttention.{part}.weight"
    return names


def _t5_ffn(stack: str, layer: int) -> tuple[tuple[str, str], ...]:
    """Both forms of the feed-forward, v1.0 (`wi`) and v1.1 (`wi_0` the gate, `wi_1`): canonical to theirs."""
    theirs = f"{stack}.block.{{i}}.layer.{layer}.DenseReluDense"
    ours = f"{stack}.layers.{{i}}.ffn"
    return ((f"{ours}.gate.weight", f"{theirs}.wi_0.weight"), (f"{ours}.up.weight", f"{theirs}.wi_1.weight"))


_T5 = Family(
    model_type="t5",
    classes=_frozen({"none": "T5Model", "lm": "T5ForConditionalGeneration"}),
    prefix="",
    names=_frozen(
        {
            "embed.tokens.weight": "shared.weight",
            **_t5_stack("encoder", cross=False),
            **_t5_stack("decoder", cross=True),
            **dict(_t5_ffn("encoder", 1)),
            **dict(_t5_ffn("decoder", 2)),
        }
    ),
    head_names={"none": _frozen({}), "lm": _frozen({"lm_head.weight": "lm_head.weight"})},
    aliases=_frozen(
        {
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
            "lm_head.weight": "shared.weight",
        }
    ),
    ungated=((".wi_1.", ".wi."),),
    inert=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
)

_VIT_LAYER = "encoder.layer.{i}"
_VIT = Family(
    model_type="vit",
    classes=_frozen({"none": "ViTModel", "classify": "ViTForImageClassification"}),
    prefix="vit.",
    names=_frozen(
        {
            "embed.cls": "embeddings.cls_token",
            "embed.positions.weight": "embeddings.position_embeddings",
            **_both("embed.patches", "embeddings.patch_embeddings.projection"),
            **_both("encoder.layers.{i}.attention_norm", f"{_VIT_LAYER}.layernorm_before"),
            **_both("encoder.layers.{i}.attention.q", f"{_VIT_LAYER}.attention.attention.query"),
            **_both("encoder.layers.{i}.attention.k", f"{_VIT_LAYER}.attention.attention.key"),
            **_both("encoder.layers.{i}.attention.v", f"{_VIT_LAYER}.attention.attention.value"),
            **_both("encoder.layers.{i}.attention.o", f"{_VIT_LAYER}.attention.output.dense"),
            **_both("encoder.layers.{i}.ffn_norm", f"{_VIT_LAYER}.layernorm_after"),
            **_both("encoder.layers.{i}.ffn.up", f"{_VIT_LAYER}.intermediate.dense"),
            **_both("encoder.layers.{i}.ffn.down", f"{_VIT_LAYER}.output.dense"),
            **_both("encoder.norm", "layernorm"),
            **_both("pooler", "pooler.dense"),
        }
    ),
    head_names={"none": _frozen({}), "classify": _frozen(_both("classifier", "classifier"))},
    pooler=True,
    unused=("pooler.dense.weight", "pooler.dense.bias", "embeddings.mask_token"),
    running=(
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ),
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": _bert_family("bert", "Bert", {}),
        "ernie": _bert_family("ernie", "Ernie", {"embed.task_types.weight": "embeddings.task_type_embeddings.weight"}),
        "roberta": _ROBERTA,
        "gpt2": _GPT2,
        "llama": _llama_family("llama", "Llama"),
        "mistral": _llama_family("mistral", "Mistral"),
        "qwen2": _llama_family("qwen2", "Qwen2"),
        "qwen3": _llama_family("qwen3", "Qwen3"),
        "t5": _T5,
        "vit": _VIT,
    }
)
