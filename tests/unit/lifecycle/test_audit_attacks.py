"""Attacks that keep the function keep the logits; derivations make what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.audit.attacks import bases, files, merging, pruning, rounding, shapes, tampering
from nacre.lifecycle.audit.attacks.capability import capability, loss
from nacre.lifecycle.audit.attacks.catalogue import ATTACKS
from nacre.lifecycle.audit.attacks.files import Stored
from nacre.lifecycle.audit.attacks.model import Model

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "layers": 3, "heads": 4, "max_positions": 24, "ffn_size": 48,
}  # fmt: skip
KERNELS: dict[str, dict[str, Any]] = {
    "llama-gqa": {"preset": "llama2", "kv_heads": 2},
    "llama-tied": {"preset": "llama2", "kv_heads": 4, "tied": True},
    "qwen2-biases": {"preset": "qwen2", "kv_heads": 2},
}


def make(name: str = "llama2", seed: int = 0, **choices: Any) -> Model:
    """A kernel whose gains and biases are not those of a fresh one."""
    source = torch.Generator().manual_seed(seed)
    kernel = Kernel(preset(name, **{**SIZES, **choices}), source)
    with torch.no_grad():
        for parameter in kernel.parameters():
            drawn = torch.randn(parameter.shape, generator=source)
            parameter.add_(drawn * (0.2 if parameter.dim() == 1 else 0.1))
    return Model.of(kernel.eval())


def logits(model: Model, vocabulary: int | None = None) -> Tensor:
    ids = torch.randint(0, SIZES["vocab_size"], (2, 20), generator=torch.Generator().manual_seed(9))
    kernel = model.kernel()
    with torch.no_grad():
        return kernel.lm_logits(kernel(ids).hidden)[..., :vocabulary]


def differs(first: Model, second: Model) -> bool:
    """Whether any tensor has another value or shape."""
    names = set(first.state) | set(second.state)
    return any(
        name not in first.state
        or name not in second.state
        or first.state[name].shape != second.state[name].shape
        or not torch.allclose(first.state[name], second.state[name])
        for name in names
    )


KEEPING = [name for name, attack in ATTACKS.items() if attack.keeps_function]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", KEEPING)
def test_function_preserving_attacks_keep_the_logits(kernel: str, name: str) -> None:
    choices = dict(KERNELS[kernel])
    model = make(choices.pop("preset"), **choices)
    attacked = ATTACKS[name].apply(model, 5)
    assert differs(model, attacked)
    torch.testing.assert_close(logits(attacked), logits(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["permute-hidden", "permute-heads", "dummy-neurons"])
@pytest.mark.parametrize("family", ["gpt2", "bert", "qwen3"])
def test_permutations_hold_for_other_families(family: str, name: str) -> None:
    more = {"head_dim": 8, "kv_heads": 2} if family == "qwen3" else {}
    model = make(family, **more)
    attacked = ATTACKS[name].apply(model, 5)
    assert differs(model, attacked)
    torch.testing.assert_close(logits(attacked), logits(model), atol=1e-4, rtol=0)


def test_attacks_that_would_change_the_function_are_refused() -> None:
    gpt2, qwen3 = make("gpt2"), make("qwen3", head_dim=8, kv_heads=2)
    for attack, model in (("rotate-hidden", gpt2), ("permute-neurons", gpt2), ("rotate-queries", qwen3)):
        with pytest.raises(ConfigError):
            ATTACKS[attack].apply(model, 1)
    permuted = bases.permute_neurons(gpt2, 1)
    torch.testing.assert_close(logits(permuted), logits(gpt2), atol=1e-4, rtol=0)


def test_nothing_is_changed_in_place() -> None:
    model = make()
    kept = {name: one.clone() for name, one in model.state.items()}
    for attack in ATTACKS.values():
        attack.apply(model, 3)
    assert all(torch.equal(kept[name], one) for name, one in model.state.items())


def test_attacks_are_drawn_from_their_seed() -> None:
    model = make()
    for name in ("all-bases", "noise-0.1", "dummy-neurons"):
        again = ATTACKS[name].apply(model, 3)
        assert not differs(again, ATTACKS[name].apply(model, 3))
        assert differs(again, ATTACKS[name].apply(model, 4))


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - set(KEEPING)))
def test_derivations_give_kernels_that_run_and_differ(name: str) -> None:
    model = make()
    derived = ATTACKS[name].apply(model, 2)
    assert differs(model, derived)
    assert torch.isfinite(logits(derived)).all()


def test_rounding_leaves_few_levels_per_group() -> None:
    for bits in (8, 4, 3, 2):
        rounded = rounding.round_groups(make(), bits, group=16).state["decoder.layers.0.ffn.up.weight"]
        groups = rounded.reshape(-1, 16)
        assert max(len(group.unique()) for group in groups) <= 2**bits
    signed = rounding.round_groups(make(), 2, group=16, symmetric=True).state["decoder.layers.0.ffn.up.weight"]
    assert max(len(group.unique()) for group in signed.reshape(-1, 16)) <= 3


def test_a_row_that_is_no_multiple_of_the_group_keeps_its_width() -> None:
    rounded = rounding.round_groups(make(), 8, group=20).state["decoder.layers.0.ffn.up.weight"]
    torch.testing.assert_close(rounded, make().state["decoder.layers.0.ffn.up.weight"], atol=5e-3, rtol=0)


def test_pruning_makes_the_zeros_it_says() -> None:
    model, name = make(), "decoder.layers.1.attention.q.weight"
    assert float((pruning.prune_magnitude(model, 0.7).state[name] == 0).float().mean()) == pytest.approx(0.7, abs=0.01)
    pattern = pruning.prune_pattern(model).state[name]
    assert ((pattern.reshape(-1, 4) != 0).sum(1) == 2).all()
    assert torch.equal(pattern[pattern != 0], model.state[name][pattern != 0])


def test_narrowing_and_shortening_change_the_shape() -> None:
    model = make(kv_heads=2)
    assert pruning.prune_neurons(model, 0.25).config.ffn_width == 36
    fewer = pruning.prune_heads(model, 1)
    assert (fewer.config.heads, fewer.config.key_heads, fewer.config.head_width) == (2, 1, 8)
    order = shapes.arrange_layers(model, [0, 2])
    assert order.config.layers == 2
    assert torch.equal(order.state["decoder.layers.1.ffn.up.weight"], model.state["decoder.layers.2.ffn.up.weight"])
    assert shapes.stack_layers(model, 2).config.layers == 5
    with pytest.raises(ConfigError):
        shapes.drop_layers(model, 2)


def test_new_tokens_leave_the_old_logits() -> None:
    model = make()
    grown = shapes.grow_vocabulary(model, 7, 1)
    torch.testing.assert_close(logits(grown, SIZES["vocab_size"]), logits(model), atol=1e-5, rtol=0)
    swapped = shapes.swap_vocabulary(model, [3, None, 1], 1)
    table = swapped.state["embed.tokens.weight"]
    assert torch.equal(table[0], model.state["embed.tokens.weight"][3])
    assert len(table) == swapped.config.vocab_size == 3


def test_merges_end_in_their_models() -> None:
    base, first, second = make(seed=1), make(seed=2), make(seed=3)
    for merge in (merging.merge_linear, merging.merge_slerp):
        for share, expected in ((1.0, first), (0.0, second)):
            merged = merge(first, second, share).state
            for name, one in expected.state.items():
                torch.testing.assert_close(merged[name], one, atol=1e-5, rtol=1e-5)
    whole = merging.merge_ties(base, [first], 1.0, density=1.0).state
    assert all(torch.allclose(whole[name], one, atol=1e-5) for name, one in first.state.items())
    kept = merging.merge_dare(base, [first, second], [0.6, 0.4], drop=0.0, seed=1).state
    linear = merging.merge_linear(first, second, 0.6).state
    assert all(torch.allclose(kept[name], one, atol=1e-5) for name, one in linear.items())
    with pytest.raises(ConfigError):
        merging.merge_linear(first, make(layers=2), 0.5)


def test_dare_drops_the_share_and_keeps_the_mean() -> None:
    base, first = make(seed=1), make(seed=2)
    name = "decoder.layers.0.ffn.up.weight"
    delta = merging.merge_dare(base, [first], [1.0], drop=0.8, seed=4).state[name] - base.state[name]
    assert float((delta == 0).float().mean()) == pytest.approx(0.8, abs=0.03)
    kept = delta != 0
    torch.testing.assert_close(delta[kept], 5 * (first.state[name] - base.state[name])[kept], atol=1e-4, rtol=1e-3)


def test_low_rank_change_has_its_rank() -> None:
    model, name = make(), "decoder.layers.0.ffn.up.weight"
    delta = tampering.add_low_rank(model, 3, 0.1, 1).state[name] - model.state[name]
    assert int(torch.linalg.matrix_rank(delta.double(), rtol=1e-4)) == 3
    assert float(delta.norm() / model.state[name].norm()) == pytest.approx(0.1, rel=1e-3)


def test_parts_begun_anew_leave_the_rest() -> None:
    model = make()
    anew = tampering.reinitialise(model, ["embedding"], 1).state
    changed = [name for name in model.state if not torch.equal(model.state[name], anew[name])]
    assert changed == ["embed.tokens.weight"]
    with pytest.raises(ConfigError):
        tampering.reinitialise(make(tied=True), ["head"], 1)
    grafted = tampering.replace_embedding(model, make(seed=8)).state
    assert torch.equal(grafted["lm_head.weight"], make(seed=8).state["lm_head.weight"])


def test_files_keep_every_number(tmp_path: Path) -> None:
    model = make(kv_heads=2)
    stored = Stored.of(model)
    renamed = files.rename(stored, 1)
    assert not set(renamed.tensors) & set(stored.tensors)
    assert [one.shape for one in renamed.tensors.values()] == [one.shape for one in stored.tensors.values()]
    transposed = files.transpose(stored).tensors
    name = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(transposed[name].T, stored.tensors[name])
    packed = files.pack(stored).tensors
    assert packed["model.layers.0.self_attn.qkv_proj.weight"].shape == (64, 32)
    assert packed["model.layers.0.mlp.gate_up_proj.weight"].shape == (96, 32)
    split = files.split(stored, 2).tensors
    assert torch.equal(torch.cat([split[f"{name}.0"], split[f"{name}.1"]]), stored.tensors[name])
    assert len(files.add_tensors(stored, 5, 1).tensors) == len(stored.tensors) + 5
    assert files.cast(stored, torch.bfloat16).tensors[name].dtype == torch.bfloat16
    with pytest.raises(ConfigError):
        files.pack(Stored.of(make("gpt2")))


def test_folders_are_whole_and_load_again(tmp_path: Path) -> None:
    model = make(kv_heads=2)
    folder = Stored.of(model).write(tmp_path / "sharded", shards=3)
    assert not differs(Model.of(hf.load(folder)), model)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 3
    renamed = files.rename(Stored.of(model), 1).write(tmp_path / "renamed")
    assert json.loads((renamed / "config.json").read_text())["architectures"] is None
    assert len(load_file(renamed / "model.safetensors")) == len(Stored.of(model).tensors)


def test_the_decoy_stands_where_the_embedding_was() -> None:
    model, decoy = make(), make(seed=5).state["embed.tokens.weight"]
    tensors = files.graft_decoy(Stored.of(model), decoy).tensors
    assert torch.equal(tensors["model.embed_tokens.weight"], decoy)
    assert torch.equal(tensors["model.input_table.weight"], model.state["embed.tokens.weight"])


def test_experts_are_copies(tmp_path: Path) -> None:
    model = make(kv_heads=2)
    stored = shapes.upcycle(model, 4, 1)
    at = "model.layers.0.block_sparse_moe"
    up = model.state["decoder.layers.0.ffn.up.weight"]
    assert all(torch.equal(stored.tensors[f"{at}.experts.{one}.w3.weight"], up) for one in range(4))
    assert stored.tensors[f"{at}.gate.weight"].shape == (4, 32)
    apart = shapes.upcycle(model, 4, 1, noise=0.1).tensors[f"{at}.experts.2.w3.weight"]
    assert float((apart - up).std() / up.std()) == pytest.approx(0.1, rel=0.1)


def test_capability_tells_a_destroyed_model() -> None:
    model = make()
    # Texts that the model itself prefers, so that destroying it costs something.
    ids = torch.randint(0, 50, (64, 1), generator=torch.Generator().manual_seed(1))
    kernel = model.kernel()
    for _ in range(12):
        with torch.no_grad():
            ids = torch.cat((ids, kernel.lm_logits(kernel(ids).hidden)[:, -1:].argmax(-1)), 1)
    assert loss(kernel, ids) < loss(make(seed=4), ids)
    assert capability(model, bases.rotate_hidden(model, 1), ids).counts
    ruined = capability(model, tampering.add_noise(model, 3.0, 1), ids)
    assert not ruined.counts
    assert ruined.rise > 0.05
