"""PEFT as the oracle in float64: DoRA, prefixes and prompts, in kernels and beside models of `transformers`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_tiny import CASES, Case, difference, inputs, kernel_logits, theirs_logits

from nacre.errors import CheckpointError, ConfigError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig

theirs = pytest.importorskip("peft")

LORAS = {
    "lora": AdapterConfig("lora", rank=3, alpha=6.0),
    "rslora": AdapterConfig("lora", rank=3, alpha=6.0, rslora=True),
    "dora": AdapterConfig("lora", rank=3, alpha=6.0, dora=True),
}
LEADING = {"prefix": AdapterConfig("prefix", tokens=4), "prompt": AdapterConfig("prompt", tokens=3)}
TASKS = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS", "none": "FEATURE_EXTRACTION", "lm": "CAUSAL_LM"}
CLOSE = 1e-6


def task_of(case: Case) -> str | None:
    return "SEQ_2_SEQ_LM" if case.preset.startswith("t5") else TASKS.get(case.head)


def base_of(case: Case, place: Path) -> Path:
    case.build().save_pretrained(place / "base")
    return place / "base"


def double(case: Case, base: Path) -> Any:
    """The model of `transformers` in float64 throughout: its RMS norms would compute in float32."""
    model = case.model.from_pretrained(base).double().eval()
    for name, one in list(model.named_modules()):
        if type(one).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "T5LayerNorm"):
            exact = torch.nn.RMSNorm(one.weight.shape[0], eps=one.variance_epsilon).double().eval()
            exact.weight = one.weight
            model.set_submodule(name, exact)
    return model


def shake(module: torch.nn.Module, seed: int = 3) -> None:
    """An adapter, and a head, that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
                parameter.copy_(parameter.float())  # as PEFT makes its parts, before they are lowered or raised


def read_by_peft(case: Case, base: Path, folder: Path) -> Any:
    return theirs.PeftModel.from_pretrained(double(case, base), folder, autocast_adapter_dtype=False).double().eval()


def whole(case: Case) -> dict[str, Any]:
    """Two texts without padding."""
    given = inputs(case)
    ids = torch.randint(6, 60, (2, 15), generator=torch.Generator().manual_seed(8))
    if case.head == "none":
        given.pop("token_types", None)  # PEFT passes none on to a model without a task
    return given | {"ids": ids, "mask": torch.ones(2, 15, dtype=torch.bool)}


def peft_logits(model: Any, case: Case, given: dict[str, Any]) -> list[torch.Tensor]:
    """Of the text: PEFT gives the states of prompts too, where each position has one."""
    named = {"input_ids": given["ids"], "attention_mask": given["mask"].long()}
    named |= {"token_type_ids": given["token_types"]} if "token_types" in given else {}
    named |= {"decoder_input_ids": given["decoder_ids"]} if "decoder_ids" in given else {}
    output = model(**named)
    logits = output.last_hidden_state if case.head == "none" else output.logits
    return [logits if "decoder_ids" in given else logits[:, -given["ids"].shape[1] :]]


@pytest.mark.parametrize("way", [*LORAS])
@pytest.mark.parametrize("name", ["bert-classify", "roberta-classify", "gpt2-lm", "llama2-lm", "t5-lm"])
@torch.no_grad()
def test_low_rank_both_ways(name: str, way: str, tmp_path: Path) -> None:
    case = CASES[name]
    base, given = base_of(case, tmp_path), inputs(case)
    kernel = hf.load(base).double()
    adapted.attach(kernel, LORAS[way])
    shake(kernel)
    peft.save(kernel, tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / peft.CONFIG).read_text())
    assert (written["use_rslora"], written["use_dora"]) == (way == "rslora", way == "dora")
    model = read_by_peft(case, base, tmp_path / "ours")
    assert difference(kernel_logits(kernel, given), theirs_logits(model, case, given)) < CLOSE
    shake(model, 5)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            parameter.add_(0.01)
    model.save_pretrained(tmp_path / "theirs")
    again = hf.load(base).double()
    peft.load(again, tmp_path / "theirs")
    assert difference(kernel_logits(again, given), theirs_logits(model, case, given)) < CLOSE
    adapted.fold(again)
    assert difference(kernel_logits(again, given), theirs_logits(model, case, given)) < CLOSE


@pytest.mark.parametrize("way", [*LEADING])
@pytest.mark.parametrize("name", ["bert-none", "bert-tag", "roberta-none", "gpt2-lm", "llama2-lm", "qwen3-lm", "t5-lm"])
@torch.no_grad()
def test_what_stands_before_the_text_both_ways(name: str, way: str, tmp_path: Path) -> None:
    case, length = CASES[name], LEADING[way].tokens
    if name == "t5-lm":  # PEFT takes both stacks to be as deep
        case = replace(case, sizes=case.sizes | {"num_layers": 3})
    base, given = base_of(case, tmp_path), whole(case)
    model = theirs.get_peft_model(double(case, base), leading_config(way, case, length))
    model = model.double().eval()
    shake(model)
    model.save_pretrained(tmp_path / "theirs")
    kernel = hf.load(base).double()
    peft.load(kernel, tmp_path / "theirs")
    expected = peft_logits(model, case, given)
    assert difference(kernel_logits(kernel, given), expected) < CLOSE
    if (name, way) == ("t5-lm", "prefix"):
        return
    peft.save(kernel, tmp_path / "ours")
    found = peft_logits(read_by_peft(case, base, tmp_path / "ours"), case, given)
    assert difference(found, expected) < CLOSE


def leading_config(way: str, case: Case, length: int) -> Any:
    made = theirs.PrefixTuningConfig if way == "prefix" else theirs.PromptTuningConfig
    # T5's heads are not as wide together as its hidden states, which PEFT takes for granted.
    wide = {"token_dim": 24} if case.preset == "t5" and way == "prefix" else {}
    return made(task_type=task_of(case), num_virtual_tokens=length, **wide)


@pytest.mark.parametrize("way", [*LORAS, "bottleneck", "bias"])
@pytest.mark.parametrize("name", ["bert-classify", "gpt2-lm", "llama2-lm", "t5-lm"])
@torch.no_grad()
def test_layers_of_a_transformers_model(name: str, way: str, tmp_path: Path) -> None:
    case = CASES[name]
    base, given = base_of(case, tmp_path), inputs(case)
    model = double(case, base)
    plain = theirs_logits(model, case, given)
    config = LORAS.get(way) or AdapterConfig(way, **({"width": 6} if way == "bottleneck" else {}))  # type: ignore[arg-type]
    if way == "bias" and name in ("llama2-lm", "t5-lm"):
        with pytest.raises(ConfigError, match="no module with a bias"):
            adapted.attach(model, config)
        return
    adapted.attach(model, config)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(adapted.is_adapter(key))
    shake(model)
    changed = theirs_logits(model, case, given)
    assert difference(changed, plain) > 1e-2
    with adapted.disabled(model):
        assert difference(theirs_logits(model, case, given), plain) == 0
    peft.save(model, tmp_path / "ours")
    again = double(case, base)
    peft.load(again, tmp_path / "ours")
    assert difference(theirs_logits(again, case, given), changed) == 0
    kernel = hf.load(base).double()
    if way in LORAS:
        assert difference(theirs_logits(read_by_peft(case, base, tmp_path / "ours"), case, given), changed) < CLOSE
        peft.load(kernel, tmp_path / "ours")  # the names are the same
        assert difference(kernel_logits(kernel, given), changed) < CLOSE
    if way != "bottleneck":
        adapted.fold(again)
        assert difference(theirs_logits(again, case, given), changed) < CLOSE
    other = double(case, base)
    next(other.parameters()).add_(1.0)
    with pytest.raises(CheckpointError, match="other weights"):
        peft.load(other, tmp_path / "ours")


@pytest.mark.parametrize("way", [*LEADING])
@pytest.mark.parametrize("name", ["bert-none", "gpt2-lm", "llama2-lm", "t5-lm"])
@torch.no_grad()
def test_before_the_text_of_a_transformers_model(name: str, way: str, tmp_path: Path) -> None:
    case = CASES[name]
    base, given = base_of(case, tmp_path), whole(case)
    model = double(case, base)
    plain = theirs_logits(model, case, given)
    adapted.attach(model, LEADING[way])
    shake(model)
    changed = theirs_logits(model, case, given)
    assert difference(changed, plain) > 1e-2
    with adapted.disabled(model):
        assert difference(theirs_logits(model, case, given), plain) == 0
    if (name, way) == ("t5-lm", "prefix"):
        with pytest.raises(CheckpointError, match="PEFT has one prefix"):
            peft.save(model, tmp_path / "ours")
        return
    peft.save(model, tmp_path / "ours")
    found = peft_logits(read_by_peft(case, base, tmp_path / "ours"), case, given)
    assert difference(found, changed) < CLOSE
    kernel = hf.load(base).double()
    peft.load(kernel, tmp_path / "ours")
    assert difference(kernel_logits(kernel, given), changed) < CLOSE
    again = double(case, base)
    peft.load(again, tmp_path / "ours")
    assert difference(theirs_logits(again, case, given), changed) == 0


@pytest.mark.parametrize("way", [*LORAS, *LEADING])
@torch.no_grad()
def test_transformers_writes_with_an_adapter_what_peft_writes(way: str, tmp_path: Path) -> None:
    case = CASES["gpt2-lm"]
    base = base_of(case, tmp_path)
    model = double(case, base)
    adapted.attach(model, LORAS.get(way) or LEADING[way])
    shake(model)
    peft.save(model, tmp_path / "ours")
    ids = torch.tensor([[5, 6, 7, 8]])
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    expected = read_by_peft(case, base, tmp_path / "ours").generate(input_ids=ids, **options)
    assert torch.equal(model.generate(ids, **options), expected)


def test_the_first_state_of_a_prompt_is_no_first_token(tmp_path: Path) -> None:
    """PEFT classifies a BERT by the first position, which is then a learnt one."""
    kernel = hf.load(base_of(CASES["bert-classify"], tmp_path))
    adapted.attach(kernel, LEADING["prompt"])
    with pytest.raises(CheckpointError, match="other logits"):
        peft.save(kernel, tmp_path / "ours")


@pytest.mark.parametrize("name", ["llama2-lm", "qwen2-lm", "gpt2-lm"])
@torch.no_grad()
def test_trap_48_peft_reads_embeddings_that_were_trained_beside_the_adapter(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    base, given = base_of(case, tmp_path), inputs(case)
    kernel = hf.load(base).double()
    adapted.attach(kernel, AdapterConfig("lora", rank=2, train=("embed.tokens",)))
    shake(kernel)
    peft.save(kernel, tmp_path / "ours")
    found = theirs_logits(read_by_peft(case, base, tmp_path / "ours"), case, given)
    assert difference(kernel_logits(kernel, given), found) < CLOSE
