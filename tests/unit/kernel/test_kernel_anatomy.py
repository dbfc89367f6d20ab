"""Figures from the config agree with the model that is built from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pico import TEXT_PRESETS, pico, pico_config, tokens
from torch.utils.flop_counter import FlopCounterMode

from nacre.kernel.anatomy import anatomy
from nacre.kernel.cache import Cache
from nacre.kernel.model import Kernel
from nacre.kernel.presets import PRESETS, preset

CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in PRESETS] + [
    ("bert", {"head": "pretraining"}),
    ("bert", {"head": "classify", "labels": ("a", "b", "c")}),
    ("bert", {"head": "tag", "labels": ("a", "b", "c")}),
    ("bert", {"head": "classify", "labels": ("a", "b", "c"), "pooling": "mean"}),
    ("bert", {"tied": False}),
    ("ernie", {"head": "none", "pooler": True}),
    ("gpt2", {"tied": False}),
    ("llama2", {"head": "classify", "labels": ("a", "b")}),
    ("llama2", {"head": "classify", "labels": ("a", "b"), "pooling": "mean"}),
    ("llama3", {"ffn_bias": True, "qkv_bias": True}),
    ("t5", {"decoder_layers": 3}),
    ("vit", {"head": "classify", "labels": ("a", "b")}),
]


@pytest.mark.parametrize(("name", "choices"), CASES)
def test_parameters_add_up_to_the_model(name: str, choices: dict[str, Any]) -> None:
    config = pico_config(name, **choices)
    with torch.device("meta"):
        kernel = Kernel(config)
    figures = anatomy(config)
    assert figures.total_parameters == sum(p.numel() for p in kernel.parameters())
    embedded = sum(p.numel() for n, p in kernel.named_parameters() if n.startswith("embed.") and "norm" not in n)
    assert figures.parameters["embedding"] == embedded
    fed = sum(p.numel() for n, p in kernel.named_parameters() if ".ffn." in n)
    assert figures.parameters["feed_forward"] == fed
    assert figures.memory_bytes["bf16"] == 2 * figures.total_parameters


def test_public_sizes_are_what_their_papers_say() -> None:
    def millions(name: str) -> int:
        return round(anatomy(preset(name)).total_parameters / 1e6)

    assert millions("gpt2") == 124
    assert millions("llama2") == 6738
    assert millions("llama3") == 8030
    assert millions("mistral") == 7242
    assert millions("qwen2") == 7616
    assert millions("t5") == 61
    assert millions("vit") == 86


@pytest.mark.parametrize("name", TEXT_PRESETS)
@torch.no_grad()
def test_flops_agree_with_those_counted(name: str) -> None:
    kernel = pico(name)
    ids = tokens(1, 32)
    given = {"decoder_ids": ids} if name.startswith("t5") else {}
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        kernel.lm_logits(kernel(ids, **given).hidden)
    figures = anatomy(kernel.config, context=32)
    # The counter sees masked scores as work, the figures do not: they can only be lower, and by no more than those.
    masked = sum(kernel.config.stack_layers.values()) * 4 * 32 * 32
    assert 0 <= counter.get_total_flops() / 32 - sum(figures.flops_per_token.values()) <= masked


@torch.no_grad()
def test_cache_bytes_agree_with_a_cache() -> None:
    kernel = pico("llama3")
    cache = Cache(kernel.config)
    kernel(tokens(1, 20), cache=cache)
    assert cache.nbytes == 20 * anatomy(kernel.config).kv_cache_bytes_per_token["fp32"]
    assert anatomy(pico_config("bert")).kv_cache_bytes_per_token["bf16"] == 0
    assert anatomy(preset("llama3")).kv_cache_bytes_per_token["bf16"] == 131072


def test_figures_are_plain_values() -> None:
    assert json.loads(json.dumps(anatomy(preset("mistral")).to_dict()))["sliding_window"] == 4096
