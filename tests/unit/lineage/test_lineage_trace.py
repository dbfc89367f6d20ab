"""Traces of lineages that are deep, shared and looked at again: what they cost, and what they say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from page_kit import put

from nacre.cli.main import main
from nacre.lineage import inferred
from nacre.lineage.finding import SENTENCES, find
from nacre.lineage.graph import compare, trace
from nacre.lineage.record import Parent
from nacre.lineage.store import Store
from nacre.web.shelf import Snapshot

DEEP = 210  # more parents of parents than a walk by recursion survives


def chain(store: Store, length: int, both: bool = False) -> None:
    """`m0` to `m(length - 1)`, each made from the one before, or from it twice over."""
    for number in range(length):
        before = f"m{number - 1}@1"
        relations = ("finetuned_from", "distilled_from")[: 1 + both] if number else ()
        put(store, f"m{number}", {"a": str(number)}, parents=tuple(Parent(one, before) for one in relations))


def unfolded(plain: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pending = [plain]
    while pending:
        one = pending.pop()
        yield one
        pending += one["parents"]


def test_what_is_shared_is_told_once() -> None:
    """Thirty artifacts, each the parent of the next in two ways: a billion ways down, sixty lines."""
    store = Store()
    chain(store, 30, both=True)
    told = list(unfolded(trace(store, "m29").to_dict()))
    assert len(told) == 2 * 29 + 1
    again = [one for one in told if one.get("parents_above")]
    assert len(again) == 28  # m0 has no parents to stand above
    assert all(one["parents"] == [] for one in again)
    assert compare(store, "m29", "m28")


def test_a_tree_is_told_as_it_stands() -> None:
    store = Store()
    chain(store, 3)
    told = trace(store, "m2").to_dict()
    assert [one["ref"] for one in unfolded(told)] == ["m2@1", "m1@1", "m0@1"]
    assert not any("parents_above" in one for one in unfolded(told))


def test_a_long_licence_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    store, long = Store(), "CC BY 4.0 AND the terms of somebody, read by somebody else"
    put(store, "bound", {"a": "b"}, licence="MIT")
    put(store, "rows", {"a": "c"}, licence=long, parents=(Parent("made_from", "bound@1"),))
    put(store, "model", {"a": "d"}, licence=long, parents=(Parent("trained_on", "rows@1"),))
    main(["trace", "model"])
    tree = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.partition("licence")[2] for line in tree] == [": [1]", ": [1]", ": MIT", f" [1]: {long}"]


def test_a_long_chain_is_traced(capsys: pytest.CaptureFixture[str]) -> None:
    chain(Store(), DEEP)
    for form in ((), ("--mermaid",), ("--json",)):
        assert main(["trace", f"m{DEEP - 1}", *form]) == 0
        out = capsys.readouterr().out
        assert "m0@1" in out
    assert len(list(unfolded(json.loads(out)))) == DEEP


def test_audits_are_listed_once_however_many_parents_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    chain(store, 6)
    put(store, "audit/m5", {"a": "b"}, kind="report")
    listed = []
    names = Store.names
    monkeypatch.setattr(Store, "names", lambda self: listed.append(1) or names(self))  # type: ignore[func-returns-value]
    trace(store, "m5")
    assert len(listed) == 1


def test_the_last_audit_has_the_last_word_by_bytes_or_by_name() -> None:
    def told(subject: dict[str, str | None], verdict: str) -> dict[str, Any]:
        return {"subject": subject, "verdicts": [{"ref": "b", "digest": None, "verdict": verdict}]}

    by_name = inferred.Audit("audit/x@1", told({"ref": "x@1", "digest": None}, "INCONCLUSIVE"))
    by_bytes = inferred.Audit("audit/y@1", told({"ref": "copy@1", "digest": "sha256:1"}, "DERIVED"))
    others = inferred.Audit("audit/z@1", told({"ref": "x@1", "digest": "sha256:2"}, "IDENTICAL"))
    odd = inferred.Audit("audit/odd@1", {"subject": ["x@1"]})
    known = inferred.Audits([by_bytes, odd, by_name, others])
    assert [one.verdict for one in known.conclusions("x@1", "sha256:1")] == ["INCONCLUSIVE"]
    assert [one.verdict for one in known.conclusions("else@1", "sha256:1")] == ["DERIVED"]
    assert known.conclusions("odd", None) == []


def test_findings_carry_their_sentence_and_values() -> None:
    store = Store()
    put(store, "bound", {"a": "b"}, licence="CC BY-NC 4.0")
    digest = store.resolve("bound").record.digest  # type: ignore[union-attr]
    made = put(store, "made", {"a": "c"}, parents=(Parent("trained_on", "bound@1", digest), Parent("calls", "gone@1")))
    (made.path / "a").write_text("other")
    found = {one.sentence: one for one in trace(store, "made").all_warnings()}
    reaching = {"licence_noncommercial_reaches", "licence_none_reaches"}
    assert set(found) == {*reaching, "file_changed", "gone"}
    for one in found.values():
        assert one.text == SENTENCES[one.sentence].format(**one.values)
    values = {"ref": "bound@1", "licence": "CC BY-NC 4.0", "root": "made@1"}
    assert found["licence_noncommercial_reaches"].values == values


def test_values_are_no_patterns() -> None:
    assert find("missing", "x", "gone", ref="{ref.__class__}").text.startswith("{ref.__class__} is no longer here")


def test_the_page_reads_what_changed_since_the_record_and_trusts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of files are trusted, those that programs can set are not enough."""
    store = Store()
    made = put(store, "made", {"a": "one", "b": "two"}, licence="MIT")
    reads: list[str] = []
    monkeypatch.setattr(store.hashes, "hash_file", lambda path: reads.append(path.name) or (3, "0"))  # type: ignore[func-returns-value]
    assert trace(Snapshot(store), "made").all_warnings() == []
    assert reads == []
    times = os.stat(made.path / "a")
    (made.path / "a").write_text("eno")
    os.utime(made.path / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [one.sentence for one in trace(Snapshot(store), "made").all_warnings()] == ["file_changed"]
    assert reads == ["a"]
    monkeypatch.undo()
    assert [one.sentence for one in trace(Snapshot(store), "made", verify=True).all_warnings()] == ["file_changed"]
