"""Who was first: what is lost cannot come back, and nothing else is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nacre.lifecycle.audit.attacks.rounding import _grid
from nacre.lifecycle.audit.said import is_whole, spoken
from nacre.lifecycle.audit.sentences import summarise, summary
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.verdict import Pair, StageVerdict
from nacre.lifecycle.audit.weights.direction import Direction, is_pruning, is_rounding, told


def trained(seed: int = 0, rows: int = 96, columns: int = 128) -> Floats:
    return (np.random.default_rng(seed).standard_normal((rows, columns)) * 0.05).astype(np.float32)


def rounded(values: Floats, bits: int, group: int = 32) -> Floats:
    return _grid(torch.from_numpy(values), bits, group, symmetric=False).numpy()


def float8(values: Floats) -> Floats:
    scale = float(np.abs(values).max()) / 448
    return (torch.from_numpy(values / scale).to(torch.float8_e4m3fn).float() * scale).numpy()


def bfloat16(values: Floats) -> Floats:
    return torch.from_numpy(values).bfloat16().float().numpy()


def float16(values: Floats) -> Floats:
    return values.astype(np.float16).astype(np.float32)


def pruned(values: Floats, share: float = 0.5) -> Floats:
    return np.where(np.abs(values) < np.quantile(np.abs(values), share), 0, values).astype(np.float32)


STEPS: dict[str, Any] = {
    "int8": lambda one: rounded(one, 8),
    "int4": lambda one: rounded(one, 4),
    "int4 rows": lambda one: rounded(one, 4, 128),
    "int3": lambda one: rounded(one, 3),
    "float8": float8,
    "bfloat16": bfloat16,
    "float16": float16,
    "pruned": pruned,
}


@pytest.mark.parametrize("name", list(STEPS))
def test_what_lost_numbers_came_later_whichever_side_it_is(name: str) -> None:
    whole = trained()
    lost = STEPS[name](whole)
    forward, back = told("quantized", {}, [(whole, lost)]), told("quantized", {}, [(lost, whole)])
    assert (forward.first, forward.basis) == ("reference", "loss")
    assert (back.first, back.basis) == ("subject", "loss")


@pytest.mark.parametrize("by", [0.0005, 0.003, 0.02])
@pytest.mark.parametrize("name", list(STEPS))
def test_training_on_from_what_lost_numbers_says_nothing(name: str, by: float) -> None:
    """A tuned child of a rounded model must not pass for its source."""
    lost = STEPS[name](trained())
    child = (lost + by * np.random.default_rng(1).standard_normal(lost.shape)).astype(np.float32)
    found = told("fine-tuned", {}, [(lost, child)])
    assert (found.first, found.basis) == (None, "nothing")


def test_strangers_training_and_low_rank_say_nothing() -> None:
    one, other = trained(1), trained(2)
    draw = np.random.default_rng(3)
    low = (one + draw.standard_normal((96, 2)) @ draw.standard_normal((2, 128)) * 0.01).astype(np.float32)
    assert told("fine-tuned", {}, [(one, other)]).first is None
    assert told("lora", {}, [(one, low)]).first is None
    assert "both directions" in told("lora", {}, [(one, low)]).words
    assert not is_rounding(one, other)
    assert not is_pruning(one, pruned(other))


def test_matrices_that_disagree_say_nothing() -> None:
    whole = trained()
    assert told("pruned", {}, [(whole, pruned(whole)), (pruned(whole), whole)]).first is None


def test_merges_and_vocabularies_are_told_as_custom_has_it() -> None:
    merged = told("merged", {}, is_merge=True)
    assert (merged.first, merged.basis) == ("reference", "usual")
    assert told("merged", {}).first is None
    grown, cut = told("vocabulary-extended", {"rows": [10, 12]}), told("vocabulary-extended", {"rows": [12, 10]})
    assert (grown.first, cut.first) == ("reference", "subject")
    assert grown.basis == cut.basis == "usual"


def test_claims_are_shown_and_not_used() -> None:
    found = told("fine-tuned", {}, claims=["the subject's record is dated 2020-01-01"])
    assert found.first is None
    assert found.to_dict()["claims"] == ("the subject's record is dated 2020-01-01",)


# What is said of it


def summed(kind: str, found: Direction | None, language: str = "en") -> str:
    """The first sentence of the summary of a pair that was found related."""
    detail = {} if found is None else {"direction": found.to_dict()}
    stage = StageVerdict("weights", "DERIVED", "", kind=kind, p_value=1e-9, tier="exact", detail=detail)
    pair = Pair("/models/ours", "/models/theirs", {"weights": stage}, "DERIVED", "")
    if language == "zh":
        assert is_whole(summary(pair), "zh")
    return summarise(pair, language).split("。" if language == "zh" else ".")[0]


def test_the_summary_and_the_direction_say_the_same() -> None:
    whole = trained()
    lost = rounded(whole, 4)
    forward, back = told("quantized", {}, [(whole, lost)]), told("fine-tuned", {}, [(lost, whole)])
    assert summed("quantized", forward) == (
        "The weights of ours derive from theirs: quantized; theirs was first: ours is its weights rounded to fewer "
        "bits, which cannot be undone"
    )
    assert summed("fine-tuned", back) == (
        "The weights of ours and theirs are of one descent; ours was first: theirs is its weights rounded to fewer "
        "bits, which cannot be undone"
    )
    for found in (forward, back):
        assert "do not say" not in summed("quantized", found)
        assert "不说明" not in summed("quantized", found, "zh")


def test_where_files_cannot_tell_the_summary_says_so_in_both_languages() -> None:
    for found in (None, told("fine-tuned", {}), told("lora", {})):
        kind = "lora" if found and "low rank" in found.words else "fine-tuned"
        assert "the files do not say who was first" in summed(kind, found)
        assert "不说明孰先孰后" in summed(kind, found, "zh")


def test_custom_is_told_as_custom_with_the_names_of_the_two() -> None:
    cut = told("vocabulary-extended", {"rows": [12, 10]})
    assert "ours was first, if the vocabulary grew, as is usual; it could have been cut" in summed("fine-tuned", cut)
    assert "ours lies between them" in summed("merged", told("merged", {}, is_merge=True))
    assert "ours 介于" in summed("merged", told("merged", {}, is_merge=True), "zh")


@pytest.mark.parametrize("found", [told("lora", {}), told("merged", {}, is_merge=True), told("x", {}),
                                   told("vocabulary-extended", {"rows": [1, 2]})])  # fmt: skip
def test_each_direction_has_chinese(found: Direction) -> None:
    assert is_whole(found.words, "zh")
    assert "subject" not in spoken(found.words, "zh")
