"""Rotary tables come from the config alone, and agree with `transformers` to the last bits that matter."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pico import pico, pico_config, tokens

from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.kernel.config import RopeConfig
from nacre.kernel.hf_rope import read_rope, write_rope
from nacre.kernel.model import Kernel
from nacre.kernel.position import Rotary, relative_buckets, rope_frequencies

SCALINGS = {
    "none": RopeConfig(),
    "linear": RopeConfig(scaling="linear", factor=3.0),
    "dynamic": RopeConfig(scaling="dynamic", factor=3.0),
    "llama3": RopeConfig(theta=5e5, scaling="llama3", factor=8.0, original_positions=64, high_frequency_factor=3.0),
    "yarn": RopeConfig(scaling="yarn", factor=4.0, original_positions=16, beta_fast=20.0),
    "yarn-set": RopeConfig(scaling="yarn", factor=4.0, original_positions=16, attention_factor=1.7, truncate=False),
    "yarn-mscale": RopeConfig(scaling="yarn", factor=4.0, original_positions=16, mscale=0.7, mscale_all_dim=0.3),
}


def analytic(rope: RopeConfig, head_dim: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    frequencies, factor = rope_frequencies(rope, head_dim)
    angles = torch.arange(length).double()[:, None] * frequencies.double()
    return angles.cos() * factor, angles.sin() * factor


@pytest.mark.parametrize("name", SCALINGS)
@torch.no_grad()
def test_trap_24_half_split_layout_matches_transformers_to_a_divergence_of_1e_10(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.set_default_dtype(torch.float64)
    try:
        kernel = pico("llama2", rope=SCALINGS[name], std=0.2).double()
        hf.save(kernel, tmp_path)
        model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
        ids = tokens(2, 48)
        ours = kernel.lm_logits(kernel(ids).hidden).log_softmax(-1)
        theirs = model(input_ids=ids).logits.log_softmax(-1)
    finally:
        torch.set_default_dtype(torch.float32)
    divergence = (ours.exp() * (ours - theirs)).sum(-1).abs().max().item()
    assert divergence < 1e-10


@pytest.mark.parametrize("name", SCALINGS)
def test_trap_25_tables_survive_every_move(name: str) -> None:
    rope = SCALINGS[name]
    config = pico_config("llama2", rope=rope, max_positions=300)
    cos, sin = analytic(rope, config.head_width, 300)

    def check(kernel: Kernel) -> None:
        assert kernel.rotary is not None
        assert kernel.rotary.cos.dtype == torch.float32
        assert torch.allclose(kernel.rotary.cos.double(), cos, atol=2e-5)
        assert torch.allclose(kernel.rotary.sin.double(), sin, atol=2e-5)

    check(Kernel(config))
    check(Kernel(config).to(torch.bfloat16))
    check(Kernel(config).half().float())
    with torch.device("meta"):
        empty = Kernel(config)
    check(empty.to_empty(device="cpu"))
    check(empty.to(torch.bfloat16))


def test_trap_25_tables_survive_a_checkpoint_and_are_not_in_it(tmp_path: Path) -> None:
    kernel = pico("llama3").bfloat16()
    assert not any("rotary" in name for name in kernel.state_dict())
    hf.save(kernel, tmp_path)
    again = hf.load(tmp_path)
    assert again.rotary is not None
    assert kernel.rotary is not None
    assert torch.equal(again.rotary.cos, kernel.rotary.cos)


def test_tables_grow_when_a_text_needs_it() -> None:
    rotary = Rotary(RopeConfig(), 8, 20_000)
    assert rotary.cos.shape[0] == 4096
    cos, _ = rotary(None, 0, 5000)
    assert cos.shape == (1, 5000, 1, 4)
    assert rotary.cos.shape[0] == 8192
    expected, _ = analytic(RopeConfig(), 8, 5000)
    assert torch.allclose(cos[0, :, 0].double(), expected, atol=1e-3)


@pytest.mark.parametrize("name", SCALINGS)
def test_trap_26_scaling_survives_save_and_load(name: str, tmp_path: Path) -> None:
    kernel = pico("llama2", rope=SCALINGS[name])
    hf.save(kernel, tmp_path)
    assert hf.load_config(tmp_path).rope == SCALINGS[name]


def test_trap_26_yarn_at_factor_1_is_the_identity() -> None:
    plain, one = rope_frequencies(RopeConfig(), 16)
    yarn, factor = rope_frequencies(RopeConfig(scaling="yarn", factor=1.0, original_positions=64), 16)
    assert torch.equal(plain, yarn)
    assert one == factor == 1.0


def test_trap_26_the_attention_factor_scales_the_tables() -> None:
    rotary = Rotary(SCALINGS["yarn"], 16, 32)
    assert rotary.cos[0, 0].item() == pytest.approx(0.1 * math.log(4.0) + 1.0)
    assert Rotary(SCALINGS["yarn-set"], 16, 32).cos[0, 0].item() == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0]}}, "longrope"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "short_factor": [1.0]}}, "short_factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_scaling": {"type": "yarn"}}, "without a factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor"),
    ],
)
def test_other_ropes_are_refused(given: dict[str, Any], word: str) -> None:
    with pytest.raises(CheckpointError, match=word):
        read_rope(given, 64)


def test_old_keys_mean_the_same_as_new_ones() -> None:
    old = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert read_rope(old, 64) == RopeConfig(theta=500.0, scaling="linear", factor=2.0)
    assert read_rope({"rope_parameters": write_rope(SCALINGS["llama3"])}, 64) == SCALINGS["llama3"]
    bare = {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}
    assert read_rope(bare, 64) == dataclasses.replace(
        SCALINGS["none"], scaling="yarn", factor=2.0, original_positions=64
    )


def test_relative_buckets_are_exact_near_by_and_bounded_far_off() -> None:
    distance = torch.arange(-200, 201)
    both = relative_buckets(distance, both_ways=True, buckets=32, max_distance=128)
    assert both.min() == 0
    assert both.max() == 31
    assert both[200 - 5] == 5
    assert both[200 + 5] == 16 + 5
    back = relative_buckets(distance, both_ways=False, buckets=32, max_distance=128)
    assert (back[distance >= 0] == 0).all()
    assert back[0] == 31
