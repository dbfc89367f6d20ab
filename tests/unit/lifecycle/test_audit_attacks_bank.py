"""The calibration bank: its plan is sound, its models are made once and survive a kill, its figures are right."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import audit_bank
from audit_bank_parts import calibrating, figures, measure, plan, reporting, stage, texts, training
from audit_bank_parts.measure import Measured
from nacre.errors import DataError
from nacre.lifecycle.audit import calibration

PICO = plan.PARTS["pico"]


def always_derived(subject: Path, reference: Path) -> Measured:
    """A measure for tests: the same for every pair."""
    del subject, reference
    return Measured({"basis": 0.5}, {"basis": 0.03}, {"basis": "exact"}, verdict="DERIVED", kind="fine-tuned")


ALWAYS = f"{__name__}:always_derived"


@pytest.mark.parametrize("part", plan.PARTS.values(), ids=lambda part: part.name)
def test_sides_share_no_model_recipe_or_seed(part: plan.Part) -> None:
    specs = plan.specs(part)
    assert len({spec.name for spec in specs}) == len(specs)
    sides = {side: [spec for spec in specs if spec.side == side] for side in plan.SIDES}
    recipes = [{spec.recipe for spec in some} for some in sides.values()]
    assert not recipes[0] & recipes[1]
    for side in plan.SIDES:
        names = {spec.name for spec in sides[side]}
        found = plan.pairs(part, side)
        assert len({pair.name for pair in found}) == len(found)
        assert all({pair.source, pair.reference, pair.other or pair.source} <= names for pair in found)


def test_strangers_share_no_seed_and_twins_share_one() -> None:
    part = plan.PARTS["hour"]
    by_name = {spec.name: spec for spec in plan.specs(part)}
    for pair in plan.pairs(part, "report"):
        a, b = by_name[pair.source], by_name[pair.reference]
        if pair.group == "stranger: same recipe":
            assert (a.recipe, a.size) == (b.recipe, b.size)
        if pair.truth == "stranger":
            assert a.init_seed != b.init_seed
        if pair.truth == "shared-init":
            assert a.init_seed == b.init_seed
            assert a.order_seed != b.order_seed
        if pair.group == "stranger: same order":
            assert a.order_seed == b.order_seed


def test_the_hard_negatives_and_every_kind_are_there() -> None:
    found = plan.pairs(plan.PARTS["hour"], "report")
    groups = {pair.group for pair in found}
    assert {"stranger: same recipe", "shared init", "outputs only (cannot be seen)"} <= groups
    kinds = {kind for pair in found for kind in pair.kinds}
    from nacre.lifecycle.audit.verdict import KINDS

    assert kinds == set(KINDS) - {"trained-on"}  # of models and data sets


def test_the_page_decides_at_the_level_of_the_audit() -> None:
    from nacre.lifecycle.audit.audit import AuditOptions
    from nacre.lifecycle.audit.weights.policy import Options

    assert AuditOptions().weights_alpha == Options().alpha == reporting.ALPHA <= stage.LOOSEST


def test_a_claim_that_is_less_sure_than_the_level_is_none() -> None:
    sure = {"verdict": "DERIVED", "kind": "lora", "share": None, "rank": 4, "p_value": 0.0015}
    unsure = {**sure, "p_value": 0.004}
    open_ = {"verdict": "NO_EVIDENCE", "kind": None, "share": None, "rank": None, "p_value": 0.4}
    assert figures.at_level(sure, 0.002) == sure
    assert figures.at_level(open_, 0.002) == open_
    assert figures.at_level(unsure, 0.002) == {**unsure, "verdict": "NO_EVIDENCE", "kind": None, "rank": None}


def test_halves_share_no_text_and_held_out_texts_are_in_neither() -> None:
    first, second, kept = set(texts.half("desk", 0)), set(texts.half("desk", 1)), set(texts.held_out("desk"))
    assert first
    assert second
    assert kept
    assert not first & second
    assert not kept & (first | second)


def test_a_model_is_built_once_and_the_same_again(tmp_path: Path) -> None:
    spec = plan.bases(PICO, "calibration")[0]
    assert training.build(spec, tmp_path / "a")
    assert not training.build(spec, tmp_path / "a")
    assert training.build(spec, tmp_path / "b")
    files = [tmp_path / bank / "models" / spec.name / "model.safetensors" for bank in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    other = plan.bases(PICO, "calibration")[1]
    changed = vars(spec) | {"order_seed": other.order_seed}
    assert training.build(plan.Spec(**changed), tmp_path / "a"), "a model of another plan is made again"


def test_two_processes_do_not_build_the_same_model(tmp_path: Path) -> None:
    with measure.claimed(tmp_path / "model") as first, measure.claimed(tmp_path / "model") as second:
        assert first
        assert not second
    with measure.claimed(tmp_path / "model") as again:
        assert again


@pytest.mark.slow
def test_commands_calibrate_report_and_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "calibration.json"
    common = ["--part", "pico", "--out", str(tmp_path), "--measure", ALWAYS, "--table", str(table)]
    assert audit_bank.main(["report", *common]) == 2
    assert "calibrate" in capsys.readouterr().err
    assert audit_bank.main(["calibrate", *common]) == 0
    shipped = calibration.load(table)
    assert shipped.p_value("basis", 0.6) == (1 / (len(shipped.nulls["basis"]) + 1), "calibrated")
    capsys.readouterr()
    assert audit_bank.main(["report", *common, "--only", "stranger"]) == 0
    assert "DERIVED" in capsys.readouterr().out
    stored = sorted((tmp_path / "pico" / "pairs" / "report").glob("*.json"))
    before = [path.stat().st_mtime_ns for path in stored]
    assert audit_bank.main(["report", *common, "--only", "stranger"]) == 0
    assert [path.stat().st_mtime_ns for path in stored] == before


def test_pairs_are_measured_again_by_other_code(tmp_path: Path) -> None:
    for spec in plan.bases(PICO, "report"):
        training.build(spec, tmp_path)
    pair = plan.pairs(PICO, "report")[0]
    path = tmp_path / "pairs" / "report" / f"{pair.name}.json"
    measure.measured(pair, tmp_path, ALWAYS, "first")
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"seconds": -1}))
    assert measure.measured(pair, tmp_path, ALWAYS, "first")["seconds"] == -1
    assert measure.measured(pair, tmp_path, ALWAYS, "second")["seconds"] > 0


def row(**more: Any) -> dict[str, Any]:
    pair = {
        "name": "a~b", "group": "g", "source": "a", "reference": "b", "expected": ("NO_EVIDENCE",), "kinds": (),
        "truth": "stranger", "must": True, "share": None, "rank": None, "steps": (),
    } | more.pop("pair", {})  # fmt: skip
    plain = {
        "verdict": "NO_EVIDENCE", "kind": None, "share": None, "rank": None, "p_value": None, "reason": None,
        "counts": True, "loss_rise": None, "statistics": {}, "p_values": {}, "tiers": {}, "cpu_seconds": 1.0,
    }  # fmt: skip
    return {**plain, **more, "pair": pair}


def test_intervals_are_those_of_the_textbook() -> None:
    low, high = figures.clopper_pearson(0, 60)
    assert low == 0
    assert high == pytest.approx(0.0596, abs=1e-3)
    assert figures.clopper_pearson(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-3)
    assert figures.disjoint_bound(80) == pytest.approx(1 - 0.05 ** (1 / 40))


def test_the_bootstrap_over_models_is_wider_where_one_model_makes_all_errors() -> None:
    names = [f"m{number}" for number in range(20)]
    rows = [
        row(pair={"source": a, "reference": b}, verdict="DERIVED" if "m0" in (a, b) else "NO_EVIDENCE")
        for number, a in enumerate(names)
        for b in names[number + 1 :]
    ]
    found = figures.rate(rows, lambda one: one["verdict"] == "DERIVED")
    assert (found.hits, found.n, found.models) == (19, 190, 20)
    assert found.model_high - found.model_low > found.high - found.low


def test_a_threshold_needs_a_null_that_is_large_enough() -> None:
    null = [float(one) for one in range(100)]
    assert figures.threshold(null, 1e-2) == 99
    assert figures.threshold(null, 0.05) == 95
    assert figures.threshold(null, 1e-3) is None


def test_pages_list_every_miss_and_leave_out_destroyed_models() -> None:
    derived = {"truth": "derived", "expected": ("DERIVED",), "kinds": ("lora",)}
    rows = [
        row(pair=derived | {"name": "found"}, verdict="DERIVED", kind="lora"),
        row(pair=derived | {"name": "wrong-kind"}, verdict="DERIVED", kind="noised"),
        row(pair=derived | {"name": "missed"}),
        row(pair=derived | {"name": "destroyed"}, counts=False),
        row(pair={"name": "claimed"}, verdict="DERIVED", kind="lora"),
    ]
    text = reporting.misses(rows)
    assert all(name in text for name in ("wrong-kind", "missed", "claimed"))
    assert "destroyed" not in text
    assert "`found`" not in text
    assert "| stranger | 0 | 1 |" in reporting.confusion(rows)
    assert "1 of 1" not in reporting.shares(rows)
    named = reporting.power(rows)
    assert named[0]["n"] == 3
    assert named[0]["tpr"] == pytest.approx(2 / 3)


def test_without_a_table_the_report_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        calibrating.load(tmp_path / "none.json")
