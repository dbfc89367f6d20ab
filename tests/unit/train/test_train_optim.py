"""Which parameter is trained by what, at which rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from train_stub import StubKernel

from nacre.errors import ConfigError
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.config import TrainConfig
from nacre.train.muon import Muon, orthogonalise
from nacre.train.optim import build, freeze, place

TINY = {"vocab_size": 64, "hidden_size": 16, "layers": 2, "heads": 2, "ffn_size": 32, "max_positions": 16}


def tiny(family: str) -> Kernel:
    sizes = dict(TINY)
    if family in ("llama3", "qwen3"):
        sizes["kv_heads"] = 1
    if family == "qwen3":
        sizes["head_dim"] = 8
    if family.startswith("t5"):
        sizes["head_dim"] = 8
    return Kernel(preset(family, **sizes))


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama3", "qwen3", "t5", "t5-v1.1"])
def test_trap_32_muon_gets_hidden_matrices_only(family: str) -> None:
    kernel = tiny(family)
    parameters = dict(kernel.named_parameters())
    optimizers = build(kernel, parameters, TrainConfig(max_steps=1, optimizer="muon"))
    names = {id(parameter): name for name, parameter in parameters.items()}
    owners: dict[str, str] = {}
    for part in optimizers.parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                assert name not in owners, f"{name} is in two groups"
                owners[name] = type(part).__name__
                assert (group["weight_decay"] > 0) == (parameter.ndim >= 2), name
    assert owners.keys() == parameters.keys()
    for name, owner in owners.items():
        hidden = ".layers." in name and parameters[name].ndim == 2
        assert owner == ("Muon" if hidden else "AdamW"), name
    assert {"Muon", "AdamW"} == set(owners.values())


def test_layer_decay_lowers_the_rate_from_the_head_to_the_embeddings() -> None:
    kernel = StubKernel()
    places = place(kernel, [name for name, _ in kernel.named_parameters()], TrainConfig(max_steps=1, layer_decay=0.5))
    rates = {name: where.rate for name, where in places.items()}
    assert rates["head.weight"] == rates["norm.weight"] == 1
    assert rates["blocks.1.weight"] == rates["blocks.1.bias"] == 0.5
    assert rates["blocks.0.weight"] == 0.25
    assert rates["embed.weight"] == 0.125


def test_freezing_by_pattern_names_modules_or_parameters() -> None:
    assert freeze(StubKernel(), ["blocks"]) == [
        "blocks.0.bias",
        "blocks.0.weight",
        "blocks.1.bias",
        "blocks.1.weight",
    ]
    assert freeze(StubKernel(), ["*.bias", "embed.weight"])[-2:] == ["head.bias", "norm.bias"]
    with pytest.raises(ConfigError, match="'encoder' matches no parameter"):
        freeze(StubKernel(), ["encoder"])


def test_muon_takes_the_steps_of_torch_up_to_its_precision() -> None:
    """torch's orthogonalises in bfloat16, ours in float32 where that is faster: hence the tolerance."""
    torch.manual_seed(0)
    ours, theirs = (nn.ParameterList([nn.Parameter(torch.randn(s)) for s in [(24, 8), (8, 24), (8, 24)]]) for _ in "ab")
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
    pairs = [(ours, Muon([{"params": list(ours)}], **options)), (theirs, torch.optim.Muon(list(theirs), **options))]
    for step in range(4):
        for parameters, optimizer in pairs:
            torch.manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape)
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=3e-3)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in [(3, 12, 40), (2, 40, 12)]:
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
