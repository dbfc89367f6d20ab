"""Configs are checked once, before anything is built, and mistakes name the closest correct word."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pico import pico_config

from nacre.errors import ConfigError
from nacre.kernel.config import KernelConfig, RopeConfig
from nacre.kernel.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_at_its_public_size(name: str) -> None:
    config = preset(name)
    assert KernelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_names_are_refused_with_the_closest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama3'"):
        preset("lama3")
    with pytest.raises(ConfigError, match="did you mean 'hidden_size'"):
        preset("bert", hiden_size=64)
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        preset("bert").replace(layer=2)
    with pytest.raises(ConfigError, match="did you mean 'theta'"):
        KernelConfig.from_dict(preset("llama2").to_dict() | {"rope": {"teta": 1.0}})


def test_dependent_sizes_follow_the_one_that_changed() -> None:
    config = preset("mistral", hidden_size=64, heads=8)
    assert (config.kv_heads, config.head_dim, config.ffn_size) == (2, 8, 192)
    assert preset("t5", hidden_size=64, heads=4).logit_scale == 64**-0.5
    assert preset("vit", image_size=32, patch_size=8).max_positions == 17
    assert preset("gpt2", vocab_size=100).eos_id is None
    assert preset("roberta", pad_id=4).position_offset == 5
    assert preset("bert", hidden_size=64, heads=4, ffn_size=100).ffn_size == 100


@pytest.mark.parametrize(
    ("name", "choices", "word"),
    [
        ("bert", {"hidden_size": 50, "heads": 4}, "multiple of heads"),
        ("llama2", {"heads": 6, "kv_heads": 4, "hidden_size": 48}, "kv_heads"),
        ("llama2", {"head_dim": 7}, "even"),
        ("llama2", {"head": "mlm"}, "heads of it: none, lm, classify, tag"),
        ("bert", {"head": "classify"}, "class names"),
        ("bert", {"head": "tag", "labels": ("a", "a")}, "distinct"),
        ("bert", {"labels": ("a",)}, "empty"),
        ("gpt2", {"head": "classify", "labels": ("a", "b"), "pooling": "cls"}, "sees only itself"),
        ("t5", {"head": "classify", "labels": ("a",)}, "no head"),
        ("roberta", {"head": "pretraining"}, "no head"),
        ("bert", {"dropout": 1.0}, "below 1"),
        ("bert", {"norm": "lyer"}, "did you mean 'layer'"),
        ("bert", {"sliding_window": 4}, "None outside the decoder"),
        ("vit", {"patch_size": 5}, "divisor of image_size"),
        ("vit", {"max_positions": 5}, "patches and class token"),
        ("bert", {"decoder_layers": 2}, "outside encoder-decoder"),
        ("gpt2", {"pooler": True, "head": "none"}, "has none"),
        ("bert", {"layers": 0}, "1 or more"),
        ("bert", {"family": "brt"}, "did you mean 'bert'"),
    ],
)
def test_what_no_kernel_can_be_is_refused(name: str, choices: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pico_config(name, **choices) if "family" not in choices else preset(name).replace(**choices)
    assert word in str(caught.value)


def test_rope_is_checked() -> None:
    with pytest.raises(ConfigError, match="original_positions"):
        RopeConfig(scaling="yarn", factor=2.0)
    with pytest.raises(ConfigError, match="factor"):
        RopeConfig(scaling="linear", factor=0.5)


def test_configs_need_no_torch() -> None:
    modules = "nacre.kernel.presets, nacre.kernel.anatomy, nacre.kernel.hf_config"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
