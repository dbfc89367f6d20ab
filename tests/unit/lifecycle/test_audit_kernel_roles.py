"""Stage 1 on tiny random models of `transformers`: every family's roles, sizes and packed rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel import canonicalise
from nacre.lifecycle.audit.kernel.nearest import nearest
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tensors import Floats, TensorInfo

_MHA = {"hidden_size": 32, "intermediate_size": 88, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 101, "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
_GQA = _MHA | {"num_key_value_heads": 2}
_WIDE = _GQA | {"head_dim": 16}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 101, "n_positions": 40, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
_MOE = {"n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 20, "first_k_dense_replace": 1,
        "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}  # fmt: skip
_LATENT = _MHA | _MOE | {"num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
                         "v_head_dim": 8}  # fmt: skip
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 88, "num_layers": 2, "num_heads": 4, "vocab_size": 101}
_BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 101,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 88, "decoder_ffn_dim": 88,
         "max_position_embeddings": 40}  # fmt: skip

# Family of the table -> (config class, model class, fields).
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", "LlamaForCausalLM", _GQA),
    "Llama, packed as Phi-3": ("Phi3Config", "Phi3ForCausalLM", _GQA),
    "Qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _GQA),
    "Qwen2, packed as GLM": ("GlmConfig", "GlmForCausalLM", _GQA | {"head_dim": 8}),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _WIDE),
    "Gemma": ("GemmaConfig", "GemmaForCausalLM", _WIDE | {"hidden_act": "gelu_pytorch_tanh"}),
    "Gemma 2": ("Gemma2Config", "Gemma2ForCausalLM", _WIDE),
    "Gemma 3": ("Gemma3TextConfig", "Gemma3ForCausalLM", _WIDE),
    "OLMo 2": ("Olmo2Config", "Olmo2ForCausalLM", _GQA),
    "StableLM": ("StableLmConfig", "StableLmForCausalLM", _GQA),
    "Cohere": ("CohereConfig", "CohereForCausalLM", _GQA),
    "Mixtral": ("MixtralConfig", "MixtralForCausalLM", _GQA | {"num_local_experts": 3}),
    "Mixtral, as Granite": ("GraniteMoeConfig", "GraniteMoeForCausalLM", _GQA | {"num_local_experts": 4}),
    "Qwen2-MoE": ("Qwen2MoeConfig", "Qwen2MoeForCausalLM", _GQA | {"num_experts": 4, "moe_intermediate_size": 20,
                                                                   "shared_expert_intermediate_size": 24}),
    "GLM-4-MoE": ("Glm4MoeConfig", "Glm4MoeForCausalLM", _GQA | _MOE | {"head_dim": 8, "use_qk_norm": True,
                                                                        "attention_bias": True}),
    "DeepSeek-V2-Lite": ("DeepseekV2Config", "DeepseekV2ForCausalLM", _LATENT | {"q_lora_rank": None}),
    "DeepSeek-V3": ("DeepseekV3Config", "DeepseekV3ForCausalLM", _LATENT | {"q_lora_rank": 12}),
    "GPT-2": ("GPT2Config", "GPT2LMHeadModel", _GPT),
    "GPT-2, as BigCode": ("GPTBigCodeConfig", "GPTBigCodeForCausalLM", _GPT),
    "GPT-NeoX": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _MHA),
    "Bloom": ("BloomConfig", "BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 101}),
    "Falcon": ("FalconConfig", "FalconForCausalLM", _MHA | {"num_kv_heads": 2, "new_decoder_architecture": True}),
    "Falcon-7B": ("FalconConfig", "FalconForCausalLM", _MHA | {"multi_query": True}),
    "MPT": ("MptConfig", "MptForCausalLM", {"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 101}),
    "Phi": ("PhiConfig", "PhiForCausalLM", _GQA),
    "GPT-J, as CodeGen": ("CodeGenConfig", "CodeGenForCausalLM", _GPT | {"rotary_dim": 4}),
    "BERT": ("BertConfig", "BertForMaskedLM", _MHA),
    "BERT, as RoBERTa": ("RobertaConfig", "RobertaForMaskedLM", _MHA),
    "DistilBERT": ("DistilBertConfig", "DistilBertForMaskedLM", {"dim": 32, "n_layers": 2, "n_heads": 4,
                                                                 "hidden_dim": 88, "vocab_size": 101}),
    "T5": ("T5Config", "T5ForConditionalGeneration", _T5),
    "T5 v1.1": ("T5Config", "T5ForConditionalGeneration", _T5 | {"feed_forward_proj": "gated-gelu"}),
    "BART": ("BartConfig", "BartForConditionalGeneration", _BART),
    "Mamba": ("MambaConfig", "MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 101}),
}  # fmt: skip
_PACKED = ("GPT-NeoX", "Bloom", "Falcon", "Falcon-7B", "GPT-2", "GPT-2, as BigCode", "MPT", "GPT-J, as CodeGen",
           "Llama, packed as Phi-3", "Qwen2, packed as GLM", "Llama", "BERT")  # fmt: skip


class _Memory:
    """Tensors of a module as the audit reads files."""

    def __init__(self, arrays: Mapping[str, torch.Tensor]) -> None:
        self.arrays = arrays
        self.infos = {
            name: TensorInfo(name, "F32", tuple(one.shape), 4 * one.numel(), "") for name, one in arrays.items()
        }

    def read(self, name: str, rows: slice | None = None) -> Floats:
        values = self.arrays[name].detach().numpy()
        return values if rows is None else values[rows]

    def blocks(self, name: str) -> Iterator[memoryview]:
        yield memoryview(self.read(name).tobytes())


def _config(name: str) -> Any:
    config_class, _, fields = FAMILIES[name]
    return getattr(hf, config_class)(**fields)


def _subject(config: Any, arrays: Mapping[str, torch.Tensor]) -> Subject:
    source = _Memory(arrays)
    return Subject("tiny", Path("."), json.loads(config.to_json_string()), source.infos, source)


def _canonical(name: str) -> Canonical:
    config = _config(name)
    with torch.device("meta"):
        model = getattr(hf, FAMILIES[name][1])(config)
    return canonicalise(_subject(config, model.state_dict()))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_told_with_its_sizes(name: str) -> None:
    found = _canonical(name)
    near = nearest(found.graph, {})
    assert near.distance == 0, near.changes
    assert name.partition(",")[0] in (found.family, near.family, *near.also)
    assert (found.basis, found.sizes.layers, found.sizes.hidden, found.sizes.vocabulary) == ("shapes", 2, 32, 101)
    if name != "Mamba":
        assert found.sizes.heads == 4
        assert (0, "down") in found.views or any(role.startswith("down.") for _, role in found.views)
    for (layer, role), view in found.views.items():
        if role in ("q", "k", "v", "gate", "up"):
            assert view.shape[1] == 32, (layer, role, view)
        if role in ("o", "down"):
            assert view.shape[0] == 32, (layer, role, view)


@pytest.mark.parametrize("name", _PACKED)
def test_rows_of_packed_tensors_are_the_roles_they_are_called(name: str) -> None:
    """Law: a model whose queries are zero computes what one whose keys are zero does (uniform attention), and without
    values neither matters. A wrong row order breaks both."""
    torch.manual_seed(0)
    config = _config(name)
    model = getattr(hf, FAMILIES[name][1])(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    found = canonicalise(_subject(config, model.state_dict()))
    start = {key: value.clone() for key, value in model.state_dict().items()}
    ids = torch.tensor([[5, 9, 71, 33, 8, 2]])

    def logits(*roles: str) -> torch.Tensor:
        arrays = {key: value.clone() for key, value in start.items()}
        for (_, role), view in found.views.items():
            if role.removesuffix(".bias") in roles:
                _zero(arrays[view.name], view)
        model.load_state_dict(arrays)
        with torch.no_grad():
            out: torch.Tensor = model(input_ids=ids).logits
        return out

    plain, no_q, no_k, no_v = logits(), logits("q"), logits("k"), logits("v")
    assert not torch.allclose(plain, no_q, atol=1e-3)
    assert torch.allclose(no_q, no_k, atol=1e-4)
    assert not torch.allclose(plain, no_v, atol=1e-3)
    assert not torch.allclose(no_q, no_v, atol=1e-3)
    assert torch.allclose(no_v, logits("v", "q", "k"), atol=1e-4)


def _zero(tensor: torch.Tensor, view: Any) -> None:
    rows = tensor.T if view.transposed else tensor
    picked = np.arange(rows.shape[0])[view.start : view.stop]
    picked = picked[np.arange(len(picked)) % view.step < view.block]
    rows[torch.from_numpy(picked)] = 0


@pytest.mark.parametrize("name", ["Llama, packed as Phi-3", "Qwen2, packed as GLM"])
def test_gate_and_up_of_one_tensor_are_its_halves_in_order(name: str) -> None:
    """The gate is what the activation is applied to: with an input of ones and gate -inf-like, nothing passes."""
    torch.manual_seed(0)
    config = _config(name)
    model = getattr(hf, FAMILIES[name][1])(config).eval()
    found = canonicalise(_subject(config, model.state_dict()))
    source = _Memory(model.state_dict())
    mlp = model.model.layers[0].mlp
    x = torch.randn(3, 32)
    gate, up, down = (torch.from_numpy(found.views[(0, role)].read(source)) for role in ("gate", "up", "down"))
    expected = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
    assert torch.allclose(mlp(x), expected, atol=1e-5)


def test_experts_of_one_tensor_are_read_one_by_one() -> None:
    torch.manual_seed(0)
    config = _config("Mixtral")
    model = hf.MixtralForCausalLM(config).eval()
    arrays = model.state_dict()
    found = canonicalise(_subject(config, arrays))
    source, stacked = _Memory(arrays), "model.layers.0.mlp.experts.gate_up_proj"
    assert stacked in arrays
    gate, up = (found.views[(0, f"{role}.2")].read(source) for role in ("gate", "up"))
    assert np.array_equal(np.concatenate([gate, up]), arrays[stacked][2].numpy())
    assert found.sizes.experts == 3


def test_wqkv_of_internlm2_is_split_by_key_head() -> None:
    """Its rows are, for each key head, its query heads, the key, the value (InternLM2 technical report, section 2)."""
    heads, groups, size, hidden = 6, 2, 4, 24
    rows = np.arange((heads + 2 * groups) * size * hidden, dtype=np.float32).reshape(-1, hidden)
    blocks = rows.reshape(groups, heads // groups + 2, size, hidden)
    arrays = {"model.tok_embeddings.weight": torch.zeros(50, hidden), "model.norm.weight": torch.ones(hidden),
              "output.weight": torch.zeros(50, hidden)}  # fmt: skip
    inside = {"attention.wqkv": torch.from_numpy(rows), "attention.wo": torch.zeros(hidden, heads * size),
              "feed_forward.w1": torch.zeros(40, hidden), "feed_forward.w3": torch.zeros(40, hidden),
              "feed_forward.w2": torch.zeros(hidden, 40), "attention_norm": torch.ones(hidden),
              "ffn_norm": torch.ones(hidden)}  # fmt: skip
    arrays |= {f"model.layers.0.{name}.weight": values for name, values in inside.items()}
    source = _Memory(arrays)
    config = {"num_attention_heads": heads, "num_key_value_heads": groups, "hidden_size": hidden}
    found = canonicalise(Subject("internlm2", Path("."), config, source.infos, source))
    assert found.family == "Llama"
    read = {role: found.views[(0, role)].read(source) for role in ("q", "k", "v")}
    assert np.array_equal(read["q"], blocks[:, : heads // groups].reshape(-1, hidden))
    assert np.array_equal(read["k"], blocks[:, -2].reshape(-1, hidden))
    assert np.array_equal(read["v"], blocks[:, -1].reshape(-1, hidden))


def test_w1_is_the_gate_of_mixtral_and_the_up_projection_of_qwen_1() -> None:
    shapes = {"ln_1": (8,), "ln_2": (8,), "attn.c_attn": (24, 8), "attn.c_proj": (8, 8), "mlp.w1": (20, 8),
              "mlp.w2": (20, 8), "mlp.c_proj": (8, 20)}  # fmt: skip
    infos = {f"transformer.h.{layer}.{name}.weight": shape for layer in range(2) for name, shape in shapes.items()}
    infos |= {"transformer.wte.weight": (50, 8), "transformer.ln_f.weight": (8,), "lm_head.weight": (50, 8)}
    given = {name: TensorInfo(name, "BF16", shape, 0, "") for name, shape in infos.items()}
    names = canonicalise(Subject("qwen", Path("."), {"num_attention_heads": 2}, given)).names
    assert names["transformer.h.1.mlp.w1.weight"] == "layers.1.up"
    assert names["transformer.h.1.mlp.w2.weight"] == "layers.1.gate"
    assert names["transformer.h.1.attn.c_attn.weight"] == "layers.1.q+k+v"
