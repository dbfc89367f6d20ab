"""Low-rank adapters: what they change, what they leave alone, how they go in and out of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pico import DECODER_PRESETS, ENCODER_PRESETS, pico, tokens

from nacre.errors import CheckpointError, ConfigError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import LoraConfig
from nacre.kernel.model import Kernel

PRESETS = ("bert", "gpt2", "llama2", "qwen3", "t5")


def hidden(kernel: Kernel) -> torch.Tensor:
    with torch.no_grad():
        if kernel.config.layout == "encoder-decoder":
            return kernel(tokens(2, 7), decoder_ids=tokens(2, 5, seed=2)).hidden
        return kernel(tokens(2, 7)).hidden


def with_adapters(name: str, config: LoraConfig | None = None) -> Kernel:
    """A pico kernel with adapters that do something."""
    kernel = pico(name)
    adapted.attach(kernel, config or LoraConfig(rank=3, alpha=6.0), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layer in adapted.adapters(kernel).values():
            layer.b.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    return kernel


@pytest.mark.parametrize("name", PRESETS)
def test_trap_47_adapters_off_are_the_base_and_merging_is_undone(name: str) -> None:
    base = pico(name)
    plain = hidden(base)
    fresh = pico(name)
    adapted.attach(fresh, LoraConfig())
    assert torch.equal(hidden(fresh), plain)  # B is zero
    kernel = with_adapters(name)
    changed = hidden(kernel)
    assert (changed - plain).abs().max() > 1e-2
    with adapted.disabled(kernel):
        assert torch.equal(hidden(kernel), plain)
    assert torch.equal(hidden(kernel), changed)
    adapted.merge(kernel)
    adapted.merge(kernel)  # once is enough
    merged = hidden(kernel)
    assert torch.allclose(merged, changed, atol=1e-4)
    with adapted.disabled(kernel):
        assert torch.equal(hidden(kernel), plain)
    assert torch.equal(hidden(kernel), merged)
    adapted.unmerge(kernel)
    assert torch.equal(hidden(kernel), changed)
    assert all(
        torch.equal(one, base.state_dict()[key])
        for key, one in kernel.state_dict().items()
        if not adapted.is_adapter(key)
    )


@pytest.mark.parametrize("name", PRESETS)
def test_folding_leaves_a_plain_kernel_that_can_be_saved(name: str, tmp_path: Path) -> None:
    kernel = with_adapters(name)
    changed = hidden(kernel)
    with pytest.raises(CheckpointError, match="adapters") as refused:
        hf.save(kernel, tmp_path)
    assert "adapted.fold" in refused.value.remedy
    assert not list(tmp_path.iterdir())
    adapted.fold(kernel)
    assert not adapted.adapters(kernel)
    assert all(parameter.requires_grad for parameter in kernel.parameters())
    hf.save(kernel, tmp_path)
    assert torch.allclose(hidden(hf.load(tmp_path)), changed, atol=1e-4)


@pytest.mark.parametrize("name", ENCODER_PRESETS + DECODER_PRESETS)
def test_trap_33_only_adapters_and_head_change(name: str) -> None:
    pooling = "mean" if name in ENCODER_PRESETS else "last"
    kernel = pico(name).with_head("classify", labels=("a", "b"), pooling=pooling)
    names = adapted.attach(kernel, LoraConfig(rank=2))
    before = {key: one.clone() for key, one in kernel.state_dict().items()}
    trained = {key for key, one in kernel.named_parameters() if one.requires_grad}
    optimizer = torch.optim.SGD([one for one in kernel.parameters() if one.requires_grad], lr=1.0)
    for _ in range(2):  # A moves once B has left zero
        optimizer.zero_grad()
        logits = kernel.class_logits(kernel(tokens(4, 6)).hidden)
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    changed = {key for key, one in kernel.state_dict().items() if not torch.equal(one, before[key])}
    assert changed == trained
    assert changed >= {f"{name}.adapters.default.{part}" for name in names for part in "ab"}
    assert {key.partition(".")[0] for key in changed} == {names[0].partition(".")[0], "classifier"}


def test_targets_are_ends_or_patterns_and_a_wrong_one_is_told() -> None:
    assert len(adapted.attach(pico("bert"), LoraConfig())) == 4  # q and v of two layers
    assert len(adapted.attach(pico("gpt2"), LoraConfig())) == 6  # q, k and v, which are one matrix there
    assert adapted.attach(pico("bert"), LoraConfig(targets=("encoder.layers.1.ffn.up",))) == ["encoder.layers.1.ffn.up"]
    assert len(adapted.attach(pico("llama2"), LoraConfig(targets=("attention.*", "ffn.*")))) == 14
    with pytest.raises(ConfigError, match=r"'query'") as caught:
        adapted.attach(pico("bert"), LoraConfig(targets=("query",)))
    assert "known" in caught.value.remedy or "did you mean" in caught.value.remedy
    kernel = with_adapters("bert")
    with pytest.raises(ConfigError, match="already"):
        adapted.attach(kernel, LoraConfig())


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}], ids=str)
def test_wrong_settings_are_told(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoraConfig(**wrong)  # type: ignore[arg-type]


def test_dropout_acts_in_training_only_and_scales_follow_the_papers() -> None:
    kernel = with_adapters("bert", LoraConfig(rank=4, alpha=8.0, dropout=0.5))
    assert torch.equal(hidden(kernel), hidden(kernel))
    kernel.train()
    assert not torch.equal(hidden(kernel), hidden(kernel))
    assert LoraConfig(rank=4, alpha=8.0).scale == 2.0
    assert LoraConfig(rank=4, alpha=8.0, rslora=True).scale == 4.0


def test_an_adapter_folder_never_loses_what_was_trained(tmp_path: Path) -> None:
    kernel = with_adapters("bert")
    kernel.embed.requires_grad_(True)
    with pytest.raises(CheckpointError, match=r"embed\..* is trained in full"):
        peft.save(kernel, tmp_path)
    with pytest.raises(CheckpointError, match="no adapters"):
        peft.save(pico("bert"), tmp_path)


def test_a_head_without_a_class_in_transformers_travels_beside_the_adapter(tmp_path: Path) -> None:
    kernel = pico("bert").with_head("classify", labels=("a", "b"), pooling="mean")
    adapted.attach(kernel, LoraConfig())
    with torch.no_grad():
        for layer in adapted.adapters(kernel).values():
            layer.b.fill_(0.1)
    peft.save(kernel, tmp_path)
    again = pico("bert").with_head("classify", labels=("a", "b"), pooling="mean")
    peft.load(again, tmp_path)
    assert torch.equal(again.class_logits(hidden(again)), kernel.class_logits(hidden(kernel)))
    with pytest.raises(CheckpointError, match="classifier"):
        peft.load(pico("bert"), tmp_path)


def test_damaged_adapters_are_told(tmp_path: Path) -> None:
    kernel = with_adapters("llama2")
    peft.save(kernel, tmp_path)
    text = (tmp_path / peft.CONFIG).read_text()
    (tmp_path / peft.CONFIG).write_text(text.replace('"r": 3', '"r": 5'))
    with pytest.raises(CheckpointError, match="has the shapes"):
        peft.load(pico("llama2"), tmp_path)
    (tmp_path / peft.CONFIG).write_text(text.replace("LORA", "IA3"))
    with pytest.raises(CheckpointError, match="IA3"):
        peft.load(pico("llama2"), tmp_path)
    (tmp_path / peft.CONFIG).write_text(text)
    (tmp_path / peft.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="no adapter_model"):
        peft.load(pico("llama2"), tmp_path)
