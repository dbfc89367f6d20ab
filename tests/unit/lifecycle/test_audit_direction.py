"""Who was first: what is lost cannot come back, and nothing else is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nacre.lifecycle.audit.attacks.rounding import _grid
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.weights.direction import is_pruning, is_rounding, told


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
