"""Folders of engines of every kind, tiny and random: what `EngineRoom.open` takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizer_texts import TEXTS

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SMALL: dict[str, Any] = {"hidden_size": 32, "heads": 4, "layers": 2}


def _tokenizer(folder: Path, style: Any, **settings: Any) -> Tokenizer:
    algorithm: Any = {"bert": "wordpiece", "t5": "unigram"}.get(style, "bpe")
    config = TokenizerConfig(algorithm, 600, style, min_frequency=1, sentinels=0)
    tokenizer = train(TEXTS * 3, config, folder)
    if settings:
        tokenizer.settings |= settings
        tokenizer.save(folder)
    return tokenizer


def _shaken(kernel: Kernel, seed: int) -> Kernel:
    """Weights large enough for texts to differ."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return kernel.eval()


def echo_folder(folder: Path, **settings: Any) -> Path:
    """An echo with these settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "engine.json").write_text(json.dumps({"engine": "echo", **settings}), encoding="utf-8")
    return folder


def native_folder(folder: Path, kind: str, *, template: str | None = TEMPLATE, seed: int = 0) -> Path:
    """A kernel of `kind` encoder, decoder or encoder-decoder; a decoder has a chat template unless it is None."""
    names = {"encoder": ("bert", "bert"), "decoder": ("llama2", "llama"), "encoder-decoder": ("t5", "t5")}
    family, style = names[kind]
    settings = {"chat_template": template} if kind == "decoder" and template else {}
    tokenizer = _tokenizer(folder, style, **settings)
    choices: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_id": tokenizer.pad_id, "eos_id": tokenizer.eos_id}
    if kind == "decoder":
        choices |= {"bos_id": tokenizer.bos_id}
    if kind == "encoder-decoder":
        choices |= {"decoder_start_id": tokenizer.pad_id}
    else:
        choices |= {"max_positions": 96}
    head = {} if kind == "encoder" else {"head": "lm"}
    torch.manual_seed(seed)
    hf.save(_shaken(Kernel(preset(family, **_SMALL | choices | head)), seed), folder)
    return folder


def foreign_folder(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A model of `transformers` that our kernel cannot express: DistilBERT, GPT-NeoX or BART."""
    import transformers as theirs

    torch.manual_seed(seed)
    tokenizer = _tokenizer(folder, {"encoder": "bert"}.get(kind, "roberta"))
    ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    model: Any
    if kind == "encoder":
        model = theirs.DistilBertModel(
            theirs.DistilBertConfig(
                vocab_size=len(tokenizer), dim=32, n_heads=4, n_layers=2, hidden_dim=48, max_position_embeddings=96
            )
        )
    elif kind == "decoder":
        model = theirs.GPTNeoXForCausalLM(
            theirs.GPTNeoXConfig(
                vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=4, num_hidden_layers=2,
                intermediate_size=48, max_position_embeddings=96, **ids,
            )
        )  # fmt: skip
    else:
        model = theirs.BartForConditionalGeneration(
            theirs.BartConfig(
                vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=96,
                decoder_start_token_id=tokenizer.eos_id, forced_eos_token_id=None, **ids,
            )
        )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return folder
