"""Stage 1 on the public configs and weight indices that lie beside the shared data: groups by design, and by what."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel import canonicalise, compare, group
from nacre.lifecycle.audit.kernel.nearest import nearest
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import StageVerdict

pytestmark = pytest.mark.shared_data
UNKNOWN = {"gemma-4", "openmoe-8b"}  # a config alone, of a type that the table does not hold
NAMED = {
    "Llama": {"baichuan2-13b-chat", "gemma-2b", "granite-7b-lab", "internlm-20b", "llama-2-7b", "llama-2-7b-chat",
              "llama-7b", "mistral-7b-v0.1-sharded", "openllama-zh-en-3b", "smollm3-3b", "vicuna-7b-delta-v0",
              "wizard-vicuna-30b", "qwen-vl-chat-int4"},
    "Qwen2": {"chatglm3-6b-32k", "qwen-72b", "qwen-7b", "qwen-7b-chat-cantonese", "qwen2-audio"},
    "GPT-NeoX": {"chatglm-6b", "oasst-rm-pythia-1.4b", "oasst-sft-1-pythia-12b", "redpajama-incite-7b"},
    "Falcon": {"falcon-180b-chat", "falcon-40b"}, "Mixtral": {"dolphin-2.5-mixtral-8x7b"}, "Bloom": {"bloom-176b"},
    "Phi": {"phi-2-early"}, "StableLM": {"stable-code-3b"}, "Gemma 2": {"gemma-2-2b-finetune"},
    "Gemma 3": {"medgemma-27b"}, "M2M-100": {"sonar-text"}, "DeepSeekMoE": {"deepseek-ocr-2"},
    "CodeT5+": {"codet5p-16b"},
}  # fmt: skip


@pytest.fixture
def configs(shared_data: Path) -> Path:
    folder = shared_data.parent / "configs"
    if not folder.is_dir():
        pytest.skip(f"no shared configs at {folder}")
    return folder


@cache
def opened(folder: Path) -> tuple[dict[str, Subject], dict[str, Canonical], dict[str, str]]:
    """Subjects, the kernels that could be told, and why the others could not."""
    subjects, canonicals, reasons = {}, {}, {}
    for path in sorted(one for one in folder.iterdir() if one.is_dir()):
        try:
            subjects[path.name] = open_subject(path)
            canonicals[path.name] = canonicalise(subjects[path.name])
        except CheckpointError as error:
            reasons[path.name] = error.message
    return subjects, canonicals, reasons


def verdict(configs: Path, one: str, other: str) -> StageVerdict:
    subjects, canonicals, _ = opened(configs)
    return compare(subjects[one], subjects[other], canonicals[one], canonicals[other])


def test_all_but_two_are_told_and_those_are_named_with_the_reason(configs: Path) -> None:
    subjects, canonicals, reasons = opened(configs)
    assert len(canonicals) + len(reasons) == 75
    assert set(reasons) == UNKNOWN
    assert all("model_type" in reason for reason in reasons.values())
    assert {name for name, one in canonicals.items() if one.basis == "names"} == set().union(*NAMED.values())
    assert {name for name, one in subjects.items() if one.infos} == set().union(*NAMED.values())


def test_each_index_is_of_a_public_design_by_its_names(configs: Path) -> None:
    _, canonicals, _ = opened(configs)
    for family, members in NAMED.items():
        for name in members:
            near = nearest(canonicals[name].graph, {})
            assert (near.family, near.distance) == (family, 0), (name, near)


def test_groups_hold_exactly_those(configs: Path) -> None:
    _, canonicals, _ = opened(configs)
    assert {frozenset(one.named) for one in group(canonicals) if one.named} == {
        frozenset(one) for one in NAMED.values()
    }


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [("vicuna-7b-delta-v0", "llama-7b", "SAME_DESIGN"), ("mistral-7b-v0.1-sharded", "llama-2-7b", "SAME_DESIGN"),
     ("baichuan2-13b-chat", "llama-2-7b", "SAME_DESIGN"), ("internlm-20b", "llama-2-7b", "SAME_DESIGN"),
     ("chatglm3-6b-32k", "qwen-7b", "SAME_DESIGN"), ("chatglm-6b", "redpajama-incite-7b", "SAME_DESIGN"),
     ("qwen-7b", "llama-2-7b", "NO_EVIDENCE"), ("phi-2-early", "llama-2-7b", "NO_EVIDENCE"),
     ("stable-code-3b", "llama-2-7b", "NO_EVIDENCE"), ("dolphin-2.5-mixtral-8x7b", "mistral-7b-v0.1-sharded",
                                                       "NO_EVIDENCE")],
)  # fmt: skip
def test_pairs(configs: Path, one: str, other: str, word: str) -> None:
    assert verdict(configs, one, other).verdict == word


def test_vicuna_differs_from_llama_in_one_row_of_the_vocabulary(configs: Path) -> None:
    assert verdict(configs, "vicuna-7b-delta-v0", "llama-7b").detail["sizes"] == {"vocabulary": [32001, 32000]}


def test_qwen_1_differs_from_llama_in_three_biases(configs: Path) -> None:
    changes = verdict(configs, "qwen-7b", "llama-2-7b").detail["changes"]
    assert changes == ["+ layer: q.bias", "+ layer: k.bias", "+ layer: v.bias"]


def test_baichuan_differs_from_llama_in_one_packed_name(configs: Path) -> None:
    renamed = verdict(configs, "baichuan2-13b-chat", "llama-2-7b").detail["renamed_templates"]
    assert set(renamed) == {"model.layers.{i}.self_attn.W_pack.weight"}


def test_early_falcon_and_late_falcon_share_every_name(configs: Path) -> None:
    assert not verdict(configs, "falcon-180b-chat", "falcon-40b").detail["renamed_templates"]


def test_what_a_config_alone_says_is_declared(configs: Path) -> None:
    found = verdict(configs, "tinyllama-1.1b-chat", "llama-2-7b")
    assert found.verdict == "SAME_DESIGN"
    assert "nothing is proven" in found.text


def test_towers_beside_the_language_model_are_stacks_of_their_own(configs: Path) -> None:
    _, canonicals, _ = opened(configs)
    labels = {name: {line.split(": ")[1] for line in canonicals[name].graph if line.startswith("beside: ")}
              for name in ("medgemma-27b", "qwen2-audio", "deepseek-ocr-2", "qwen-vl-chat-int4")}  # fmt: skip
    assert labels == {"medgemma-27b": {"vision"}, "qwen2-audio": {"audio"}, "deepseek-ocr-2": {"beside", "vision"},
                      "qwen-vl-chat-int4": {"vision"}}  # fmt: skip
