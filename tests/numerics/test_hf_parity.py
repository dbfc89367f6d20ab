"""Checkpoints of `transformers` give the same logits in a kernel, and a kernel's the same in `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import transformers as hf
from hf_tiny import CASES, Case, difference, inputs, kernel_logits, shake, theirs_logits

from nacre.kernel import hf as checkpoint
from nacre.kernel.model import Kernel

TOLERANCE = 1e-4
DECODERS = {name for name, case in CASES.items() if case.preset not in ("bert", "roberta", "ernie", "vit")}


def strictly(case: Case, folder: Path) -> Any:
    """Loads through the class of `transformers`; fails if any key is missing, left over or of another shape."""
    model, report = case.model.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_their_checkpoint_gives_the_same_logits_here(name: str, tmp_path: Path, record_property: Any) -> None:
    case = CASES[name]
    model = case.build()
    model.save_pretrained(tmp_path)
    kernel = checkpoint.load(tmp_path)
    assert kernel.config.head == case.head
    worst = 0.0
    for left in (False, True) if name in DECODERS else (False,):
        given = inputs(case, left=left)
        worst = max(worst, difference(kernel_logits(kernel, given), theirs_logits(model, case, given)))
    record_property("worst", worst)
    assert worst < TOLERANCE


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_our_checkpoint_loads_strictly_there_with_the_same_logits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.build().save_pretrained(tmp_path / "theirs")
    config = checkpoint.load_config(tmp_path / "theirs")
    torch.manual_seed(3)
    kernel = Kernel(config).eval()
    shake(kernel)
    checkpoint.save(kernel, tmp_path / "ours")
    model = strictly(case, tmp_path / "ours")
    given = inputs(case)
    worst = difference(kernel_logits(kernel, given), theirs_logits(model, case, given))
    assert worst < TOLERANCE
    again = checkpoint.load(tmp_path / "ours")
    assert again.config == config
    assert difference(kernel_logits(again, given), kernel_logits(kernel, given)) == 0.0


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("-lm") or name.endswith("-mlm")])
def test_the_auto_classes_find_the_architecture(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.build().save_pretrained(tmp_path / "theirs")
    checkpoint.save(checkpoint.load(tmp_path / "theirs"), tmp_path / "ours")
    auto: Any = {"mlm": hf.AutoModelForMaskedLM, "lm": hf.AutoModelForCausalLM}[case.head]
    if case.preset.startswith("t5"):
        auto = hf.AutoModelForSeq2SeqLM
    model, report = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(model) is case.model
    assert not any(report.values())
