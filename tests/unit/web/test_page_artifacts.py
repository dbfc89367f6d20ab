"""The artifacts of a store on the page: listed, traced, compared; damaged ones told, hostile texts shown as texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from page_kit import HOSTILE, page_client, put

from nacre.lineage.record import Parent
from nacre.lineage.store import Resolved, Store
from nacre.web.pedigree import middle_cut


def _of(relation: str, one: Resolved, basis: str = "witnessed") -> Parent:
    assert one.record is not None
    return Parent(relation, one.ref, one.record.digest, one.record.licence, basis=basis, input=relation)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A data set, a model trained on it in two versions, and an audit that infers another parent."""
    store = Store(tmp_path)
    rows = '{"text": "你好"}\n{"text": "' + HOSTILE + '"}\n' + '{"text": "' + "long " * 500 + '"}\n'
    data = put(store, "客服/数据", {"train.jsonl": rows}, kind="dataset", licence="CC BY-NC 4.0", created="2026-01-01")
    base = put(store, "base", {"config.json": "{}"}, parents=(_of("trained_on", data, "declared"),), licence="MIT")
    for seed in (1, 2):
        made = put(
            store, "tuned", {"w": f"{seed}"}, seed=seed, metrics={"accuracy": 0.5 + seed / 10, "note": HOSTILE},
            parents=(_of("finetuned_from", base), _of("evaluated_on", data)), licence="MIT", created=f"2026-02-0{seed}",
        )  # fmt: skip
    assert made.record is not None
    said = {
        "subject": {"ref": made.ref, "digest": made.record.digest},
        "verdicts": [{"ref": "elsewhere", "digest": None, "verdict": "DERIVED"}],
        "inferred": [{"relation": "quantized_from", "ref": "elsewhere", "verdict": "DERIVED", "kind": "quantized",
                      "p_value": 3e-9, "tier": "calibrated"}],
    }  # fmt: skip
    put(store, "audit/tuned", {"result.json": "{}"}, kind="report", extra={"audit": said})
    return store


def _get(store: Store, path: str, **headers: str) -> str:
    answer = page_client(store.root).get(f"/page{path}", headers=headers)
    assert answer.status_code == 200, answer.text[:500]
    assert HOSTILE not in answer.text
    assert " style=" not in answer.text
    return str(answer.text)


def test_the_list_narrows_and_sorts(store: Store) -> None:
    everything = _get(store, "/artifacts")
    assert "客服/数据" in everything
    assert "2 versions" in everything
    assert "tuned" not in _get(store, "/artifacts?kind=dataset").split("<tbody>")[1]
    assert "Nothing matches" in _get(store, "/artifacts?text=%3Cscript%3Ewindow.__hit%3D1%3C/script%3E")
    names = _get(store, "/artifacts?sort=name")
    assert (
        names.index("/artifacts/audit/tuned@1") < names.index("/artifacts/base@1") < names.index("/artifacts/tuned@2")
    )
    assert "另有" not in _get(store, "/artifacts", **{"accept-language": "zh-CN"})


def test_an_artifact_is_told_with_its_lineage_children_and_commands(store: Store) -> None:
    page = _get(store, "/artifacts/tuned")
    assert "tuned<span" in page
    graph = page[page.index('<svg class="graph"') : page.index("</svg>")]
    assert graph.count("<rect") == 4  # each artifact once: the data set is reached twice
    assert 'class="bond declared"' in graph
    assert 'class="bond inferred disputed"' in graph
    assert "p &lt; 1e-06" in graph
    assert "/artifacts/base@1" in graph
    assert f"nacre trace tuned@2 --store {store.root}" in page
    assert page.index("disagreement</span>") < page.index("noncommercial</span>") < page.index('id="lineage"')
    assert "evaluated on" in page[page.index("<details") :]
    chinese = _get(store, "/artifacts/tuned", **{"accept-language": "zh-CN"})
    assert "的许可仅限非商用" in chinese
    assert "the licence of" not in chinese
    assert "没有记录提到它" in chinese
    assert "no record" not in chinese
    parent = _get(store, "/artifacts/base@1")
    assert (
        parent.index("What was made from it") < parent.index("/artifacts/tuned@2") < parent.index("/artifacts/tuned@1")
    )


def test_first_rows_are_texts_and_bounded(store: Store) -> None:
    page = _get(store, "/artifacts/客服/数据")
    assert "你好" in page
    assert "&lt;script&gt;" in page
    assert "…</pre>" in page
    assert "long " * 200 not in page


def test_two_versions_are_compared(store: Store) -> None:
    page = _get(store, "/artifacts/tuned@2/changes?from=tuned@1")
    assert "seed 1 -&gt; 2" in page
    assert "+0.1" in page
    assert page_client(store.root).get("/page/artifacts/base@1/changes").status_code == 404


def test_the_record_and_the_card_can_be_taken_away(store: Store) -> None:
    client = page_client(store.root)
    record = client.get("/page/artifacts/tuned@2/lineage.json")
    assert json.loads(record.text)["name"] == "tuned"
    card = client.get("/page/artifacts/tuned/README.md")
    assert card.headers["content-type"].startswith("text/plain")
    assert "base_model" in card.text


@pytest.mark.parametrize(
    "edit",
    [
        "{", "[]", "null", '{"name": 5}', "metrics", "notes", "versions", "cost", "licence", "parents",
    ],
)  # fmt: skip
def test_a_damaged_record_is_told_and_nothing_breaks(store: Store, edit: str) -> None:
    path = store.folder("base", 1) / "lineage.json"
    wrong: dict[str, Any] = {
        "metrics": 5, "notes": [5], "versions": {"torch": 5}, "cost": {"seconds": "x"}, "licence": 5,
        "parents": [{"relation": 5, "ref": 5}],
    }  # fmt: skip
    path.write_text(json.dumps(json.loads(path.read_text()) | {edit: wrong[edit]}) if edit in wrong else edit)
    assert "damaged" in _get(store, "/artifacts")
    assert "is damaged" in _get(store, "/artifacts/base@1")
    assert "is damaged" in _get(store, "/artifacts/base")
    _get(store, "/artifacts/tuned")


def test_a_version_without_record_and_one_with_other_bytes_are_told(store: Store) -> None:
    (store.folder("base", 1) / "lineage.json").unlink()
    (store.folder("tuned", 2) / "w").write_text("other")
    assert "is damaged" in _get(store, "/artifacts/base@1")
    assert "was changed after the artifact was written" in _get(store, "/artifacts/tuned@2")


def test_what_is_no_artifact_is_404_and_never_a_file_elsewhere(store: Store) -> None:
    client = page_client(store.root)
    for ref in ("nothing", "tuned@9", "tuned@x", "..%2f..%2fetc", "%2fetc%2fpasswd", "data:desk"):
        assert client.get(f"/page/artifacts/{ref}").status_code == 404, ref
        assert client.get(f"/page/artifacts/{ref}/lineage.json").status_code == 404, ref


def test_an_empty_store_says_how_to_begin(tmp_path: Path) -> None:
    assert "nacre run" in _get(Store(tmp_path), "/artifacts")


def test_audits_that_infer_each_other_make_no_circle(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pair = [put(store, name, {"w": name}) for name in ("a", "b")]
    for subject, reference in (pair, pair[::-1]):
        assert subject.record is not None
        assert reference.record is not None
        side = {"ref": reference.ref, "digest": reference.record.digest, "verdict": "DERIVED"}
        said = {
            "subject": {"ref": subject.ref, "digest": subject.record.digest}, "verdicts": [side],
            "inferred": [side | {"relation": "made_from", "kind": None, "p_value": None}],
        }  # fmt: skip
        put(store, f"audit/{subject.record.name}", {"r": "1"}, kind="report", extra={"audit": said})
    assert _get(store, "/artifacts/a").count("<rect") == 3  # a, b, and a once more behind b


def test_many_ancestors_that_stand_on_each_other_are_drawn_once_each(tmp_path: Path) -> None:
    store, made = Store(tmp_path), list[Resolved]()
    for number in range(40):  # 2 ** 20 ways lead from the last to the first
        parents = tuple(Parent("made_from", one.ref, None, input=one.ref) for one in made[-2:])
        made.append(put(store, f"step{number}/{'名' * 50}", {"w": str(number)}, parents=parents))
    page = _get(store, f"/artifacts/{made[-1].ref}")
    assert page[: page.index("</svg>")].count("<rect") == 40


def test_names_are_cut_in_the_middle() -> None:
    assert middle_cut("short", 10) == "short"
    assert middle_cut("abcdefghijklmnop", 9) == "abcd…mnop"
    assert middle_cut("一二三四五六七八", 9) == "一二…七八"
    assert middle_cut("a\u202eb\n", 9) == "a␣b␣"
