from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nacre.errors import ConfigError, IntegrityError, ReferenceNotFound
from nacre.lineage.graph import compare, require_intact, trace
from nacre.lineage.record import Parent, Record, read, write
from nacre.lineage.store import Resolved, Store, check_name
from nacre.lineage.workspace import begin, publish
from nacre.recipe.recipe import load
from nacre.recipe.run import run


def put(store: Store, name: str, content: str, **fields: object) -> Record:
    """An artifact with one file, published the way a run does it."""
    space = begin(store, name, f"sha256:{content}")
    (space.out / "data.txt").write_text(content)
    return publish(store, space, Record(name=name, version=0, kind="dataset", digest="", **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a", "a/b", "意图/清洗", "a.b-c_d", "v1", "3d/x"])
def test_names_of_any_script_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "../a", "a/../b", ".a", "a/1", "7", "a@1", "a:b", "a b", "a+b", "x" * 300]
)
def test_names_that_could_escape_or_confuse_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        check_name(name)


def test_versions_count_and_are_never_reused() -> None:
    store = Store()
    assert [put(store, "a", text).version for text in ("x", "y", "z")] == [1, 2, 3]
    shutil.rmtree(store.folder("a", 2))
    assert put(store, "a", "w").version == 4
    assert store.versions("a") == [1, 3, 4]
    assert store.resolve("a").ref == "a@4"
    assert store.resolve("a@1").path == store.folder("a", 1)


def test_what_matches_nothing_names_what_is_close(tmp_path: Path) -> None:
    store = Store()
    put(store, "intents/tune", "x")
    with pytest.raises(ReferenceNotFound, match="did you mean 'intents/tune'"):
        store.resolve("intents/tuen")
    with pytest.raises(ReferenceNotFound, match="it has: intents/tune@1"):
        store.resolve("intents/tune@9")
    with pytest.raises(ReferenceNotFound, match="served model"):
        store.resolve("http://localhost:1/v1#m")
    with pytest.raises(ReferenceNotFound, match="unknown kind of reference"):
        store.resolve("dta:x")


def test_paths_and_schemes_are_resolved(tmp_path: Path) -> None:
    store = Store(resolvers={"data": lambda rest: Resolved(f"data:{rest}", tmp_path)})
    assert store.resolve("data:x/y").ref == "data:x/y"
    (tmp_path / "raw.txt").write_text("x")
    assert store.resolve("raw.txt", tmp_path).path == tmp_path / "raw.txt"
    assert store.resolve(str(tmp_path)).record is None
    put(store, "a", "x")
    assert store.resolve(str(store.folder("a", 1))).ref == "a@1"


def test_an_address_of_the_store_is_never_a_path(tmp_path: Path) -> None:
    store = Store()
    put(store, "intents/tune", "x")
    assert store.artifact("intents/tune").ref == store.artifact("intents/tune@1").ref == "intents/tune@1"
    for ref in ("/etc", str(tmp_path), "../store/intents/tune", "./intents/tune", "intents/../intents/tune", "", "@1"):
        with pytest.raises(ReferenceNotFound):
            store.artifact(ref)


def test_trap_55_a_changed_added_or_missing_file_is_named() -> None:
    store = Store()
    put(store, "a", "x")
    path = store.folder("a", 1) / "data.txt"
    path.write_text("y")
    with pytest.raises(IntegrityError, match=r"data\.txt was changed"):
        store.verify(store.resolve("a"))
    path.unlink()
    with pytest.raises(IntegrityError, match=r"data\.txt is missing"):
        store.verify(store.resolve("a"))
    path.write_text("x")
    (path.parent / "more.txt").write_text("z")
    with pytest.raises(IntegrityError, match=r"more\.txt was added"):
        store.verify(store.resolve("a"))


def test_trap_55_a_record_at_another_address_is_detected() -> None:
    store = Store()
    put(store, "a", "x")
    shutil.copytree(store.folder("a", 1), store.folder("b", 1))
    with pytest.raises(IntegrityError, match="holds the record of a@1"):
        store.resolve("b")


def test_trap_55_the_chain_is_walked_to_raw_data_and_every_change_on_it_found(toy_folder: Path) -> None:
    store = Store()
    run(load(toy_folder / "toy.yaml"), store)
    root = trace(store, "toy/measure")
    require_intact(root)
    assert str(toy_folder / "raw.txt") in [node.ref for node in root.walk()]
    assert {node.relation for node in root.walk()} == {None, "evaluates", "evaluated_on", "trained_on", "made_from"}
    (toy_folder / "raw.txt").write_text("other text\n")
    with pytest.raises(IntegrityError, match=r"raw\.txt holds other bytes"):
        require_intact(trace(store, "toy/measure"))


def test_trap_55_a_rebuilt_parent_is_detected(toy_folder: Path) -> None:
    """A parent that is whole in itself but not the one that was used."""
    store = Store()
    run(load(toy_folder / "toy.yaml"), store)
    folder = store.folder("toy/clean", 1)
    record = read(folder)
    (folder / "train.jsonl").write_text("{}\n")
    from dataclasses import replace

    from nacre.lineage.digest import digest_folder, manifest

    files = {entry.path: (entry.size, entry.sha256) for entry in manifest(folder)}
    write(folder, replace(record, digest=digest_folder(folder), files=files))
    store.verify(store.resolve("toy/clean"))
    with pytest.raises(IntegrityError, match=r"toy/clean@1 holds other bytes"):
        require_intact(trace(store, "toy/train"))


def test_an_edited_config_of_an_ancestor_is_an_integrity_finding(toy_folder: Path) -> None:
    store = Store()
    run(load(toy_folder / "toy.yaml"), store)
    path = store.folder("toy/train", 1) / "lineage.json"
    plain = json.loads(path.read_text())
    plain["config"]["lr"] = 1.0
    path.write_text(json.dumps(plain))
    findings = trace(store, "toy/measure").all_warnings()
    assert any(one.kind == "integrity" and "toy/train@1 was edited" in one.text for one in findings)


def test_a_parent_that_is_gone_is_shown_as_recorded(toy_folder: Path) -> None:
    store = Store()
    run(load(toy_folder / "toy.yaml"), store)
    shutil.rmtree(store.root / "store" / "toy" / "clean")
    root = trace(store, "toy/train")
    assert [one.kind for one in root.all_warnings() if one.kind == "missing"] == ["missing"]
    assert root.parents[0].digest == read(store.folder("toy/train", 1)).parents[0].digest


def test_licences_reach_what_was_made_from_them_and_stop_at_evaluation() -> None:
    store = Store()
    put(store, "free", "f", licence="CC BY 4.0")
    put(store, "bound", "b", licence="CC BY-NC 4.0")
    put(store, "silent", "s")
    parents = (Parent("trained_on", "bound@1", store.resolve("bound").record.digest),)  # type: ignore[union-attr]
    put(store, "model", "m", parents=parents, licence="CC BY-NC 4.0")
    judged = (Parent("evaluated_on", "bound@1"), Parent("made_from", "free@1"), Parent("made_from", "silent@1"))
    put(store, "report", "r", parents=judged, licence="CC BY 4.0")
    assert [(one.kind, one.ref) for one in trace(store, "model").all_warnings()] == [("noncommercial", "bound@1")]
    assert [(one.kind, one.ref) for one in trace(store, "report").all_warnings()] == [("unclear", "silent@1")]


def test_records_that_stand_on_themselves_do_not_hang() -> None:
    store = Store()
    put(store, "a", "x", parents=(Parent("made_from", "b@1"),))
    put(store, "b", "y", parents=(Parent("made_from", "a@1"),))
    assert "stands on itself" in " ".join(one.text for one in trace(store, "a").all_warnings())


def test_compare_says_where_two_artifacts_part(toy_folder: Path) -> None:
    store = Store()
    run(load(toy_folder / "toy.yaml"), store)
    run(load(toy_folder / "toy.yaml", ["clean.min_chars=5"]), store)
    found = {change.new: change.differences for change in compare(store, "toy/measure@1", "toy/measure@2")}
    assert found["toy/clean@2"] == ("config min_chars 3 -> 5",)
    assert found["toy/train@2"] == ("input data toy/clean@1 -> toy/clean@2",)
    assert compare(store, "toy/measure@1", "toy/measure@1") == []
