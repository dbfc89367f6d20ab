"""Adapters of every method: what they change, what they leave alone, several by name, in and out of folders."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pico import DECODER_PRESETS, ENCODER_PRESETS, pico, tokens

from nacre.errors import CheckpointError, ConfigError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig, chosen
from nacre.kernel.cache import Cache
from nacre.kernel.generate import GenerationConfig, generate, score
from nacre.kernel.model import Kernel
from nacre.kernel.sampling import SamplingConfig

CONFIGS = {
    "lora": AdapterConfig("lora", rank=3, alpha=6.0),
    "rslora": AdapterConfig("lora", rank=3, alpha=6.0, rslora=True, targets=("attention.*", "ffn.*")),
    "dora": AdapterConfig("lora", rank=3, alpha=6.0, dora=True),
    "bottleneck": AdapterConfig("bottleneck", width=6),
    "prefix": AdapterConfig("prefix", tokens=4),
    "prompt": AdapterConfig("prompt", tokens=3),
    "bias": AdapterConfig("bias"),
}
GREEDY = GenerationConfig(max_new_tokens=9, sampling=SamplingConfig(temperature=0.0))
FOLDING = ("lora", "rslora", "dora", "bias")
WITHOUT_BIASES = ("llama2", "llama3", "mistral", "qwen3", "t5", "t5-v1.1")
PRESETS = ("bert", "roberta", "gpt2", "llama2", "mistral", "qwen2", "t5")
PAIRS = [(name, way) for name in PRESETS for way in CONFIGS if way != "bias" or name not in WITHOUT_BIASES]


def hidden(kernel: Kernel, mask: torch.Tensor | None = None) -> torch.Tensor:
    with torch.no_grad():
        if kernel.config.layout == "encoder-decoder":
            return kernel(tokens(2, 7), mask=mask, decoder_ids=tokens(2, 5, seed=2)).hidden
        return kernel(tokens(2, 7), mask=mask).hidden


def shake(kernel: torch.nn.Module, seed: int = 2, name: str | None = None) -> None:
    """Makes an adapter do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in adapted.adapters(kernel, name).values():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.3)


def shaken(name: str, way: str, **choices: Any) -> Kernel:
    kernel = pico(name, **choices)
    adapted.attach(kernel, CONFIGS[way], torch.Generator().manual_seed(1))
    shake(kernel)
    return kernel


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_trap_47_an_adapter_that_is_off_is_the_base_bit_for_bit(name: str, way: str) -> None:
    plain = hidden(pico(name))
    fresh = pico(name)
    names = adapted.attach(fresh, CONFIGS[way])
    assert names
    if way not in ("prefix", "prompt"):  # these begin with something
        assert torch.allclose(hidden(fresh), plain, atol=1e-5)
    kernel = shaken(name, way)
    changed = hidden(kernel)
    assert (changed - plain).abs().max() > 1e-2
    with adapted.disabled(kernel):
        assert torch.equal(hidden(kernel), plain)
    assert torch.equal(hidden(kernel), changed)
    adapted.activate(kernel, None)
    assert torch.equal(hidden(kernel), plain)
    adapted.activate(kernel, adapted.DEFAULT)
    assert torch.equal(hidden(kernel), changed)
    assert torch.equal(hidden(copy.deepcopy(kernel)), changed)
    adapted.detach(kernel)
    assert torch.equal(hidden(kernel), plain)
    assert kernel.state_dict().keys() == pico(name).state_dict().keys()


@pytest.mark.parametrize(("name", "way"), [one for one in PAIRS if one[1] in FOLDING])
def test_trap_47_merging_changes_nothing_but_rounding_and_is_undone(name: str, way: str) -> None:
    kernel = shaken(name, way).double()
    base, changed = pico(name).double(), hidden(kernel)
    adapted.merge(kernel)
    adapted.merge(kernel)  # once is enough
    assert torch.allclose(hidden(kernel), changed, atol=1e-9, rtol=0)
    with adapted.disabled(kernel):
        assert torch.equal(hidden(kernel), hidden(base))
    assert torch.allclose(hidden(kernel), changed, atol=1e-9, rtol=0)
    adapted.unmerge(kernel)
    assert torch.equal(hidden(kernel), changed)
    state = kernel.state_dict()
    assert all(torch.equal(state[key], value) for key, value in base.state_dict().items())
    adapted.fold(kernel)
    assert not adapted.attached(kernel)
    assert torch.allclose(hidden(kernel), changed, atol=1e-9, rtol=0)


@pytest.mark.parametrize("way", ["bottleneck", "prefix", "prompt"])
def test_what_has_no_place_in_the_weights_is_not_merged(way: str, tmp_path: Path) -> None:
    kernel = shaken("gpt2", way)
    before = {key: one.clone() for key, one in kernel.state_dict().items()}
    for change in (adapted.merge, adapted.fold):
        with pytest.raises(ConfigError, match=f"no place for the method {way}"):
            change(kernel)
    assert all(torch.equal(one, before[key]) for key, one in kernel.state_dict().items())
    with pytest.raises(CheckpointError, match="adapters"):
        hf.save(kernel, tmp_path)


def test_trap_47_merging_into_a_quantised_base_is_refused() -> None:
    kernel = shaken("llama2", "lora")
    layer = kernel.decoder.layers[0].attention.q
    layer.weight = torch.nn.Parameter(torch.zeros(1, 4, dtype=torch.uint8), requires_grad=False)
    other = kernel.decoder.layers[1].attention.q.weight.clone()
    with pytest.raises(ConfigError, match="quantised"):
        adapted.merge(kernel)
    assert torch.equal(kernel.decoder.layers[1].attention.q.weight, other)


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_trap_33_only_the_adapter_learns(name: str, way: str) -> None:
    kernel = pico(name)
    adapted.attach(kernel, CONFIGS[way], torch.Generator().manual_seed(1))
    shake(kernel)
    before = {key: one.clone() for key, one in kernel.state_dict().items()}
    optimizer = torch.optim.SGD([one for one in kernel.parameters() if one.requires_grad], lr=1.0)
    given: dict[str, Any] = {"decoder_ids": tokens(2, 5, seed=2)} if name == "t5" else {}
    kernel.train()
    (kernel(tokens(2, 6), **given).hidden ** 2).mean().backward()
    optimizer.step()
    after = kernel.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed
    assert all(adapted.is_adapter(key) for key in changed)
    # The bias of a key moves all scores of a query alike, so nothing can be learnt there.
    left = {key for key in after if adapted.is_adapter(key) and ".k." not in key} - changed
    assert not left, left


@pytest.mark.parametrize("way", ["prefix", "prompt"])
@pytest.mark.parametrize("name", [*DECODER_PRESETS, *ENCODER_PRESETS])
def test_what_stands_before_the_text_does_not_mind_padding(name: str, way: str) -> None:
    """Alone, and padded on the right (and for decoders on the left), a text has the same states."""
    kernel = shaken(name, way)
    ids = tokens(1, 9)
    alone = kernel(ids).hidden
    pad = torch.full((1, 4), kernel.config.pad_id or 0)
    sides = ("right", "left") if name in DECODER_PRESETS else ("right",)
    for side in sides:
        row = torch.cat((ids, pad) if side == "right" else (pad, ids), dim=1)
        mask = torch.cat((torch.ones(1, 9), torch.zeros(1, 4)), dim=1).bool()
        mask = mask if side == "right" else mask.flip(1)
        found = kernel(row, mask=mask).hidden
        assert found.shape[1] == 13
        found = found[:, :9] if side == "right" else found[:, 4:]
        assert torch.allclose(found, alone, atol=1e-4), side


@pytest.mark.parametrize("way", list(CONFIGS))
@pytest.mark.parametrize("name", ["gpt2", "llama2", "mistral", "t5"])
def test_trap_23_writing_with_a_cache_is_reading_it_whole(name: str, way: str) -> None:
    if way == "bias" and name in WITHOUT_BIASES:
        return
    kernel = shaken(name, way)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [20]]
    written = generate(kernel, prompts, GREEDY)
    for prompt, one in zip(prompts, written, strict=True):
        assert generate(kernel, [prompt], GREEDY)[0].ids == one.ids
        if one.stopped != "length":
            continue
        if name == "t5":
            values = score(kernel, [one.ids], sources=[prompt])[0]
        else:
            values = score(kernel, [prompt + one.ids])[0][-len(one.ids) :]
        assert torch.allclose(torch.tensor(values), torch.tensor(one.log_probabilities), atol=1e-4)


def test_a_prefix_is_seen_by_every_packed_document_and_a_prompt_refuses_them() -> None:
    kernel = shaken("llama2", "prefix")
    first, second = tokens(1, 4), tokens(1, 5, seed=3)
    segments = torch.tensor([[0] * 4 + [1] * 5])
    both = kernel(torch.cat((first, second), dim=1), segments=segments).hidden
    assert torch.allclose(both, torch.cat((kernel(first).hidden, kernel(second).hidden), dim=1), atol=1e-4)
    with pytest.raises(ConfigError, match="packed"):
        shaken("llama2", "prompt")(torch.cat((first, second), dim=1), segments=segments)


@pytest.mark.parametrize("way", ["prefix", "prompt"])
def test_learnt_positions_take_room_of_the_text(way: str) -> None:
    kernel = shaken("gpt2", way, max_positions=16)
    length = CONFIGS[way].tokens
    assert kernel.room == 16 - length
    kernel(tokens(1, 16 - length))
    with pytest.raises(Exception, match="does not fit"):
        kernel(tokens(1, 17 - length))
    written = generate(kernel, [[5] * 6], GenerationConfig(max_new_tokens=40))[0]
    assert written.stopped in ("context", "end")
    assert len(written.ids) <= 16 - length - 6
    with adapted.disabled(kernel):
        kernel(tokens(1, 16))
    with pytest.raises(ConfigError, match="leave none"):
        adapted.attach(pico("gpt2", max_positions=16), AdapterConfig(CONFIGS[way].method, tokens=16))


def test_several_by_name_are_switched_and_added_up() -> None:
    kernel = pico("llama2").double()
    plain, found = hidden(kernel), {}
    for seed, name in enumerate(("a", "b"), 5):
        adapted.attach(kernel, CONFIGS["lora"], torch.Generator().manual_seed(seed), name=name)
        assert adapted.active(kernel) == {name: 1.0}
        shake(kernel, seed)
        found[name] = hidden(kernel)
    for name in ("a", "b"):
        adapted.activate(kernel, name)
        assert torch.equal(hidden(kernel), found[name])
    adapted.activate(kernel, None)
    assert torch.equal(hidden(kernel), plain)
    adapted.activate(kernel, {"a": 0.3, "b": -0.7})
    summed = hidden(kernel)
    adapted.merge(kernel)
    assert torch.allclose(hidden(kernel), summed, atol=1e-9, rtol=0)
    layer = kernel.get_submodule("decoder.layers.0.attention.q")
    parts = [adapted.adapters(kernel, name)["decoder.layers.0.attention.q"] for name in ("a", "b")]
    one, other = ((part.b @ part.a) * 2.0 for part in parts)
    base = pico("llama2").double().get_submodule("decoder.layers.0.attention.q").weight
    assert torch.allclose(layer.weight, base + 0.3 * one - 0.7 * other, atol=1e-12)
    adapted.activate(kernel, "a")  # merged, and stays so
    assert torch.allclose(hidden(kernel), found["a"], atol=1e-9, rtol=0)
    trained = {key.split(".adapters.")[1][0] for key, p in kernel.named_parameters() if p.requires_grad}
    assert trained == {"a"}


def test_methods_are_mixed_by_name() -> None:
    kernel = pico("gpt2")
    for way in ("lora", "prefix", "prompt", "bottleneck", "bias"):
        adapted.attach(kernel, CONFIGS[way], name=way)
        shake(kernel, name=way)
    adapted.activate(kernel, ("prefix", "prompt", "bottleneck"))
    several = hidden(kernel)
    adapted.activate(kernel, ("prompt", "bottleneck"))
    assert (hidden(kernel) - several).abs().max() > 1e-2
    assert kernel.room == 61
    adapted.attach(kernel, AdapterConfig("prompt", tokens=2), name="more")
    adapted.activate(kernel, ("more", "prompt"))
    assert kernel.room == 59
    with adapted.disabled(kernel):
        assert torch.equal(hidden(kernel), hidden(pico("gpt2")))


def test_what_cannot_be_switched_so_is_told() -> None:
    kernel = shaken("gpt2", "dora")
    adapted.attach(kernel, CONFIGS["lora"], name="b")
    with pytest.raises(ConfigError, match="row lengths"):
        adapted.activate(kernel, ("default", "b"))
    with pytest.raises(ConfigError, match="cannot be weighted"):
        adapted.activate(kernel, {"default": 0.5})
    with pytest.raises(ConfigError, match="no adapter 'c'"):
        adapted.activate(kernel, "c")
    for name in ("a.b", "keys", ""):
        with pytest.raises(ConfigError, match="cannot be called"):
            adapted.attach(kernel, CONFIGS["lora"], name=name)
    with pytest.raises(ConfigError, match="already"):
        adapted.attach(kernel, CONFIGS["lora"], name="b")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"method": "ia3"}, "no method"),
        ({"method": "prefix", "rank": 4}, "rank is no setting"),
        ({"method": "lora", "tokens": 4}, "tokens is no setting"),
        ({"method": "bias", "dropout": 0.1}, "dropout is no setting"),
        ({"method": "prompt", "tokens": 0}, "tokens is 0"),
        ({"method": "bottleneck", "dropout": 1.0}, "dropout is 1.0"),
        ({"method": "lora", "rank": 0}, "rank is 0"),
    ],
    ids=str,
)
def test_settings_are_strict(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        AdapterConfig(**wrong)


def test_both_forms_are_one_and_not_given_together() -> None:
    assert chosen(LoraConfig(4, 8.0), None) == AdapterConfig("lora", rank=4, alpha=8.0)
    assert chosen(None, None) is None
    with pytest.raises(ConfigError, match="both lora and adapter"):
        chosen(LoraConfig(), AdapterConfig("bias"))


def test_a_model_that_cannot_have_a_method_says_so() -> None:
    with pytest.raises(ConfigError, match="no module with a bias"):
        adapted.attach(pico("llama2"), CONFIGS["bias"])
    with pytest.raises(ConfigError, match="reads images"):
        adapted.attach(pico("vit"), CONFIGS["prompt"])
    with pytest.raises(ConfigError, match="whole stacks"):
        adapted.attach(pico("t5"), AdapterConfig("prefix", targets=("q",)))
    with pytest.raises(ConfigError, match="matches no linear layer"):
        adapted.attach(pico("t5"), AdapterConfig("bottleneck", targets=("query",)))
    with pytest.raises(ConfigError, match=r"'embd' matches no parameter"):
        adapted.attach(pico("bert"), AdapterConfig("lora", train=("embd",)))


@pytest.mark.parametrize("name", ["bert", "t5", "vit"])
def test_a_prefix_of_one_stack_and_of_images(name: str) -> None:
    config = AdapterConfig("prefix", tokens=2, targets=("encoder",))
    kernel = pico(name)
    names = adapted.attach(kernel, config)
    assert len(names) == 2
    if name == "vit":
        image = torch.randn(2, 2, 12, 12, generator=torch.Generator().manual_seed(1))
        assert not torch.equal(kernel(image).hidden, pico("vit")(image).hidden)


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_trap_50_every_adapter_comes_back_from_its_folder(name: str, way: str, tmp_path: Path) -> None:
    kernel = shaken(name, way)
    if (name, way) == ("t5", "prefix"):
        with pytest.raises(CheckpointError, match="PEFT has one prefix"):
            peft.save(kernel, tmp_path)
        return
    peft.save(kernel, tmp_path)
    again = pico(name)
    names = peft.load(again, tmp_path)
    assert set(names) >= set(adapted.adapters(kernel))
    assert torch.allclose(hidden(again), hidden(kernel), atol=1e-5)
    with adapted.disabled(again):
        assert torch.equal(hidden(again), hidden(pico(name)))
    assert not any(p.requires_grad for key, p in again.named_parameters() if not adapted.is_adapter(key))
    with pytest.raises(CheckpointError, match="already"):
        peft.load(again, tmp_path)
    peft.load(again, tmp_path, name="twin")
    assert torch.allclose(hidden(again), hidden(kernel), atol=1e-5)


@pytest.mark.parametrize("way", list(CONFIGS))
def test_trap_47_an_adapter_for_another_base_is_refused(way: str, tmp_path: Path) -> None:
    peft.save(shaken("gpt2", way), tmp_path)
    other = pico("gpt2", seed=9)
    before = hidden(other)
    with pytest.raises(CheckpointError, match="other weights"):
        peft.load(other, tmp_path)
    assert torch.equal(hidden(other), before)
    peft.load(other, tmp_path, any_base=True)
    half = pico("gpt2").bfloat16()  # the same base in another format
    peft.load(half, tmp_path)
    for wrong in (pico("gpt2", hidden_size=64), pico("llama2")):
        with pytest.raises(CheckpointError):
            peft.load(wrong, tmp_path)
        assert not adapted.attached(wrong)


@pytest.mark.parametrize("way", ["bottleneck", "prefix", "prompt"])
@pytest.mark.parametrize("name", ["bert", "llama2", "t5"])
def test_trap_50_a_model_folder_brings_what_could_not_be_merged(name: str, way: str, tmp_path: Path) -> None:
    kernel = shaken(name, way) if (name, way) != ("t5", "prefix") else None
    if kernel is None:
        return
    peft.save(kernel, tmp_path / "adapter")
    hf.save(kernel, tmp_path, adapter="adapter")
    again = hf.load(tmp_path)
    assert adapted.attached(again)[adapted.DEFAULT].method == CONFIGS[way].method
    assert torch.allclose(hidden(again), hidden(kernel), atol=1e-6)


def test_trap_48_embeddings_of_new_tokens_are_trained_and_travel_with_the_adapter(tmp_path: Path) -> None:
    from nacre.kernel.resize import grow

    kernel = pico("llama2")
    grow(kernel, 103)
    adapted.attach(kernel, replace(CONFIGS["lora"], train=("embed.tokens", "lm_head")))
    shake(kernel)
    assert kernel.embed.tokens is not None
    assert kernel.embed.tokens.weight.requires_grad
    with torch.no_grad():
        kernel.embed.tokens.weight[97:] += 1.0
    peft.save(kernel, tmp_path)
    again = pico("llama2")
    peft.load(again, tmp_path)
    assert again.config.vocab_size == 103
    ids = torch.tensor([[5, 98, 101]])
    assert torch.equal(again.lm_logits(again(ids).hidden), kernel.lm_logits(kernel(ids).hidden))
    assert again.embed.tokens is not None
    assert again.embed.tokens.weight.requires_grad
    peft.save(again, tmp_path / "again")
    tied = pico("gpt2")
    adapted.attach(tied, replace(CONFIGS["lora"], train=("embed.tokens",)))
    with torch.no_grad():
        tied.embed.tokens.weight.add_(0.5)
    peft.save(tied, tmp_path / "tied")
    back = pico("gpt2")
    peft.load(back, tmp_path / "tied")
    ids = tokens(1, 6)
    assert torch.equal(back.lm_logits(back(ids).hidden), tied.lm_logits(tied(ids).hidden))


def test_a_prefix_reads_a_prompt_in_chunks() -> None:
    kernel, ids = shaken("llama2", "prefix"), tokens(1, 9)
    cache = Cache(kernel.config)
    parts = [kernel(ids[:, start : start + 3], cache=cache).hidden for start in (0, 3, 6)]
    assert torch.allclose(torch.cat(parts, dim=1), kernel(ids).hidden, atol=1e-4)
