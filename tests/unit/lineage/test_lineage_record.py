from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from nacre.errors import IntegrityError
from nacre.lineage.record import Cost, Parent, Record, fingerprint, from_dict, read, verify_record, write


def full_record() -> Record:
    """A record in which no field has its default."""
    parent = Parent(
        "trained_on", "数据@3", "sha256:aa", "CC BY 4.0", "https://example.org", "declared", "data", {"p": 1}
    )
    record = Record(
        name="a/b",
        version=4,
        kind="model",
        digest="sha256:bb",
        basis="witnessed",
        parents=(parent,),
        stage="tune.classify",
        revision=2,
        config={"lr": 2e-4, "nested": {"list": [1, None, "二"]}},
        seed=7,
        cost=Cost(1.5, 10, 2.5e9, 100.25, {"joules": 3}),
        versions={"python": "3.12"},
        machine={"cores": 2},
        metrics={"f1": 0.5, "note": "ok", "none": None},
        licence="MIT",
        created="2026-01-01T00:00:00+00:00",
        notes=("一",),
        extra={"from_the_future": {"deep": [1]}},
    )
    value = fingerprint("tune.classify", 2, record.config, 7, record.parents)
    return replace(record, fingerprint=value)


def test_trap_55_load_and_save_keep_every_field(tmp_path: Path) -> None:
    record = full_record()
    for one in fields(Record):
        if one.name not in ("files", "basis"):
            assert getattr(record, one.name) != one.default, one.name
    write(tmp_path, record)
    assert read(tmp_path) == record
    write(tmp_path, read(tmp_path))
    plain = json.loads((tmp_path / "lineage.json").read_text())
    assert from_dict(plain) == record
    assert plain["from_the_future"] == {"deep": [1]}
    assert plain["parents"][0]["p"] == 1
    assert plain["cost"]["joules"] == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain["config"].update(lr=3e-4),
        lambda plain: plain["config"]["nested"]["list"].append(2),
        lambda plain: plain["parents"][0].update(digest="sha256:cc"),
        lambda plain: plain["parents"][0].update(relation="finetuned_from"),
        lambda plain: plain["parents"].clear(),
        lambda plain: plain.update(seed=8),
        lambda plain: plain.update(stage="tune.tag"),
        lambda plain: plain.update(revision=1),
        lambda plain: plain.update(fingerprint="sha256:00"),
    ],
)
def test_trap_55_an_edited_field_is_detected(tmp_path: Path, change: object) -> None:
    write(tmp_path, full_record())
    verify_record(read(tmp_path))
    plain = json.loads((tmp_path / "lineage.json").read_text())
    change(plain)  # type: ignore[operator]
    (tmp_path / "lineage.json").write_text(json.dumps(plain))
    with pytest.raises(IntegrityError, match="was edited"):
        verify_record(read(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"name": 1', '{"name": "a", "parents": [3]}', "\xff"])
def test_what_is_no_record_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "lineage.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(IntegrityError, match="no lineage record"):
        read(tmp_path)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="does not exist"):
        read(tmp_path)


def test_fingerprint_does_not_depend_on_the_order_or_names_of_inputs() -> None:
    one, two = Parent("trained_on", "a@1", "sha256:1", input="a"), Parent("trained_on", "b@1", "sha256:2", input="b")
    first = fingerprint("s", 1, {"x": 1, "y": 2}, 0, [one, two])
    assert fingerprint("s", 1, {"y": 2, "x": 1}, 0, [two, replace(one, ref="elsewhere")]) == first
    assert fingerprint("s", 1, {"x": 1, "y": 2}, 0, [replace(one, input="b"), replace(two, input="a")]) != first
