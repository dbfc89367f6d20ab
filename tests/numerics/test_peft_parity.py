"""Adapters in PEFT's format: PEFT reads ours with the same logits, we read PEFT's, in every kind of layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_tiny import CASES, Case, difference, inputs, kernel_logits, theirs_logits
from safetensors.torch import load_file, save_file

from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft, places
from nacre.kernel.adapters.config import LoraConfig
from nacre.kernel.model import Kernel

theirs = pytest.importorskip("peft")

NAMES = (
    "bert-none", "bert-classify", "bert-tag", "bert-mlm", "roberta-classify", "gpt2-lm", "gpt2-classify", "gpt2-none",
    "llama2-lm", "llama2-classify", "qwen3-tag", "t5-lm", "t5-v1.1-lm", "vit-classify",
)  # fmt: skip
TASKS = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS", "none": "FEATURE_EXTRACTION", "lm": "CAUSAL_LM"}
# A narrow and a wide choice of modules, as each side names them.
ALL_LINEAR = {
    "bert": ["query", "key", "value", "intermediate.dense"],
    "roberta": ["query", "value", "intermediate.dense"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama2": ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"],
    "qwen3": ["q_proj", "v_proj", "up_proj"],
    "t5": ["q", "k", "v", "o", "wi", "wo"],
    "t5-v1.1": ["q", "v", "wi_0", "wo"],
    "vit": ["q_proj", "v_proj", "o_proj", "fc1"],
}


def folders(case: Case, place: Path) -> Path:
    """The base model in a folder that both sides read."""
    case.build().save_pretrained(place / "base")
    return place / "base"


def shaken(kernel: Kernel, seed: int = 3) -> None:
    """Adapters that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in adapted.adapters(kernel).values():
            adapter.a.normal_(0, 0.2, generator=generator)
            adapter.b.normal_(0, 0.2, generator=generator)
        for parameter in places.head_parameters(kernel).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def task_type(case: Case) -> str | None:
    if case.preset == "vit":  # PEFT has no task of images
        return None
    return "SEQ_2_SEQ_LM" if case.preset.startswith("t5") else TASKS.get(case.head)


@pytest.mark.parametrize("targets", [(), ("*.attention.q", "*.attention.v", "*.ffn.*")], ids=["default", "wide"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_peft_reads_our_adapters_with_the_same_logits(name: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    case = CASES[name]
    base = folders(case, tmp_path)
    kernel, given = hf.load(base), inputs(case)
    before = kernel_logits(kernel, given)
    adapted.attach(kernel, LoraConfig(rank=3, alpha=6.0, targets=targets))
    shaken(kernel)
    ours = kernel_logits(kernel, given)
    assert difference(ours, before) > 1e-2
    peft.save(kernel, tmp_path / "adapter")
    model = theirs.PeftModel.from_pretrained(case.model.from_pretrained(base), tmp_path / "adapter").eval()
    read = theirs.get_peft_model_state_dict(model)
    written = json.loads((tmp_path / "adapter" / peft.CONFIG).read_text())
    assert len(read) >= 2 * len(written["target_modules"]) > 0
    assert difference(ours, theirs_logits(model, case, given)) < 1e-4
    again = hf.load(base)
    # Where their class joins q, k and v, a part without an adapter comes back with one of zeros.
    assert set(peft.load(again, tmp_path / "adapter")) >= set(adapted.adapters(kernel))
    assert difference(ours, kernel_logits(again, given)) < 1e-5


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "lora_dropout": 0.1}, "patterns"], ids=str)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_we_read_pefts_adapters_with_the_same_logits(name: str, options: Any, tmp_path: Path) -> None:
    case = CASES[name]
    base = folders(case, tmp_path)
    modules = ALL_LINEAR[case.preset]
    if options == "patterns":
        options = {"rank_pattern": {modules[0]: 2, f"1.*{modules[-1]}": 6}, "alpha_pattern": {modules[-1]: 5}}
    config = theirs.LoraConfig(
        task_type=task_type(case), r=4, lora_alpha=12, target_modules=modules, init_lora_weights=False, **options
    )
    model = theirs.get_peft_model(case.model.from_pretrained(base), config).eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.save_pretrained(tmp_path / "adapter")
    kernel, given = hf.load(base), inputs(case)
    peft.load(kernel, tmp_path / "adapter")
    expected = theirs_logits(model, case, given)
    assert difference(kernel_logits(kernel, given), expected) < 1e-4
    peft.save(kernel, tmp_path / "again")
    model = theirs.PeftModel.from_pretrained(case.model.from_pretrained(base), tmp_path / "again").eval()
    assert difference(expected, theirs_logits(model, case, given)) < 1e-4
    adapted.fold(kernel)
    hf.save(kernel, tmp_path / "folded")
    folded = case.model.from_pretrained(tmp_path / "folded").eval()
    assert difference(expected, theirs_logits(folded, case, given)) < 1e-4


def test_an_adapter_of_a_joined_matrix_keeps_its_rank(tmp_path: Path) -> None:
    """Three parts that read the same A are written as one adapter of that rank, not of three times it."""
    case = CASES["gpt2-lm"]
    base = folders(case, tmp_path)
    config = theirs.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"], init_lora_weights=False)
    theirs.get_peft_model(case.model.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    kernel = hf.load(base)
    peft.load(kernel, tmp_path / "adapter")
    peft.save(kernel, tmp_path / "again")
    assert json.loads((tmp_path / "again" / peft.CONFIG).read_text())["r"] == 4


@pytest.mark.parametrize(
    "options",
    [
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [(0, 2)]},
    ],
    ids=lambda one: next(iter(one)),
)
def test_what_these_adapters_cannot_express_is_refused_with_the_reason(options: Any, tmp_path: Path) -> None:
    case = CASES["llama2-lm"]
    base = folders(case, tmp_path)
    given = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]} | options
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / peft.CONFIG).write_text(json.dumps(given))
    with pytest.raises(CheckpointError, match=next(iter(options))):
        peft.load(hf.load(base), tmp_path / "adapter")


def test_every_field_that_peft_writes_by_default_is_known(tmp_path: Path) -> None:
    case = CASES["bert-classify"]
    base = folders(case, tmp_path)
    theirs.get_peft_model(case.model.from_pretrained(base), theirs.LoraConfig(task_type="SEQ_CLS")).save_pretrained(
        tmp_path / "adapter"
    )
    kernel = hf.load(base)
    assert len(peft.load(kernel, tmp_path / "adapter")) == 6
    with pytest.raises(CheckpointError, match="classifier"):
        peft.load(hf.load(base).with_head("tag", labels=("a", "b")), tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="belongs to nothing"):
        peft.load(hf.load(base).with_head("none"), tmp_path / "adapter")


@torch.no_grad()
def test_an_adapter_of_images_under_the_names_on_disk_is_read_too(tmp_path: Path) -> None:
    """As versions of `transformers` before 5 named the modules of a ViT."""
    base = folders(CASES["vit-classify"], tmp_path)
    kernel, given = hf.load(base), inputs(CASES["vit-classify"])
    adapted.attach(kernel, LoraConfig(targets=("*.attention.q", "*.ffn.*")))
    shaken(kernel)
    peft.save(kernel, tmp_path / "adapter")
    file = tmp_path / "adapter" / peft.WEIGHTS
    old = {
        "vit.layers": "vit.encoder.layer", "attention.q_proj": "attention.attention.query",
        "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    }  # fmt: skip
    tensors = {}
    for name, value in load_file(file).items():
        for new, former in old.items():
            name = name.replace(new, former)
        tensors[name] = value
    assert sum("attention.attention.query" in name for name in tensors) == 2 * kernel.config.layers
    save_file(tensors, file)
    again = hf.load(base)
    peft.load(again, tmp_path / "adapter")
    assert difference(kernel_logits(kernel, given), kernel_logits(again, given)) < 1e-6
