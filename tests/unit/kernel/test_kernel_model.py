"""What holds for every kernel: heads, masks, packing, causality, initialisation, checkpointing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from pico import DECODER_PRESETS, ENCODER_PRESETS, TEXT_PRESETS, pico, pico_config, tokens

from nacre.errors import ConfigError, DataError
from nacre.kernel.model import Kernel
from nacre.kernel.presets import PRESETS, preset


def run(kernel: Kernel, ids: torch.Tensor, **given: Any) -> torch.Tensor:
    if kernel.config.layout == "encoder-decoder":
        given.setdefault("decoder_ids", ids)
    return kernel(ids, **given).hidden


@pytest.mark.parametrize("name", TEXT_PRESETS)
@torch.no_grad()
def test_trap_07_a_fresh_model_predicts_nearly_uniformly(name: str) -> None:
    config = pico_config(name, vocab_size=5000, hidden_size=64)
    torch.manual_seed(0)
    kernel = Kernel(config).eval()
    ids = torch.randint(5, 5000, (8, 32), generator=torch.Generator().manual_seed(1))
    targets = torch.randint(5, 5000, (8, 32), generator=torch.Generator().manual_seed(2))
    loss = F.cross_entropy(kernel.lm_logits(run(kernel, ids)).flatten(0, 1), targets.flatten()).item()
    # T5's own initialisation gives tied logits the variance 1, which adds 1/2.
    expected = math.log(5000) + (0.5 if config.family == "t5" else 0.0)
    assert abs(loss - expected) < 0.03 * math.log(5000)


@pytest.mark.parametrize("name", DECODER_PRESETS)
@torch.no_grad()
def test_trap_19_packed_documents_get_the_logits_they_get_alone(name: str) -> None:
    kernel, lengths = pico(name), (7, 4, 9)
    ids = tokens(1, sum(lengths))
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    packed = kernel.lm_logits(run(kernel, ids, segments=segments))
    start = 0
    for length in lengths:
        alone = kernel.lm_logits(run(kernel, ids[:, start : start + length]))
        assert torch.allclose(packed[:, start : start + length], alone, atol=1e-5)
        start += length


@pytest.mark.parametrize("name", ENCODER_PRESETS)
@torch.no_grad()
def test_trap_19_packing_holds_for_encoders(name: str) -> None:
    kernel = pico(name)
    ids = tokens(1, 12)
    segments = torch.tensor([[5] * 7 + [2] * 5])
    packed = run(kernel, ids, segments=segments)
    assert torch.allclose(packed[:, :7], run(kernel, ids[:, :7]), atol=1e-5)
    assert torch.allclose(packed[:, 7:], run(kernel, ids[:, 7:]), atol=1e-5)


@torch.no_grad()
def test_trap_20_positions_restart_in_every_document() -> None:
    kernel = pico("gpt2")
    ids = tokens(1, 6).repeat(1, 2)
    hidden = run(kernel, ids, segments=torch.tensor([[1] * 6 + [2] * 6]))
    assert torch.allclose(hidden[:, :6], hidden[:, 6:], atol=1e-5)


@pytest.mark.parametrize("name", [*DECODER_PRESETS, *ENCODER_PRESETS])
@torch.no_grad()
def test_trap_21_a_document_never_sees_its_neighbour(name: str) -> None:
    kernel = pico(name)
    ids = tokens(2, 12)
    ids[1, 6:] = ids[0, 6:]
    hidden = run(kernel, ids, segments=torch.tensor([[0] * 6 + [1] * 6]).repeat(2, 1))
    assert not torch.allclose(hidden[0, :6], hidden[1, :6])
    assert torch.equal(hidden[0, 6:], hidden[1, 6:])


@pytest.mark.parametrize("name", TEXT_PRESETS)
@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_trap_22_padding_changes_nothing(name: str, left: bool) -> None:
    if left and name in ("bert", "ernie"):
        pytest.skip("absolute positions count from the left edge, in transformers too")
    kernel, short = pico(name), tokens(1, 6)
    pad = kernel.config.pad_id or 0
    padding = torch.full((1, 4), pad)
    padded = torch.cat((padding, short) if left else (short, padding), dim=1)
    real = slice(4, 10) if left else slice(0, 6)
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[:, real] = True
    if kernel.config.layout == "encoder-decoder":
        target = tokens(1, 5, seed=9)
        assert torch.allclose(
            run(kernel, padded, mask=mask, decoder_ids=target), run(kernel, short, decoder_ids=target), atol=1e-4
        )
    else:
        assert torch.allclose(run(kernel, padded, mask=mask)[:, real], run(kernel, short), atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_trap_22_the_class_is_read_at_the_last_real_token(left: bool) -> None:
    kernel = pico("llama2", head="classify", labels=("a", "b"))
    short = tokens(1, 6)
    padded = F.pad(short, (4, 0) if left else (0, 4))
    mask = F.pad(torch.ones_like(short), (4, 0) if left else (0, 4)).bool()
    padded_logits = kernel.class_logits(run(kernel, padded, mask=mask), mask)
    assert torch.allclose(padded_logits, kernel.class_logits(run(kernel, short)), atol=1e-5)


@pytest.mark.parametrize("name", [*DECODER_PRESETS, "t5", "t5-v1.1"])
def test_trap_27_no_gradient_reaches_the_future(name: str) -> None:
    kernel, ids = pico(name), tokens(1, 9)
    seen: list[torch.Tensor] = []
    assert kernel.embed.tokens is not None

    def keep(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    kernel.embed.tokens.register_forward_hook(keep)
    run(kernel, ids)[0, 4].sum().backward()
    gradient = seen[-1].grad
    assert gradient is not None
    assert gradient[0, 5:].abs().max() == 0
    assert gradient[0, :5].abs().amax(dim=-1).min() > 0


@pytest.mark.parametrize("name", ["t5", "t5-v1.1"])
def test_trap_28_t5_refuses_float16_instead_of_overflowing(name: str) -> None:
    kernel = pico(name).half()
    with pytest.raises(ConfigError, match="bfloat16 or float32"):
        run(kernel, tokens(1, 4))
    kernel.float()
    with torch.autocast("cpu", torch.float16), pytest.raises(ConfigError, match="float16"):
        run(kernel, tokens(1, 4))
    assert run(kernel.bfloat16(), tokens(1, 4)).isfinite().all()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama3", "t5", "vit"])
def test_trap_34_checkpointing_gives_the_same_gradients_with_dropout(name: str) -> None:
    rates: dict[str, Any] = {"dropout": 0.3, "attention_dropout": 0.2, "embedding_dropout": 0.1}
    if name == "t5":
        rates["ffn_dropout"] = 0.2
    kernel = pico(name, **rates).train()
    ids = torch.randn(2, 2, 12, 12) if name == "vit" else tokens(2, 10)
    gradients = []
    for enabled in (False, True):
        kernel.set_checkpointing(enabled)
        kernel.zero_grad()
        torch.manual_seed(7)
        run(kernel, ids).square().mean().backward()
        gradients.append([p.grad.clone() for p in kernel.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", PRESETS)
def test_layers_hold_every_parameter_once_in_depth_order(name: str) -> None:
    kernel = Kernel(pico_config(name))
    listed = [id(p) for _, module in kernel.layers() for p in module.parameters()]
    assert sorted(listed) == sorted(id(p) for p in kernel.parameters())
    names = [layer for layer, _ in kernel.layers()]
    assert names[0] == "embed"
    numbers = [int(layer.rpartition(".")[2]) for layer in names if ".layers." in layer]
    assert numbers[: kernel.config.layers] == list(range(kernel.config.layers))


def test_with_head_shares_the_body_and_starts_a_fresh_head() -> None:
    kernel = pico("bert", head="pretraining")
    classifier = kernel.with_head("classify", labels=["x", "y", "z"], generator=torch.Generator().manual_seed(4))
    assert classifier.config.labels == ("x", "y", "z")
    assert classifier.embed is kernel.embed
    assert classifier.encoder is kernel.encoder
    assert classifier.pooler is kernel.pooler
    assert classifier.class_logits(run(classifier, tokens(2, 5))).shape == (2, 3)
    again = kernel.with_head("classify", labels=["x", "y", "z"], generator=torch.Generator().manual_seed(4))
    assert classifier.classifier is not None
    assert again.classifier is not None
    assert torch.equal(classifier.classifier.weight, again.classifier.weight)
    assert kernel.with_head("classify", labels=["x", "y"], pooling="mean").pooler is None
    assert kernel.with_head("tag", labels=["O", "B"]).tag_logits(run(kernel, tokens(2, 5))).shape == (2, 5, 2)
    assert kernel.bfloat16().with_head("tag", labels=["O", "B"]).classifier.weight.dtype == torch.bfloat16  # type: ignore[union-attr]


def test_a_head_that_is_not_there_says_which_would_be() -> None:
    kernel = pico("bert")
    hidden = run(kernel, tokens(1, 4))
    for wanted, call in (
        ("classify", kernel.class_logits),
        ("tag", kernel.tag_logits),
        ("pretraining", kernel.nsp_logits),
    ):
        with pytest.raises(ConfigError, match=wanted):
            call(hidden)
    with pytest.raises(ConfigError, match="lm, mlm"):
        kernel.with_head("none").lm_logits(hidden)


def test_inputs_that_a_layout_cannot_take_are_refused() -> None:
    with pytest.raises(DataError, match="65 tokens does not fit into 64"):
        run(pico("gpt2"), tokens(1, 65))
    with pytest.raises(ConfigError, match="decoder_ids"):
        pico("t5")(tokens(1, 4))
    with pytest.raises(ConfigError, match="decoder_ids"):
        pico("gpt2")(tokens(1, 4), decoder_ids=tokens(1, 4))
    with pytest.raises(ConfigError, match="segments"):
        run(pico("t5"), tokens(1, 4), segments=torch.zeros(1, 4, dtype=torch.long))


@pytest.mark.parametrize("name", TEXT_PRESETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_row_of_padding_alone_gives_no_nan(name: str, dtype: torch.dtype) -> None:
    kernel = pico(name).to(dtype)
    mask = torch.tensor([[True] * 5, [False] * 5])
    assert run(kernel, tokens(2, 5), mask=mask).isfinite().all()


def test_initialisation_is_a_function_of_the_seed() -> None:
    config = pico_config("llama2")
    one = Kernel(config, torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(99)
    two = Kernel(config, torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = Kernel(config, torch.Generator().manual_seed(6)).state_dict()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_initialisation_follows_the_family() -> None:
    wide = Kernel(preset("gpt2", vocab_size=200, hidden_size=256, heads=4, layers=8)).state_dict()
    assert wide["decoder.layers.3.attention.q.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert wide["decoder.layers.3.ffn.down.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert wide["decoder.layers.3.attention.q.bias"].abs().max() == 0
    t5 = Kernel(preset("t5", vocab_size=200, hidden_size=256, heads=4, layers=2)).state_dict()
    assert t5["embed.tokens.weight"].std().item() == pytest.approx(1.0, rel=0.05)
    assert t5["encoder.layers.0.attention.q.weight"].std().item() == pytest.approx((256 * 64) ** -0.5, rel=0.05)


def test_dropout_acts_in_training_only() -> None:
    kernel = pico("bert", dropout=0.5).train()
    ids = tokens(1, 6)
    assert not torch.equal(run(kernel, ids), run(kernel, ids))
    kernel.eval()
    assert torch.equal(run(kernel, ids), run(kernel, ids))


@pytest.mark.parametrize("name", [*DECODER_PRESETS, "bert"])
@torch.no_grad()
def test_a_full_mask_equals_no_mask(name: str) -> None:
    kernel, ids = pico(name), tokens(2, 9)
    assert torch.allclose(run(kernel, ids, mask=torch.ones(2, 9, dtype=torch.bool)), run(kernel, ids), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama3", "bert", "t5"])
def test_the_forward_pass_compiles_into_one_graph(name: str) -> None:
    kernel = pico(name).train()
    counted = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(run, fullgraph=True, backend=counted)
    for step in range(3):
        assert torch.allclose(
            compiled(kernel, tokens(2, 8, seed=step)), run(kernel, tokens(2, 8, seed=step)), atol=1e-5
        )
    assert counted.frame_count == 1
