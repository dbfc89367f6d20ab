"""Decoding with a cache equals the full forward pass."""

from __future__ import annotations

import pytest
import torch
from pico import DECODER_PRESETS, pico, tokens

from nacre.errors import ConfigError, DataError
from nacre.kernel.cache import Cache


@pytest.mark.parametrize("name", DECODER_PRESETS)
@pytest.mark.parametrize("chunks", [[1] * 14, [6] + [1] * 8, [3, 4, 1, 6], [9, 5], [14]])
@torch.no_grad()
def test_trap_23_cached_decoding_equals_the_full_pass(name: str, chunks: list[int]) -> None:
    kernel, ids = pico(name), tokens(2, 14)
    whole = kernel(ids).hidden
    cache, start = Cache(kernel.config), 0
    for size in chunks:
        part = kernel(ids[:, start : start + size], cache=cache).hidden
        assert torch.allclose(part, whole[:, start : start + size], atol=1e-5)
        start += size
    assert cache.length == 14


@pytest.mark.parametrize("name", DECODER_PRESETS)
@torch.no_grad()
def test_trap_23_left_padded_prompts_decode_as_if_alone(name: str) -> None:
    kernel, long, short = pico(name), tokens(1, 13, seed=2), tokens(1, 9, seed=3)
    ids = torch.cat((long, torch.nn.functional.pad(short, (4, 0))))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :4] = False
    cache = Cache(kernel.config, capacity=16)
    parts = [kernel(ids[:, :5], mask=mask[:, :5], cache=cache).hidden]
    parts += [kernel(ids[:, 5:8], mask=mask[:, 5:8], cache=cache).hidden]
    parts += [kernel(ids[:, i : i + 1], cache=cache).hidden for i in range(8, 13)]
    got = torch.cat(parts, dim=1)
    assert torch.allclose(got[:1], kernel(long).hidden, atol=1e-5)
    assert torch.allclose(got[1:, 4:], kernel(short).hidden, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama2"])
@torch.no_grad()
def test_padding_takes_no_positions_and_real_tokens_do(name: str) -> None:
    kernel, ids = pico(name, max_positions=10), tokens(2, 14)
    mask = torch.arange(14) >= torch.tensor([[4], [6]])
    assert torch.allclose(kernel(ids, mask=mask).hidden[:1, 4:], kernel(ids[:1, 4:]).hidden, atol=1e-5)
    with pytest.raises(DataError, match="11 tokens does not fit into 10 positions"):
        kernel(ids, mask=torch.arange(14) >= torch.tensor([[3], [6]]))
    cache = Cache(kernel.config)
    kernel(ids, mask=mask, cache=cache)
    with pytest.raises(DataError, match="11 tokens does not fit into 10 positions"):
        kernel(tokens(2, 1), cache=cache)


@pytest.mark.parametrize("name", ["t5", "t5-v1.1"])
@torch.no_grad()
def test_trap_23_an_encoder_is_read_once(name: str) -> None:
    kernel, source, target = pico(name, decoder_layers=3), tokens(2, 8), tokens(2, 10, seed=4)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 5:] = False
    whole = kernel(source, mask=mask, decoder_ids=target).hidden
    cache = Cache(kernel.config)
    parts = [kernel(source, mask=mask, decoder_ids=target[:, :3], cache=cache).hidden]
    parts += [kernel(None, decoder_ids=target[:, i : i + 1], cache=cache).hidden for i in range(3, 10)]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-4)


@torch.no_grad()
def test_a_window_bounds_the_memory() -> None:
    kernel = pico("mistral", max_positions=400)
    cache, ids = Cache(kernel.config), tokens(1, 200)
    for i in range(200):
        kernel(ids[:, i : i + 1], cache=cache)
    held = cache.layers[0].keys
    assert held is not None
    assert held.shape[2] <= 2 * 5
    assert cache.nbytes == sum(2 * held.numel() * 4 for _ in cache.layers)


@torch.no_grad()
def test_windows_and_full_attention_share_a_stack() -> None:
    kernel = pico("qwen3", sliding_window=4, full_attention_layers=(0,), layers=3)
    ids = tokens(1, 15)
    whole, cache = kernel(ids).hidden, Cache(kernel.config)
    parts = [kernel(ids[:, a:b], cache=cache).hidden for a, b in ((0, 6), (6, 9), (9, 10), (10, 15))]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)
    full = pico("qwen3", layers=3)(ids).hidden
    assert not torch.allclose(full, whole, atol=1e-3)


@torch.no_grad()
def test_rows_can_leave_and_be_copied() -> None:
    kernel, ids = pico("llama3"), tokens(3, 8)
    cache = Cache(kernel.config)
    kernel(ids[:, :6], cache=cache)
    rows = torch.tensor([2, 0, 0])
    cache.select(rows)
    got = kernel(ids[rows, 6:], cache=cache).hidden
    assert torch.allclose(got, kernel(ids[rows]).hidden[:, 6:], atol=1e-5)


def test_an_encoder_has_no_cache() -> None:
    kernel = pico("bert")
    with pytest.raises(ConfigError, match="no cache"):
        kernel(tokens(1, 4), cache=Cache(kernel.config))
