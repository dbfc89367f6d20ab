"""The verdict on weights: families of tiny decoders, what was done to them, and what cannot be tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_models import Arrays, ArraySource, Trainer, canonical_arrays, side_of

from nacre.kernel.model import Kernel
from nacre.lifecycle.audit.attacks.catalogue import ATTACKS
from nacre.lifecycle.audit.attacks.model import Model
from nacre.lifecycle.audit.calibration import Calibration, shipped
from nacre.lifecycle.audit.verdict import StageVerdict
from nacre.lifecycle.audit.weights.policy import Options, decide

# Scores of unrelated pairs are all but normal; the shipped table is measured, this one is drawn.
_NULL = tuple(sorted(np.random.default_rng(0).normal(size=2000).tolist()))
OPTIONS = Options(calibration=Calibration({"invariant": _NULL, "body": _NULL}))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernel]:
    torch.set_num_threads(1)
    trainer = Trainer(tmp_path_factory.mktemp("family"), layers=3)
    start = trainer.fresh(0)
    parent = trainer.tuned(start, 45, seed=1, lr=1e-2)
    return {
        "parent": parent,
        "stranger": trainer.tuned(trainer.fresh(1), 45, seed=1, lr=1e-2),
        "twin": trainer.tuned(start, 45, seed=2, lr=1e-2),
        "child": trainer.tuned(parent, 10, seed=3, lr=3e-3),
    }


def judged(arrays: Arrays, reference: Arrays, **choices: object) -> StageVerdict:
    ids = np.arange(min(len(arrays[None, "embedding"]), len(reference[None, "embedding"])))
    return decide(side_of(arrays, ids), side_of(reference, ids), replace(OPTIONS, **choices))  # type: ignore[arg-type]


def attacked(kernel: Kernel, name: str) -> Arrays:
    return canonical_arrays(ATTACKS[name].apply(Model.of(kernel), 5).kernel())


def test_a_copy_is_identical(family: dict[str, Kernel]) -> None:
    arrays = canonical_arrays(family["parent"])
    assert judged(arrays, arrays).verdict == "IDENTICAL"


def test_a_stranger_of_the_same_recipe_gives_no_evidence_and_says_what_was_not_tested(
    family: dict[str, Kernel],
) -> None:
    found = judged(canonical_arrays(family["stranger"]), canonical_arrays(family["parent"]))
    assert found.verdict == "NO_EVIDENCE"
    assert found.power
    assert any("distillation" in one for one in found.not_tested)


def test_a_tuned_child_is_derived_and_a_twin_of_the_start_is_not(family: dict[str, Kernel]) -> None:
    parent = canonical_arrays(family["parent"])
    child, twin = (judged(canonical_arrays(family[name]), parent) for name in ("child", "twin"))
    assert (child.verdict, child.kind) == ("DERIVED", "fine-tuned")
    assert twin.verdict == "SHARED_INIT"
    assert child.detail["control"] == {**child.detail["control"], "ran": True, "fired": False}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("permute-hidden", "renamed"),
        ("fold-gains", "renamed"),
        ("rotate-hidden", "renamed"),
        ("permute-neurons", "renamed"),
        ("all-bases", "renamed"),
        ("int4", "quantized"),
        ("float8", "quantized"),
        ("2:4", "pruned"),
        ("prune-0.7", "pruned"),
        ("noise-0.1", "noised"),
        ("narrow-0.25", "width-changed"),
        ("drop-layer", "depth-changed"),
        ("stack-layers", "depth-changed"),
        ("grow-vocabulary", "vocabulary-extended"),
        ("new-embedding", "re-embedded"),
    ],
)
def test_what_was_done_is_named(family: dict[str, Kernel], name: str, kind: str) -> None:
    found = judged(attacked(family["parent"], name), canonical_arrays(family["parent"]))
    assert (found.verdict, found.kind) == ("DERIVED", kind), found.text


def test_the_same_changes_to_a_stranger_make_no_relative_of_it(family: dict[str, Kernel]) -> None:
    parent = canonical_arrays(family["parent"])
    for name in ("all-bases", "int4", "2:4", "drop-layer", "grow-vocabulary"):
        found = judged(attacked(family["stranger"], name), parent)
        assert found.verdict == "NO_EVIDENCE", (name, found.text)


def test_a_merged_adapter_has_its_rank(family: dict[str, Kernel]) -> None:
    parent, draw = canonical_arrays(family["parent"]), np.random.default_rng(3)
    child = dict(parent)
    for layer in range(3):
        for role in ("q", "v", "gate", "up", "down"):
            rows, columns = parent[layer, role].shape
            low = draw.normal(size=(rows, 4)) @ draw.normal(size=(4, columns)) * 0.005
            child[layer, role] = (parent[layer, role] + low).astype(np.float32)
    found = judged(child, parent)
    assert (found.kind, found.detail["numbers"]["rank"]) == ("lora", 4)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_the_share_of_a_merge_is_told(family: dict[str, Kernel], share: float) -> None:
    parent, other = canonical_arrays(family["parent"]), canonical_arrays(family["stranger"])
    found = judged({key: share * parent[key] + (1 - share) * other[key] for key in parent}, parent)
    assert (found.verdict, found.kind) == ("DERIVED", "merged")
    assert found.share == pytest.approx(share, abs=0.05)


def test_a_merged_adapter_of_half_the_rank_has_its_rank(family: dict[str, Kernel]) -> None:
    """Where half of the directions are the adapter's, the middle singular value is no noise any more."""
    parent, draw = canonical_arrays(family["parent"]), np.random.default_rng(4)
    child, rank = dict(parent), 32
    for layer in range(3):
        for role in ("q", "k", "v", "o", "gate", "up", "down"):
            rows, columns = parent[layer, role].shape
            low = draw.normal(size=(rows, rank)) @ draw.normal(size=(rank, columns)) * 0.002
            child[layer, role] = (parent[layer, role] + low).astype(np.float32)
    found = judged(child, parent)
    assert min(min(parent[0, role].shape) for role in ("k", "v")) == 2 * rank
    assert (found.kind, found.detail["numbers"]["rank"]) == ("lora", rank)


def test_an_adapter_in_another_order_of_channels_has_its_rank(family: dict[str, Kernel]) -> None:
    kernel = family["parent"]
    model, source = Model.of(kernel), torch.Generator().manual_seed(5)
    changed = {}
    for name in model.matrices():
        rows, columns = model.state[name].shape
        low = torch.randn(rows, 2, generator=source) @ torch.randn(2, columns, generator=source) * 0.01
        changed[name] = model.state[name] + low
    moved = ATTACKS["permute-hidden"].apply(model.with_state(changed), 5)
    found = judged(canonical_arrays(moved.kernel()), canonical_arrays(kernel))
    assert (found.kind, found.detail["numbers"]["rank"]) == ("lora", 2)


def test_neurons_in_any_basis_are_found_again_after_tuning(family: dict[str, Kernel]) -> None:
    found = judged(attacked(family["child"], "all-bases"), canonical_arrays(family["parent"]))
    assert (found.verdict, found.kind) == ("DERIVED", "fine-tuned")
    ups = [one for one in found.detail["delta"] if one["role"] == "up"]
    assert len(ups) == 3
    assert all(one["along"] > 0.9 for one in ups)


def test_dead_and_repeated_neurons_of_strangers_are_no_likeness(family: dict[str, Kernel]) -> None:
    """Neurons of zeros, and copies of one, are matched in their order by any two projections."""
    models = [canonical_arrays(family[name]) for name in ("stranger", "parent")]
    for arrays in models:
        for layer in range(3):
            for role in ("gate", "up"):
                arrays[layer, role] = arrays[layer, role].copy()
                half = len(arrays[layer, role]) // 2
                arrays[layer, role][:half] = 0 if layer else arrays[layer, role][0]
    found = judged(*models)
    assert found.verdict == "NO_EVIDENCE", found.text


def test_layers_without_a_living_neuron_decide_nothing_and_break_nothing(family: dict[str, Kernel]) -> None:
    models = [canonical_arrays(family[name]) for name in ("stranger", "parent")]
    for arrays in models:
        for layer in (1, 2):
            for role in ("gate", "up", "down", "q", "k", "v", "o"):
                arrays[layer, role] = np.zeros_like(arrays[layer, role])
    assert judged(*models).verdict == "NO_EVIDENCE"
    hollow = {key: np.zeros_like(one) if key[0] is not None else one for key, one in models[0].items()}
    assert judged(hollow, models[1]).verdict == "NO_EVIDENCE"


def test_roles_exchanged_by_mistake_are_settled_before_the_difference(family: dict[str, Kernel]) -> None:
    parent, child = (canonical_arrays(family[name]) for name in ("parent", "child"))
    mistaken = dict(child)
    for layer in range(3):
        mistaken[layer, "q"], mistaken[layer, "o"] = child[layer, "o"], child[layer, "q"]
    ids = np.arange(512)
    subject = side_of(mistaken, ids, ambiguous=(("o", "q"),))
    found = decide(subject, side_of(parent, ids), OPTIONS)
    assert (found.verdict, found.kind) == ("DERIVED", "fine-tuned")
    assert all(one["along"] > 0.9 for one in found.detail["delta"] if one["role"] in ("q", "o"))


def test_an_embedding_behind_a_decoy_is_found(family: dict[str, Kernel]) -> None:
    """A foreign table stands in the embedding's place, the real one without a role beside it."""
    parent = canonical_arrays(family["parent"])
    subject = side_of({**parent, (None, "embedding"): np.random.default_rng(6).normal(size=(512, 64))})
    real = ArraySource({**subject.source.arrays, "table": parent[None, "embedding"]})  # type: ignore[attr-defined]
    subject = replace(subject, source=real, canonical=replace(subject.canonical, unmapped=("table",)))
    found = decide(subject, side_of(parent), OPTIONS)
    assert (found.verdict, found.kind) == ("DERIVED", "renamed")
    assert found.evidence[0].detail["share_of_reference"] == 1


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_merge_in_one_order_of_neurons_is_no_common_start(family: dict[str, Kernel], share: float) -> None:
    """Both keep the order of neurons and a part of the reference; what is added tells them apart."""
    parent, other = canonical_arrays(family["parent"]), canonical_arrays(family["stranger"])
    merged = judged({key: share * parent[key] + (1 - share) * other[key] for key in parent}, parent)
    twin = judged(canonical_arrays(family["twin"]), parent)
    assert (merged.verdict, merged.kind) == ("DERIVED", "merged")
    assert twin.verdict == "SHARED_INIT"


def test_many_references_raise_the_p_value(family: dict[str, Kernel]) -> None:
    """A rank in the bank is no match for fifty references; its tail may be, and then the verdict says so."""
    turned, parent = attacked(family["parent"], "rotate-hidden"), canonical_arrays(family["parent"])
    one, many = judged(turned, parent), judged(turned, parent, references=50)
    assert (one.verdict, one.tier) == ("DERIVED", "calibrated")
    assert (many.verdict, many.tier) == ("DERIVED", "extrapolated")
    assert many.p_value is not None
    assert many.p_value >= 50 * 1e-5


def test_a_bank_without_a_tail_leaves_many_references_open(family: dict[str, Kernel]) -> None:
    """Fewer than ten of the highest tenth make no tail."""
    turned, parent = attacked(family["parent"], "rotate-hidden"), canonical_arrays(family["parent"])
    table = OPTIONS.calibration
    assert table is not None
    few = replace(table, nulls={name: tuple(values[-99:]) for name, values in table.nulls.items()})
    one = judged(turned, parent, calibration=few, alpha=0.05)
    many = judged(turned, parent, calibration=few, alpha=0.05, references=50)
    assert one.verdict == "DERIVED"
    assert many.verdict == "INCONCLUSIVE"
    assert many.p_value == pytest.approx(min(1.0, 50 * (one.p_value or 0)))


def test_without_a_table_the_invariant_test_does_not_decide(family: dict[str, Kernel]) -> None:
    turned = attacked(family["parent"], "rotate-hidden")
    found = judged(turned, canonical_arrays(family["parent"]), calibration=Calibration())
    assert found.verdict == "INCONCLUSIVE"
    assert "calibration" in (found.reason or "")


def test_a_control_that_fires_voids_the_stage(family: dict[str, Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    from nacre.lifecycle.audit.weights import policy

    monkeypatch.setattr(policy, "control_of", lambda side, seed: side)
    found = judged(canonical_arrays(family["child"]), canonical_arrays(family["parent"]))
    assert found.verdict == "INCONCLUSIVE"
    assert found.detail["control"]["fired"] is True


def test_what_cannot_be_tested_says_why(family: dict[str, Kernel]) -> None:
    parent, child = canonical_arrays(family["parent"]), canonical_arrays(family["child"])
    broken = {**child, (1, "up"): np.full_like(child[1, "up"], np.nan)}
    assert "not finite" in (judged(broken, parent).reason or "")
    single = {key: values for key, values in child.items() if key[0] in (None, 0)}
    assert "single layer" in (judged(single, parent).reason or "")
    plain = {key: values for key, values in child.items() if key[1] != "gate"}
    assert "gated" in (judged(plain, parent).reason or "")
    encoder = decide(side_of(child, layout="encoder"), side_of(parent), OPTIONS)
    assert "architectures" in (encoder.reason or "")
    foreign = decide(
        replace(side_of(canonical_arrays(family["stranger"])), tokens=None),
        replace(side_of(parent), tokens=None),
        OPTIONS,
        notes=["the tokenizers share 0 tokens"],
    )
    assert (foreign.verdict, "share 0 tokens" in (foreign.reason or "")) == ("UNTESTABLE", True)


def test_experts_made_of_one_feed_forward_are_found(family: dict[str, Kernel]) -> None:
    parent, draw = canonical_arrays(family["parent"]), np.random.default_rng(1)
    child = {key: values for key, values in parent.items() if key[1] not in ("gate", "up", "down")}
    for layer in range(3):
        for expert in range(3):
            for role in ("gate", "up", "down"):
                noise = draw.normal(size=parent[layer, role].shape) * 0.05 * parent[layer, role].std()
                child[layer, f"{role}.{expert}"] = (parent[layer, role] + noise).astype(np.float32)
    found = judged(child, parent)
    assert (found.verdict, found.kind) == ("DERIVED", "upcycled")


def test_the_shipped_table_can_decide_at_the_level_of_the_audit() -> None:
    """By the least rank, corrected for the tests, or where a test has too few pairs for that by its tail."""
    table, share = shipped(), (1 - 2 * 0.01) / 2
    for test in ("invariant", "body"):
        far = 2 * table.nulls[test][-1]
        rank, tier = table.p_value(test, far)
        tail = table.tail(test, far)
        assert tier == "calibrated"
        assert rank is not None
        assert tail is not None
        assert min(rank, 10 * tail) / share <= Options().alpha
    assert table.caught() is not None


def test_a_stack_in_another_basis_under_another_embedding_is_found_by_its_own_axes(family: dict[str, Kernel]) -> None:
    model = Model.of(family["parent"])
    turned = ATTACKS["rotate-hidden"].apply(ATTACKS["new-embedding"].apply(model, 3), 4)
    found = judged(canonical_arrays(turned.kernel()), canonical_arrays(family["parent"]), calibration=shipped())
    assert (found.verdict, found.kind, found.tier) == ("DERIVED", "re-embedded", "extrapolated")
    assert next(one for one in found.evidence if one.test == "invariant").value < 4  # type: ignore[operator]
