"""Several references at once: shares of a merge, what is no merge, many strangers and one parent, bytes read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import nacre.lifecycle.audit.audit as assembly
from nacre.lifecycle.audit.audit import AuditOptions, Opened, audit, open_side
from nacre.lifecycle.audit.result import as_object
from nacre.lifecycle.audit.verdict import Pair
from nacre.lifecycle.audit.weights.entrywise import HIT, entrywise
from nacre.lifecycle.audit.weights.mixture import EXPLAINED, Matrix, Mixture, Row, interval, solve
from nacre.lifecycle.audit.weights.side import Kept

Arrays = Mapping[str, Any]
NAMES = ["base", "a", "b"]
ONLY = AuditOptions(stages=("weights",))


def changes(seed: int, count: int = 6, size: int = 3000) -> tuple[list[Any], list[Any], list[Any]]:
    """Matrices of a base and of two models tuned from it."""
    draw = np.random.default_rng(seed)
    base = [draw.standard_normal(size) for _ in range(count)]
    first, second = ([one + scale * draw.standard_normal(size) for one in base] for scale in (0.2, 0.3))
    return base, first, second


def solved(subject: list[Any], *references: list[Any], names: list[str] = NAMES) -> Mixture:
    rows = [
        Row.of(Matrix(layer, "up", np.stack(one))) for layer, one in enumerate(zip(subject, *references, strict=True))
    ]
    found = solve(rows, names[-len(references) :])
    assert found is not None
    return found


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("with_base", [True, False])
def test_a_linear_merge_has_its_shares(share: float, with_base: bool) -> None:
    base, a, b = changes(1)
    subject = [share * one + (1 - share) * other for one, other in zip(a, b, strict=True)]
    found = solved(subject, *([base] if with_base else []), a, b)
    got = {one.reference: one.share for one in found.shares}
    assert found.is_merge
    assert found.explained > 0.999
    assert got["a"] == pytest.approx(share, abs=1e-3)
    assert got["b"] == pytest.approx(1 - share, abs=1e-3)
    assert [one.reference for one in found.parents] == ["a", "b"]


def test_a_scaled_sum_of_changes_is_told_over_the_base() -> None:
    base, a, b = changes(2)
    subject = [p + 0.8 * (one - p) + 0.7 * (other - p) for p, one, other in zip(base, a, b, strict=True)]
    found = solved(subject, base, a, b)
    assert (found.base, found.is_merge) == ("base", True)
    assert found.total == pytest.approx(1.5, abs=1e-3)
    assert {one.reference: round(one.share, 2) for one in found.shares} == {"base": -0.5, "a": 0.8, "b": 0.7}


def test_a_merge_of_the_base_and_one_child_is_a_merge() -> None:
    base, a, b = changes(3)
    found = solved([0.4 * p + 0.6 * one for p, one in zip(base, a, strict=True)], base, a, b)
    assert [one.reference for one in found.parents] == ["base", "a"]


def test_a_child_of_one_reference_is_no_merge() -> None:
    base, a, b = changes(4)
    draw = np.random.default_rng(9)
    found = solved([one + 0.1 * draw.standard_normal(one.size) for one in a], base, a, b)
    assert not found.is_merge
    assert found.explained < EXPLAINED / 2
    assert found.nearest == "a"


def test_a_share_that_differs_between_matrices_has_a_wide_interval() -> None:
    base, a, b = changes(5)
    shares = [0.3, 0.5, 0.4, 0.6, 0.5, 0.4]
    subject = [s * one + (1 - s) * other for s, one, other in zip(shares, a, b, strict=True)]
    found = solved(subject, base, a, b)
    one = found.shares[1]
    assert one.low is not None
    assert one.high is not None
    assert one.low < 0.4 < 0.5 < one.high
    assert one.share == pytest.approx(0.45, abs=1e-3)


def test_copies_among_the_references_are_left_out() -> None:
    base, a, b = changes(6)
    subject = [0.5 * one + 0.5 * other for one, other in zip(a, b, strict=True)]
    found = solved(subject, base, a, b, [one + 1e-4 for one in a], names=[*NAMES, "copy of a"])
    assert found.left_out == ("copy of a",) or found.left_out == ("a",)
    assert found.is_merge


def test_intervals_are_students() -> None:
    assert interval([0.4, 0.6]) == (0.5, None, None)
    mean, low, high = interval([0.4, 0.5, 0.6])
    assert low is not None
    assert high is not None
    assert (mean, round(low, 3), round(high, 3)) == (0.5, 0.252, 0.748)


def dropped(seed: int, share: float) -> list[Matrix]:
    """A merge by DARE: half of each change's entries, doubled."""
    base, a, b = changes(seed)
    draw = np.random.default_rng(seed)
    found = []
    for p, one, other in zip(base, a, b, strict=True):
        kept = [2 * (draw.random(p.size) < 0.5) for _ in range(2)]
        subject = p + share * kept[0] * (one - p) + (1 - share) * kept[1] * (other - p)
        found.append(Matrix(0, "up", np.stack([subject, p, one, other])))
    return found


def test_a_merge_of_dropped_entries_is_explained_entry_by_entry() -> None:
    matrices = dropped(7, 0.3)
    whole = solve([Row.of(one) for one in matrices], NAMES)
    assert whole is not None
    assert whole.explained < EXPLAINED
    assert whole.shares[1].share == pytest.approx(0.3, abs=0.03)
    found = entrywise(matrices, 0, [1, 2])
    assert found is not None
    assert found["hits"] > HIT
    assert found["scales"] == pytest.approx([0.6, 1.4], abs=0.01)
    assert found["dropped"] == pytest.approx([0.5, 0.5], abs=0.05)


def test_unrelated_changes_are_not_explained_entry_by_entry() -> None:
    base, a, b = changes(8)
    draw = np.random.default_rng(1)
    tuned = [Matrix(0, "up", np.stack([p + 0.2 * draw.standard_normal(p.size), p, one, other]))
             for p, one, other in zip(base, a, b, strict=True)]  # fmt: skip
    found = entrywise(tuned, 0, [1, 2])
    assert found is None or found["hits"] < HIT / 2


# From files


def arrays(seed: int, layers: int = 3, hidden: int = 48, ffn: int = 96, rows: int = 128) -> dict[str, Any]:
    draw = np.random.default_rng(seed)

    def values(*shape: int) -> Any:
        return draw.standard_normal(shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": values(rows, hidden), "model.norm.weight": 1 + 0.1 * values(hidden)}
    tensors["lm_head.weight"] = values(rows, hidden)
    for layer in range(layers):
        lead = f"model.layers.{layer}."
        tensors |= {f"{lead}self_attn.{name}_proj.weight": values(hidden, hidden) for name in "qkvo"}
        tensors |= {f"{lead}mlp.{name}_proj.weight": values(ffn, hidden) for name in ("gate", "up")}
        tensors[f"{lead}mlp.down_proj.weight"] = values(hidden, ffn)
        tensors |= {
            f"{lead}{one}.weight": 1 + 0.1 * values(hidden) for one in ("input_layernorm", "post_attention_layernorm")
        }
    return tensors


def tuned(base: Arrays, seed: int, by: float = 0.2) -> dict[str, Any]:
    noise = arrays(seed)
    return {name: (one + by * noise[name]).astype(np.float32) for name, one in base.items()}


def stored(folder: Path, tensors: Arrays) -> Path:
    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / "model.safetensors")
    hidden, rows = tensors["lm_head.weight"].shape[::-1]
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": rows,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("family")
    base = arrays(0)
    a, b = tuned(base, 1), tuned(base, 2)
    merged = {name: (0.35 * a[name] + 0.65 * b[name]).astype(np.float32) for name in a}
    found = {"base": base, "a": a, "b": b, "merged": merged, "grandchild": tuned(a, 3, 0.05)}
    return {name: stored(top / name, one) for name, one in found.items()}


def beside(pairs: list[Pair]) -> dict[str, Any]:
    return {Path(one.reference).name: one.stages["weights"] for one in pairs}


def test_a_merge_is_named_with_its_shares_beside_each_parent(family: dict[str, Path]) -> None:
    pairs = audit(family["merged"], [family["base"], family["a"], family["b"]], ONLY)
    found = beside(pairs)
    assert (found["a"].kind, found["b"].kind) == ("merged", "merged")
    assert found["a"].share == pytest.approx(0.35, abs=0.01)
    assert found["b"].share == pytest.approx(0.65, abs=0.01)
    assert found["base"].kind != "merged" or not found["base"].share
    told = found["a"].detail["mixture"]
    assert told["is_merge"]
    assert "35%" in told["words"]
    assert found["a"].detail["direction"]["basis"] == "usual"
    plain = as_object(pairs)
    assert plain["mixture"]["is_merge"]
    json.dumps(plain, allow_nan=False)


def test_a_child_of_one_of_three_is_not_called_a_merge(family: dict[str, Path]) -> None:
    found = beside(audit(family["grandchild"], [family["base"], family["a"], family["b"]], ONLY))
    assert not found["a"].detail["mixture"]["is_merge"]
    assert "no merge" in found["a"].detail["mixture"]["words"]
    assert {one.share for one in found.values() if one.kind == "merged"} <= {None}


def test_one_reference_tells_nothing_of_shares(family: dict[str, Path]) -> None:
    [pair] = audit(family["merged"], [family["a"]], ONLY)
    assert "mixture" not in pair.stages["weights"].detail
    assert as_object([pair])["mixture"] is None


def test_one_parent_is_found_among_twenty_strangers_and_none_of_them_fires(
    family: dict[str, Path], tmp_path: Path
) -> None:
    library = [stored(tmp_path / f"stranger-{seed}", arrays(100 + seed)) for seed in range(20)]
    pairs = audit(family["a"], [*library[:10], family["base"], *library[10:]], ONLY)
    assert Path(pairs[0].reference).name == "base"
    assert pairs[0].verdict == "DERIVED"
    alone = audit(family["a"], [family["base"]], ONLY)[0].stages["weights"]
    assert pairs[0].stages["weights"].p_value == pytest.approx(min(1.0, 21 * alone.p_value), rel=1e-6, abs=0)
    assert {one.verdict for one in pairs[1:]} == {"NO_EVIDENCE"}
    assert min(one.stages["weights"].p_value or 0.0 for one in pairs[1:]) > ONLY.weights_alpha


# What is read


SIZE = sum(one.nbytes for one in arrays(0).values())


def read_of_subject(monkeypatch: pytest.MonkeyPatch, subject: Path, library: list[Path]) -> tuple[list[Pair], float]:
    """The pairs, and what was read of the subject in parts of its size."""
    opened: list[Opened] = []

    def opens(ref: str | Path, options: AuditOptions) -> Opened:
        opened.append(open_side(ref, options))
        return opened[-1]

    with monkeypatch.context() as patched:
        patched.setattr(assembly, "open_side", opens)
        pairs = audit(subject, library, ONLY)
    return pairs, opened[0].bytes_read / SIZE


def test_each_further_reference_costs_less_than_one_reading_of_the_subject(
    family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = [stored(tmp_path / f"stranger-{seed}", arrays(100 + seed)) for seed in range(4)]
    read = {count: read_of_subject(monkeypatch, family["a"], library[:count])[1] for count in (1, 2, 4)}
    assert read[1] < 2
    assert read[2] - read[1] == pytest.approx((read[4] - read[2]) / 2, rel=0.01)
    assert read[2] - read[1] < 1


def test_what_is_kept_of_the_subject_changes_no_number(family: dict[str, Path], tmp_path: Path) -> None:
    library = [stored(tmp_path / f"stranger-{seed}", arrays(100 + seed)) for seed in range(3)]
    together = beside(audit(family["a"], library, ONLY))
    for reference in library:
        alone = audit(family["a"], [reference], ONLY)[0].stages["weights"]
        found = together[reference.name]
        assert [one.value for one in found.evidence] == [one.value for one in alone.evidence]


def test_what_is_kept_is_kept_for_the_same_tokens_only() -> None:
    kept, ids = Kept(), np.arange(5)
    first = kept.of(ids)
    assert kept.of(ids.copy()) is first
    assert kept.of(ids[::-1]) is not first
    assert kept.of(None) is not kept.of(ids)
    assert kept.of(ids) is not first
