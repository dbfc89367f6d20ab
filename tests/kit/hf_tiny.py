"""Tiny models of `transformers`, one per preset and head, and the inputs on which a kernel must agree with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from nacre.kernel.model import Kernel, Output

_ENCODER = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
_DECODER = _ENCODER | {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT2 = {
    "vocab_size": 60,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_inner": 40,
    "n_positions": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_T5 = {
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 2,
}
_LABELS: dict[str, Any] = {"id2label": {0: "ask", 1: "退款", 2: "other"}, "label2id": {"ask": 0, "退款": 1, "other": 2}}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_YARN = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 8}
_LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}


@dataclass(frozen=True)
class Case:
    """One class of `transformers` with a tiny config, and how the kernel's logits are read."""

    preset: str
    head: str
    model: type
    config: type
    sizes: dict[str, Any]

    def build(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        model = self.model(self.config(**self.sizes)).eval()
        shake(model)
        return model


def _case(preset: str, head: str, name: str, config: str, sizes: dict[str, Any], **more: Any) -> Case:
    return Case(preset, head, getattr(hf, name), getattr(hf, config), sizes | more)


def _bert_cases(preset: str, name: str, **more: Any) -> list[Case]:
    heads = {
        "none": "Model",
        "mlm": "ForMaskedLM",
        "classify": "ForSequenceClassification",
        "tag": "ForTokenClassification",
    }
    if preset != "roberta":
        heads["pretraining"] = "ForPreTraining"
    labels = ("classify", "tag")
    return [
        _case(preset, head, name + kind, f"{name}Config", _ENCODER | more | (_LABELS if head in labels else {}))
        for head, kind in heads.items()
    ]


def _decoder_cases(preset: str, name: str, sizes: dict[str, Any], **more: Any) -> list[Case]:
    lm = f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    return [
        _case(preset, "none", f"{name}Model", f"{name}Config", sizes | more),
        _case(preset, "lm", lm, f"{name}Config", sizes | more),
        _case(preset, "classify", f"{name}ForSequenceClassification", f"{name}Config", sizes | more | _LABELS),
        _case(preset, "tag", f"{name}ForTokenClassification", f"{name}Config", sizes | more | _LABELS),
    ]


CASES: dict[str, Case] = {
    f"{case.preset}-{case.head}{'-' + str(i) if i else ''}": case
    for i, group in enumerate(
        [
            [
                *_bert_cases("bert", "Bert"),
                *_bert_cases("roberta", "Roberta", type_vocab_size=2),
                *_bert_cases("ernie", "Ernie", type_vocab_size=4, use_task_id=True),
                *_decoder_cases("gpt2", "GPT2", _GPT2),
                *_decoder_cases("llama2", "Llama", _DECODER),
                *_decoder_cases("llama3", "Llama", _DECODER, rope_parameters=_LLAMA3_ROPE, head_dim=10),
                *_decoder_cases("mistral", "Mistral", _DECODER, sliding_window=5),
                *_decoder_cases("qwen2", "Qwen2", _DECODER, tie_word_embeddings=True),
                *_decoder_cases("qwen3", "Qwen3", _DECODER, head_dim=12),
                _case("t5", "none", "T5Model", "T5Config", _T5),
                _case("t5", "lm", "T5ForConditionalGeneration", "T5Config", _T5),
                _case("t5-v1.1", "lm", "T5ForConditionalGeneration", "T5Config", _T5,
                      feed_forward_proj="gated-gelu", tie_word_embeddings=False),
                _case("vit", "none", "ViTModel", "ViTConfig", _VIT),
                _case("vit", "classify", "ViTForImageClassification", "ViTConfig", _VIT | _LABELS),
            ],
            [
                _case("bert", "mlm", "BertForMaskedLM", "BertConfig", _ENCODER, tie_word_embeddings=False,
                      hidden_act="gelu_new"),
                _case("roberta", "mlm", "RobertaForMaskedLM", "RobertaConfig", _ENCODER, tie_word_embeddings=False,
                      hidden_act="relu", pad_token_id=3),
                _case("ernie", "mlm", "ErnieForMaskedLM", "ErnieConfig", _ENCODER),
                _case("gpt2", "lm", "GPT2LMHeadModel", "GPT2Config", _GPT2, tie_word_embeddings=False),
                _case("llama2", "lm", "LlamaForCausalLM", "LlamaConfig", _DECODER, rope_parameters=_YARN,
                      attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
                _case("mistral", "lm", "MistralForCausalLM", "MistralConfig", _DECODER, sliding_window=None,
                      rope_parameters=_LINEAR, head_dim=6),
                _case("qwen2", "lm", "Qwen2ForCausalLM", "Qwen2Config", _DECODER, use_sliding_window=True,
                      sliding_window=4, max_window_layers=1),
                _case("qwen3", "lm", "Qwen3ForCausalLM", "Qwen3Config", _DECODER, head_dim=12, attention_bias=True,
                      rope_parameters=_YARN | {"attention_factor": 1.3, "beta_fast": 16.0, "truncate": False}),
                _case("t5", "lm", "T5ForConditionalGeneration", "T5Config", _T5, feed_forward_proj="gated-silu"),
            ],
        ]
    )
    for case in group
}  # fmt: skip


@torch.no_grad()
def shake(model: nn.Module) -> None:
    """Moves every parameter away from 0 and 1, so that a forgotten bias or norm shows."""
    for name, parameter in model.named_parameters():
        parameter.normal_(0, 0.3)
        if "norm" in name.lower() and name.endswith("weight"):
            parameter.add_(1.0)


def inputs(case: Case, left: bool = False) -> dict[str, Any]:
    """Two texts of different lengths, or images: the same numbers for both sides, under our names."""
    generator = torch.Generator().manual_seed(5)
    if case.preset == "vit":
        return {"ids": torch.randn(2, 2, 12, 12, generator=generator)}
    ids = torch.randint(6, 60, (2, 15), generator=generator)
    mask = torch.ones(2, 15, dtype=torch.bool)
    mask[0, slice(0, 6) if left else slice(9, 15)] = False
    pad = case.sizes.get("pad_token_id", 1 if case.preset == "roberta" else 0)
    given: dict[str, Any] = {"ids": ids.where(mask, pad), "mask": mask}
    if case.preset in ("bert", "roberta", "ernie"):
        given["token_types"] = torch.randint(0, 2, (2, 15), generator=generator)
    if case.preset.startswith("t5"):
        given["decoder_ids"] = torch.randint(6, 60, (2, 11), generator=generator)
    return given


def kernel_logits(kernel: Kernel, given: dict[str, Any]) -> list[Tensor]:
    """Every kind of logits that this kernel's head has, hidden states without one; zeros where there is padding."""
    output: Output = kernel(given["ids"], **{name: value for name, value in given.items() if name != "ids"})
    hidden, head = output.hidden, kernel.config.head
    if head == "classify":
        return [kernel.class_logits(hidden, given.get("mask"))]
    if head == "pretraining":
        return [_real(kernel.lm_logits(hidden), given), kernel.nsp_logits(hidden)]
    read: dict[str, Callable[[Tensor], Tensor]] = {
        "lm": kernel.lm_logits,
        "mlm": kernel.lm_logits,
        "tag": kernel.tag_logits,
        "none": lambda x: x,
    }
    return [_real(read[head](hidden), given)]


def theirs_logits(model: Any, case: Case, given: dict[str, Any]) -> list[Tensor]:
    """The same from the model of `transformers`."""
    named = {"pixel_values": given["ids"]} if case.preset == "vit" else _their_names(case, given)
    output = model(**named)
    if case.head == "pretraining":
        return [_real(output.prediction_logits, given), output.seq_relationship_logits]
    logits = output.last_hidden_state if case.head == "none" else output.logits
    return [logits if case.head == "classify" else _real(logits, given)]


def _their_names(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    named = {"input_ids": given["ids"], "attention_mask": given["mask"].long()}
    if "token_types" in given:
        named["token_type_ids"] = given["token_types"]
    if "decoder_ids" in given:
        named["decoder_input_ids"] = given["decoder_ids"]
    elif case.preset not in ("bert", "roberta", "ernie"):
        named["position_ids"] = (given["mask"].cumsum(1) - 1).clamp(min=0)
    return named


def _real(logits: Tensor, given: dict[str, Any]) -> Tensor:
    if "mask" not in given or "decoder_ids" in given:
        return logits
    return logits * given["mask"][..., None]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest absolute difference."""
    assert [t.shape for t in ours] == [t.shape for t in theirs]
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
