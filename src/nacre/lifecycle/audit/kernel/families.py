"""Public designs by the field's words: the roles their layers hold. Data.

Families whose tensors cannot be told apart share a design; the first of the table names it, unless what only a config
declares (`declared`) fits another better. `model_types` are what configs call it: used where a config is all there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nacre.lifecycle.audit.kernel.graph import Design


@dataclass(frozen=True)
class Family:
    """One public design. `declared` maps function fields to patterns; `layout` is what its stack is used as."""

    name: str
    outside: str
    layers: tuple[str, ...]
    model_types: tuple[str, ...] = ()
    declared: dict[str, str] = field(default_factory=dict)
    layout: str = "decoder"
    encoder: tuple[str, ...] = ()
    encoder_outside: str = ""

    def design(self) -> Design:
        """Its roles as a design."""
        encoder = None
        if self.encoder:
            encoder = Design(frozenset(self.encoder_outside.split()), _kinds(self.encoder))
        return Design(frozenset(self.outside.split()), _kinds(self.layers), encoder)


def _kinds(layers: tuple[str, ...]) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(layer.split()) for layer in layers)


def _biased(*roles: str) -> str:
    return " ".join(f"{role} {role}.bias" for role in roles)


_QKVO, _QKV_BIASED = "q k v o", _biased("q", "k", "v") + " o"
_ALL_BIASED = _biased("q", "k", "v", "o")
_NORMS, _LAYER_NORMS = "norm1 norm2", _biased("norm1", "norm2")
_GATED, _PLAIN, _PLAIN_BIASED = "gate up down", "up down", _biased("up", "down")
_EXPERTS = "router experts.gate experts.up experts.down"
_SHARED = f"{_EXPERTS} shared.gate shared.up shared.down"
_MLA = "kv_a kv_a_norm kv_b o"
_OUT, _OUT_BIASED = "embedding final_norm", "embedding final_norm final_norm.bias"
_GPT = f"{_LAYER_NORMS} {_ALL_BIASED} {_PLAIN_BIASED}"
_POST = "post_attention post_ffn"
_PARALLEL = f"norm1 norm1.bias {_QKVO} {_PLAIN_BIASED}"
_CROSS = "cross.norm cross.q cross.k cross.v cross.o"
_CROSS_BIASED = _biased("cross.norm", "cross.q", "cross.k", "cross.v", "cross.o")
_DELTA = (
    "norm1 norm2 linear.in_proj_qkvz linear.in_proj_ba linear.conv1d linear.dt_bias linear.a_log linear.norm "
    "linear.out_proj"
)

FAMILIES: tuple[Family, ...] = (
    Family("Llama", _OUT, (f"{_NORMS} {_QKVO} {_GATED}",),
           ("llama", "mistral", "yi", "baichuan", "internlm2", "minicpm", "minimind", "smollm3", "granite", "xverse",
            "internlm3", "ernie4_5", "cogvlm", "internvl_chat", "aquila", "skywork")),
    Family("Gemma", _OUT, (f"{_NORMS} {_QKVO} {_GATED}",), ("gemma",), {"activation": "gelu.*"}),
    Family("Qwen2", _OUT, (f"{_NORMS} {_QKV_BIASED} {_GATED}",),
           ("qwen2", "qwen", "qwen2_vl", "qwen2_5_vl", "qwen2_audio")),
    Family("ChatGLM2", _OUT, (f"{_NORMS} {_QKV_BIASED} {_GATED}",), ("chatglm2", "glm"), {"rotary_share": "0.5"}),
    Family("Qwen3", _OUT, (f"{_NORMS} {_QKVO} q_norm k_norm {_GATED}",), ("qwen3",)),
    Family("InternLM", _OUT, (f"{_NORMS} {_ALL_BIASED} {_GATED}",), ("internlm",)),
    Family("Gemma 2", _OUT, (f"{_NORMS} {_POST} {_QKVO} {_GATED}",), ("gemma2",)),
    Family("Gemma 3", _OUT, (f"{_NORMS} {_POST} {_QKVO} q_norm k_norm {_GATED}",), ("gemma3", "gemma3_text")),
    Family("OLMo 2", _OUT, (f"{_POST} {_QKVO} q_norm k_norm {_GATED}",), ("olmo2",)),
    Family("StableLM", _OUT_BIASED, (f"{_LAYER_NORMS} {_QKVO} {_GATED}",), ("stablelm", "stablelm_epoch")),
    Family("Cohere", _OUT, (f"norm1 {_QKVO} {_GATED}",), ("cohere",)),
    Family("Mixtral", _OUT, (f"{_NORMS} {_QKVO} {_EXPERTS}",), ("mixtral", "granitemoe", "olmoe")),
    Family("PhiMoE", _OUT_BIASED, (f"{_LAYER_NORMS} {_ALL_BIASED} {_EXPERTS}",), ("phimoe",)),
    Family("Qwen2-MoE", _OUT, (f"{_NORMS} {_QKV_BIASED} {_SHARED} shared.router",), ("qwen2_moe",)),
    Family("Qwen3-MoE", _OUT, (f"{_NORMS} {_QKVO} q_norm k_norm {_EXPERTS}",), ("qwen3_moe",)),
    Family("DeepSeekMoE", _OUT, (f"{_NORMS} {_QKVO} {_GATED}", f"{_NORMS} {_QKVO} {_SHARED}"), ("deepseek",)),
    Family("DeepSeek-V2-Lite", _OUT, (f"{_NORMS} q {_MLA} {_GATED}", f"{_NORMS} q {_MLA} {_SHARED}")),
    Family("DeepSeek-V2", _OUT, (f"{_NORMS} q_a q_a_norm q_b {_MLA} {_GATED}",
                                 f"{_NORMS} q_a q_a_norm q_b {_MLA} {_SHARED}"), ("deepseek_v2",)),
    Family("DeepSeek-V3", _OUT, (f"{_NORMS} q_a q_a_norm q_b {_MLA} {_GATED}",
                                 f"{_NORMS} q_a q_a_norm q_b {_MLA} {_SHARED} router.correction.bias"),
           ("deepseek_v3",)),
    Family("GLM-4-MoE", _OUT, (f"{_NORMS} {_QKV_BIASED} q_norm k_norm {_GATED}",
                               f"{_NORMS} {_QKV_BIASED} q_norm k_norm {_SHARED} router.correction.bias"),
           ("glm4_moe",)),
    Family("MiniCPM3", _OUT, (f"{_NORMS} q_a q_a_norm q_b {_MLA} {_GATED}",), ("minicpm3",)),
    Family("LFM2", "embedding embedding_norm", (f"{_NORMS} conv.in_proj conv.conv conv.out_proj {_GATED}",
                                                f"{_NORMS} {_QKVO} q_norm k_norm {_GATED}"), ("lfm2",)),
    Family("Qwen3-Next", _OUT, (f"{_DELTA} {_SHARED} shared.router",
                                f"{_NORMS} {_QKVO} q_norm k_norm {_SHARED} shared.router"),
           ("qwen3_next", "qwen3_5_moe_text", "qwen3_5_moe")),
    Family("Llama 3.2 Vision", _OUT, (f"{_NORMS} {_QKVO} {_GATED}", f"{_NORMS} {_QKVO} q_norm k_norm {_GATED}"
                                      " cross.gate"), ("mllama",)),
    Family("GPT-2", f"{_OUT_BIASED} positions", (_GPT,), ("gpt2", "opt", "gpt_bigcode", "rugpt3xl")),
    Family("GPT-NeoX", _OUT_BIASED, (_GPT,), ("gpt_neox", "gpt_neox_reward_model", "starcoder2")),
    Family("ChatGLM", _OUT_BIASED, (_GPT,), ("chatglm",), {"position_kind": "2d"}),
    Family("Bloom", f"{_OUT_BIASED} embedding_norm embedding_norm.bias", (_GPT,), ("bloom",)),
    Family("Falcon", _OUT_BIASED, (f"{_LAYER_NORMS} {_QKVO} {_PLAIN}",), ("falcon", "refinedweb")),
    Family("Falcon-7B", _OUT_BIASED, (f"norm1 norm1.bias {_QKVO} {_PLAIN}",), ("refinedwebmodel",)),
    Family("MPT", _OUT, (f"{_NORMS} {_QKVO} {_PLAIN}",), ("mpt",)),
    Family("Phi", _OUT_BIASED, (f"norm1 norm1.bias {_ALL_BIASED} {_PLAIN_BIASED}",),
           ("phi", "phi-msft", "mixformer-sequential")),
    Family("GPT-J", _OUT_BIASED, (f"norm1 norm1.bias {_QKVO} {_PLAIN_BIASED}",), ("gptj", "codegen")),
    Family("BERT", "embedding positions token_types embedding_norm embedding_norm.bias", (_GPT,),
           ("bert", "roberta", "xlm-roberta", "electra", "ernie", "camembert"), layout="encoder"),
    Family("DistilBERT", "embedding positions embedding_norm embedding_norm.bias", (_GPT,), ("distilbert",),
           layout="encoder"),
    Family("T5", "embedding final_norm relative_bias", (f"{_NORMS} {_QKVO} {_CROSS} {_PLAIN}",), ("t5",),
           layout="encoder-decoder", encoder=(f"{_NORMS} {_QKVO} {_PLAIN}",),
           encoder_outside="final_norm relative_bias"),
    Family("T5 v1.1", "embedding final_norm relative_bias", (f"{_NORMS} {_QKVO} {_CROSS} {_GATED}",),
           ("mt5", "umt5"), layout="encoder-decoder", encoder=(f"{_NORMS} {_QKVO} {_GATED}",),
           encoder_outside="final_norm relative_bias"),
    Family("M2M-100", f"{_OUT_BIASED}", (f"{_GPT} {_CROSS_BIASED}",), ("m2m_100",), layout="encoder-decoder",
           encoder=(_GPT,), encoder_outside="final_norm final_norm.bias"),
    Family("BART", "embedding positions embedding_norm embedding_norm.bias", (f"{_GPT} {_CROSS_BIASED}",),
           ("bart", "mbart"), layout="encoder-decoder", encoder=(_GPT,),
           encoder_outside="positions embedding_norm embedding_norm.bias"),
    Family("GLM-4", _OUT, (f"{_NORMS} {_POST} {_QKV_BIASED} {_GATED}",), ("glm4",)),
    Family("gpt-oss", _OUT, (f"{_NORMS} {_ALL_BIASED} sinks {_biased('router')} "
                             f"{_biased('experts.gate', 'experts.up', 'experts.down')}",), ("gpt_oss",)),
    Family("CodeT5+", _OUT_BIASED, (_PARALLEL, f"{_PARALLEL} cross.q cross.k cross.v cross.o"), ("codet5p",),
           layout="encoder-decoder", encoder=(_PARALLEL,),
           encoder_outside="final_norm final_norm.bias"),
    Family("ViT", "positions final_norm final_norm.bias", (_GPT,), ("vit",), layout="encoder"),
    Family("RWKV", _OUT_BIASED,
           (f"{_LAYER_NORMS} rwkv.key rwkv.value rwkv.receptance rwkv.output rwkv.time_decay rwkv.time_first "
            "rwkv.time_mix_key rwkv.time_mix_value rwkv.time_mix_receptance rwkv.ffn_key rwkv.ffn_value "
            "rwkv.ffn_receptance rwkv.ffn_time_mix_key rwkv.ffn_time_mix_receptance",), ("rwkv",), layout="other"),
    Family("Mamba", _OUT, ("norm1 mamba.in_proj mamba.conv1d mamba.conv1d.bias mamba.x_proj mamba.dt_proj "
                           "mamba.dt_proj.bias mamba.a_log mamba.d mamba.out_proj",), ("mamba",), layout="other"),
)  # fmt: skip
