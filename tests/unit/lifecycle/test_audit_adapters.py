"""An adapter alone: what its folder and a base can tell together, and what no file tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_kit import tokenizer

from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.audit.audit import AuditOptions, audit
from nacre.lifecycle.audit.verdict import StageVerdict

RANK = 2
TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


def drawn(seed: int) -> Kernel:
    sizes = {"hidden_size": 48, "layers": 3, "heads": 4, "ffn_size": 96, "max_positions": 64, "tied": False}
    words = tokenizer("bert")
    config = preset("llama2", vocab_size=len(words), head="lm", **sizes)
    return Kernel(config, torch.Generator().manual_seed(seed))


def shaken(kernel: Kernel, config: AdapterConfig) -> Kernel:
    adapted.attach(kernel, config, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for one in adapted.adapters(kernel).values():
            for parameter in one.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return kernel


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bases of one shape, and adapters of the first."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("base", "stranger")):
        hf.save(drawn(seed), root / name)
        tokenizer("bert").save(root / name)
    lora = AdapterConfig("lora", rank=RANK, alpha=4.0, targets=TARGETS)
    peft.save(shaken(drawn(0), lora), root / "lora")
    peft.save(shaken(drawn(0).with_head("classify", labels=("a", "b", "c"), pooling="last"), lora), root / "classify")
    peft.save(shaken(drawn(0), AdapterConfig("bottleneck", width=4)), root / "bottleneck")
    peft.save(shaken(drawn(0), lora), root / "theirs")
    (root / "theirs" / "base.json").unlink()  # as PEFT writes it
    return {one.name: one for one in root.iterdir()}


def judged(subject: Path, reference: Path, base: Path | None, **more: Any) -> StageVerdict:
    options = AuditOptions(stages=("weights",), base=base, **more)
    return audit(subject, [reference], options)[0].stages["weights"]


@pytest.mark.parametrize("name", ["lora", "classify"])
def test_an_adapter_with_its_base_is_derived_from_it(folders: dict[str, Path], name: str) -> None:
    found = judged(folders[name], folders["base"], folders["base"])
    assert found.verdict == "DERIVED", found.text
    if name == "lora":
        assert (found.kind, found.detail["numbers"]["rank"]) == ("lora", RANK)
    other = judged(folders[name], folders["stranger"], folders["base"])
    assert other.verdict == "NO_EVIDENCE", other.text


@pytest.mark.parametrize("name", ["lora", "classify"])
def test_an_adapter_of_another_base_of_the_same_shape_is_not_called_derived(
    folders: dict[str, Path], name: str
) -> None:
    """It fits, so that the sum would be derived from any base that is given: its own digest refuses that."""
    found = judged(folders[name], folders["stranger"], folders["stranger"])
    assert found.verdict == "UNTESTABLE", found.text
    assert "made for a model with other weights" in found.text
    assert "give the base" in found.text


@pytest.mark.parametrize("base", ["base", "stranger"])
@pytest.mark.parametrize("reference", ["base", "stranger"])
def test_without_a_digest_nothing_is_decided(folders: dict[str, Path], base: str, reference: str) -> None:
    found = judged(folders["theirs"], folders[reference], folders[base])
    assert (found.verdict, found.kind, found.power) == ("INCONCLUSIVE", None, None)
    assert "tells for which weights it was made" in found.text
    assert "merge them" in found.text


def test_without_its_base_it_says_what_is_lacking(folders: dict[str, Path]) -> None:
    found = judged(folders["lora"], folders["base"], None)
    assert found.verdict == "UNTESTABLE"
    assert "without its base" in found.text
    assert "--base" in found.text


def test_what_stays_beside_the_weights_is_refused(folders: dict[str, Path]) -> None:
    """Its tensors are no weights of the model: the rest would be the base, value for value."""
    found = judged(folders["bottleneck"], folders["base"], folders["base"])
    assert found.verdict == "UNTESTABLE", found.text
    assert "BOTTLENECK" in found.text
    assert "audit its base" in found.text


def test_a_base_named_in_the_config_is_found(folders: dict[str, Path], tmp_path: Path) -> None:
    kernel = shaken(drawn(0), AdapterConfig("lora", rank=RANK, targets=TARGETS))
    peft.save(kernel, tmp_path / "named", base=str(folders["base"]))
    assert judged(tmp_path / "named", folders["base"], None).verdict == "DERIVED"


@pytest.mark.parametrize("told", ["[]", "{", '{"base": 7}', '{"base": "kernel:sha256:00"}'])
def test_a_digest_that_is_none_decides_nothing(folders: dict[str, Path], tmp_path: Path, told: str) -> None:
    for file in folders["lora"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "base.json").write_text(told)
    found = judged(tmp_path, folders["base"], folders["base"])
    assert found.verdict == ("UNTESTABLE" if "sha256" in told else "INCONCLUSIVE"), found.text


def test_the_sentences_are_in_chinese_too(folders: dict[str, Path]) -> None:
    options = AuditOptions(stages=("weights",), base=folders["stranger"], language="zh")
    [pair] = audit(folders["lora"], [folders["stranger"]], options)
    assert "并非为" in pair.summary, json.dumps(pair.summary, ensure_ascii=False)
