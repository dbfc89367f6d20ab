"""What the field calls its tensors: patterns over module paths, first match wins. Data, no logic.

A pattern is matched against the whole path of a tensor inside its layer (or outside the stack), in lower case but for
`Wqkv`, without its last word `weight` or `bias`. `*` in a role is filled by a later rule of `roles.py`.
"""

from __future__ import annotations

# Buffers and relics: they hold no parameter. Matched against the whole name.
INERT = (
    r"(.*\.)?rotary_(pos_)?emb(edding)?\.(inv_freq|cos_cached|sin_cached|freqs)",
    r"(.*\.)?inv_freq",
    r"(.*\.)?rope_freqs(\.weight)?",
    r"(.*\.)?position_ids",
    r"(.*\.)?token_type_ids",
    r"(.*\.)?masked_bias",
    r"(.*\.)?causal_mask",
    r"(.*\.)?attn_mask",
    r"(.*\.)?(attn|attention|self_attention|self_attn)\.bias",
    r"(.*\.)?num_batches_tracked",
    r"(.*\.)?(weight_scale_inv|weight_scale|input_scale|g_idx|qzeros|scales|absmax|quant_map|nested_absmax)",
    r"(.*\.)?quant_state\..*",
)

# Ends of a name -> the part it is. What is left is the module's path.
ENDINGS = (
    (r"(.*)[._](?:weight|kernel|gamma|qweight)", "weight"),
    (r"(.*)[._](?:bias|beta)", "bias"),
)
QUANTISED_END = "qweight"

_ATTENTION = (
    r"(?:.*\.)?(?:self_attn|self_attention|selfattention|attention|attn|attn1|mixer|crossattention|encoder_attn|"
    r"encdecattention|cross_attn|cross_attention|multi_head_attention|mha|temporal_block|inter_attention)\."
)
_CROSS = r"(?:.*\.)?(?:crossattention|encoder_attn|encdecattention|cross_attn|cross_attention|inter_attention)\."
_FFN = (
    r"(?:.*\.)?(?:mlp|ffn|feed_forward|block_sparse_moe|moe|densereludense|experts?|shared_experts?|shared_mlp|ff|net)"
    r"\."
)

CROSS = _CROSS + ".*"
SHARED = r".*shared_(?:experts?|mlp)\..*"

# Families without attention, told by a word that only they have: their tensors keep their own words.
OTHERS: tuple[tuple[str, str, str], ...] = (
    (r".*\.(?:a_log|dt_proj|ssm_a|ssm_dt)", r"(?:.*\.)?(?:mamba|mixer|ssm)\.([\w.]+)|(ssm_\w+)", "mamba."),
    (r".*receptance.*", r"(?:.*\.)?(?:att|attention)\.([\w.]+)", "rwkv."),
    (r".*receptance.*", r"(?:.*\.)?(?:ffn|feed_forward)\.([\w.]+)", "rwkv.ffn_"),
)

# Inside a layer: (pattern, role).
LAYER: tuple[tuple[str, str], ...] = (
    (r"(?:.*\.)?linear_attn\.(\w+)", r"linear.\1"),
    (r"(?:.*\.)?conv\.(in_proj|out_proj|conv)", r"conv.\1"),
    # latent attention (DeepSeek-V2, section 2.1)
    (_ATTENTION + r"(q_a|q_b|kv_b)_proj", r"\1"),
    (_ATTENTION + r"kv_a_proj_with_mqa", "kv_a"),
    (_ATTENTION + r"(q_a|kv_a)_layernorm", r"\1_norm"),
    (r"attn_(q_a|q_b|kv_b|kv_a_mqa)(_norm)?", r"\1\2"),
    # norms of queries and keys
    (_ATTENTION + r"(?:q_norm|q_layernorm|q_ln|query_norm|query_layernorm|norm_q)", "q_norm"),
    (_ATTENTION + r"(?:k_norm|k_layernorm|k_ln|key_norm|key_layernorm|norm_k)", "k_norm"),
    (r"attn_(q|k)_norm", r"\1_norm"),
    # BERT, RoBERTa, ViT: the output's norm before the output's matrix
    (r"(?:.*\.)?attention\.output\.layernorm", "norm1"),
    (r"output\.layernorm", "norm2"),
    (r"(?:.*\.)?attention\.output\.dense", "o"),
    (r"(?:.*\.)?intermediate\.dense(?:_act)?", "up"),
    (r"output\.dense", "down"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    # packed
    (_ATTENTION + r"(?:query_key_value|qkv_proj|qkv|wqkv|Wqkv|w_pack|W_pack|c_attn|in_proj|qkv_attn)", "qkv"),
    (r"attn_qkv", "qkv"),
    (_ATTENTION + r"(?:kv_proj|kv|Wkv|key_value)", "kv"),
    # attention
    (_ATTENTION + r"(?:self\.|attention\.)?(?:q_proj|wq|query|q|to_q|q_lin|q_attn|query_proj|linear_q)", "q"),
    (_ATTENTION + r"(?:self\.|attention\.)?(?:k_proj|wk|key|k|to_k|k_lin|key_proj|linear_k)", "k"),
    (_ATTENTION + r"(?:self\.|attention\.)?(?:v_proj|wv|value|v|to_v|v_lin|value_proj|linear_v)", "v"),
    (_ATTENTION + r"(?:o_proj|out_proj|wo|c_proj|dense|proj|o|to_out\.0|out_lin|linear_out|output_proj)", "o"),
    (r"attn_(q|k|v)", r"\1"),
    (r"attn_output", "o"),
    (_ATTENTION + r"relative_attention_bias", "relative_bias"),
    (_ATTENTION + r"sinks", "sinks"),
    # routers
    (r"(?:.*\.)?(?:mlp|block_sparse_moe|feed_forward|moe|ffn)\.shared_expert_gate", "shared.router"),
    (r"(?:.*\.)?(?:mlp|block_sparse_moe|feed_forward|moe|ffn)\.gate\.e_score_correction", "router.correction"),
    (r"(?:.*\.)?(?:mlp|block_sparse_moe|feed_forward|moe|ffn)\.(?:gate|router|router\.layer|router\.proj)", "router"),
    (r"router(?:\.proj|\.layer)?|ffn_gate_inp", "router"),
    # feed-forward
    (_FFN + r"(?:gate_up_proj|gate_up|gate_and_up_proj|input_linear|gate_up_projs)", "gate_up"),
    (_FFN + r"(?:gate_proj|gate|wi_0|w_gate|gate_projs|linear_gate)", "gate"),
    (_FFN + r"(?:up_proj|wi_1|w_up|linear_up)", "up"),
    (_FFN + r"(?:c_fc|fc1|fc_in|dense_h_to_4h|wi|lin1|linear_1|0|0\.proj|fc)", "up"),
    (_FFN + r"(?:down_proj|wo|c_proj|fc2|fc_out|dense_4h_to_h|lin2|linear_2|output_linear|2|3|w_down|proj)", "down"),
    (_FFN + r"w([123])", r"w\1"),
    (r"fc1", "up"),
    (r"fc2", "down"),
    (r"ffn_gate(?:_exps)?", "gate"),
    (r"ffn_up(?:_exps)?", "up"),
    (r"ffn_down(?:_exps)?", "down"),
    (r"ffn_(gate|up|down)_shexp", r"shared.\1"),
    # norms of the layer
    (r"(?:pre_feedforward_layernorm|pre_ffn_norm|pre_mlp_layernorm)", "pre_ffn"),
    (r"(?:post_feedforward_layernorm|post_ffn_norm|post_mlp_layernorm|ffn_post_norm|post_ffw_norm)", "post_ffn"),
    (r"(?:post_self_attn_layernorm|attn_post_norm|post_attention_norm)", "post_attention"),
    (r"post_attention_layernorm(?:\.\w+)?", "norm2"),
    (r"(?:encoder_attn_layer_norm|ln_cross_attn|cross_attn_layer_norm)", "cross.norm"),
    (r"(?:input_layernorm|ln_1|ln1|ln_attn|attention_norm|attn_norm|operator_norm|norm1|norm_1|layer_norm1|"
     r"self_attn_layer_norm|pre_attention_layernorm|input_norm|sa_layer_norm|ln|ln_before|"
     r"attention_layernorm)", "norm1"),
    (r"(?:ln_2|ln2|ln_mlp|ffn_norm|mlp_norm|norm2|norm_2|layer_norm2|final_layer_norm|output_layer_norm|"
     r"post_attn_norm|ffn_layernorm|ln_after)", "norm2"),
    (r"layer\.\d+\.layer_norm|layer_norm", "norm?"),
    (r"norm", "norm1"),
)  # fmt: skip

# Outside the layers. `norm` alone is the norm after the last layer.
OUTSIDE: tuple[tuple[str, str], ...] = (
    (r".*(?:projector|multi_modal|connector|mm_input|enc_to_dec).*", "projector"),
    (r"(?:.*\.)?(?:word_embeddings_layernorm|embeddings\.(?:layernorm|norm)|layernorm_embedding|token_embd_norm|"
     r"embedding_norm|emb_norm)", "embedding_norm"),
    (r"(?:.*\.)?token_type_embeddings|token_types", "token_types"),
    (r"(?:.*\.)?(?:wpe|embed_positions|position_embeddings?|pos_embed|positional_embedding|position_embd|"
     r"position_embedding)", "positions"),
    (r"(?:.*\.)?(?:embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|shared|token_embd|word_embedding|"
     r"token_embedding|embeddings\.tok_embeddings|embedding|embeddings|tokens_embed|token_embeddings)", "embedding"),
    (r"(?:.*\.)?(?:lm_head|embed_out|output_layer|output|head|cls\.predictions\.decoder|lm_head\.decoder|"
     r"vocab_projector)", "head"),
    (r"(?:.*\.)?cls\.predictions|(?:.*\.)?final_logits", "head"),
    (r"(?:.*\.)?(?:cls\.predictions\.transform\.|lm_head\.|vocab_)(dense|transform)", "mlm.dense"),
    (r"(?:.*\.)?(?:cls\.predictions\.transform\.|lm_head\.|vocab_)(layernorm|layer_norm)", "mlm.norm"),
    (r"(?:.*\.)?pooler(?:\.dense)?", "pooler"),
    (r"(?:.*\.)?(?:score|classifier|v_head(?:\.summary)?|out_proj|value_head|classifier\.(?:dense|out_proj)|qa_outputs|"
     r"cls\.seq_relationship|pre_classifier|cls)", "task_head"),
    (r"(?:.*\.)?(?:ln_f|final_layernorm|final_layer_norm|norm_f|output_norm|ln_out|final_norm|norm|layer_norm|"
     r"layernorm|ln_post|post_layernorm|ln|dec\.output_norm)", "final_norm"),
    (r"(?:.*\.)?linear", "head"),
)  # fmt: skip

# Words of a path that say what a stack reads, where it is not the language model's.
SIDES: tuple[tuple[str, str], ...] = (
    (r"vision|visual|vit|image|sam_model|clip|siglip|patch", "vision"),
    (r"audio|speech|whisper|mel", "audio"),
)

# A size -> what configs call it (GGUF: after the architecture's word).
SIZE_FIELDS: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim", "n_embed", "embedding_length"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers",
               "block_count"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads",
              "encoder_attention_heads", "attention.head_count"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num",
                 "num_multi_query_heads", "attention.head_count_kv"),
    "head_size": ("head_dim", "kv_channels", "d_kv", "attention.key_length"),
    "ffn": ("intermediate_size", "ffn_hidden_size", "n_inner", "d_ff", "inner_hidden_size", "ffn_dim",
            "decoder_ffn_dim", "encoder_ffn_dim", "hidden_dim", "feed_forward_length", "block_ff_dim"),
    "vocabulary": ("padded_vocab_size", "vocab_size"),
    "experts": ("num_local_experts", "n_routed_experts", "num_experts", "expert_count"),
}  # fmt: skip

# What changes the function and leaves no tensor -> what configs call it. Declared, never proven.
FUNCTION_FIELDS: dict[str, tuple[str, ...]] = {
    "activation": ("hidden_act", "hidden_activation", "activation_function", "activation", "feed_forward_proj"),
    "norm_eps": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps",
                 "block_norm_eps", "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"),
    "rope_theta": ("rope_theta", "rotary_emb_base", "rope.freq_base"),
    "rope_scaling": ("rope_scaling", "rope_parameters", "rope_ratio"),
    "rotary_share": ("partial_rotary_factor", "rotary_pct", "rope_pct"),
    "position_kind": ("position_embedding_type", "alibi", "pos_emb", "no_rope_layers"),
    "tied": ("tie_word_embeddings",),
    "sliding_window": ("sliding_window",),
    "parallel_residual": ("use_parallel_residual", "parallel_attn"),
    "softcap": ("attn_logit_softcapping", "final_logit_softcapping"),
    "logit_scale": ("logit_scale", "logits_scaling"),
    "embedding_scale": ("embedding_multiplier", "scale_emb", "scale_embedding"),
    "residual_scale": ("residual_multiplier", "scale_depth"),
    "attention_scale": ("attention_multiplier", "query_pre_attn_scalar"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "topk"),
}  # fmt: skip

# Where a multimodal config keeps its language model's own fields.
NESTED = ("text_config", "llm_config", "language_config", "decoder")
