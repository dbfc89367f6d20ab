"""Audit reports on the page: verdicts, sides, stages, what was not tested, and where records disagree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_kit import HOSTILE, page_client, put
from page_store import damage, put_audit, put_models
from starlette.testclient import TestClient

from nacre.lineage.record import Parent
from nacre.lineage.store import Store

ZH = {"accept-language": "zh-CN"}
ONE = "/page/audits/audit/desk/tuned@1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    put_models(store)
    put_audit(store, "desk/tuned@1", "desk/base@1", "/elsewhere/" + HOSTILE, text=f"depths {HOSTILE} {{{{ 7*7 }}}}")
    return store


@pytest.fixture
def client(store: Store) -> TestClient:
    return page_client(store.root)


def test_an_empty_store_says_how_to_begin(tmp_path: Path) -> None:
    assert "nacre audit" in page_client(tmp_path).get("/page/audits").text


def test_the_list_names_the_sides_and_the_verdict_in_words(client: TestClient) -> None:
    page = client.get("/page/audits").text
    assert 'href="/page/audits/audit/desk/tuned@1"' in page
    assert 'href="/page/artifacts/desk/base@1"' in page
    assert "DERIVED" in page
    assert HOSTILE not in page
    assert "派生 DERIVED" in client.get("/page/audits", headers=ZH).text


def test_verdicts_can_be_filtered(client: TestClient) -> None:
    assert "desk/tuned@1" in client.get("/page/audits?verdict=DERIVED").text
    none = client.get("/page/audits?verdict=IDENTICAL").text
    assert "desk/tuned@1" not in none
    assert "No audit came to this verdict" in none


def test_an_audit_says_stage_by_stage_what_was_found_and_what_was_not_tested(client: TestClient) -> None:
    page = client.get(ONE).text
    for needed in ("DERIVED", "SAME_DESIGN", "UNTESTABLE", "&lt; 1e-06", "exact", "there is no data set",
                   "3 tokens are shared", "below 1 in a million", "nacre trace desk/tuned@1"):  # fmt: skip
        assert needed in page, needed
    assert HOSTILE not in page
    assert "{{ 7*7 }}" in page


def test_sentences_are_in_the_viewer_s_language_and_english_is_marked(client: TestClient) -> None:
    page = client.get(ONE, headers=ZH).text
    assert "共有 3 个词元" in page
    assert "没有数据集" in page
    assert '<span lang="en">depths' in page
    assert "共有 3 个词元" in client.get("/page/reports/audit/desk/tuned@1/report.html", headers=ZH).text


def test_disagreement_with_the_recorded_lineage_is_said(store: Store, client: TestClient) -> None:
    assert "The recorded lineage says otherwise" in client.get(ONE).text  # of /elsewhere/, which no record names
    put(store, "desk/other", {"x": "y"}, parents=(Parent("finetuned_from", "desk/data@1", "sha256:1"),))
    ref = put_audit(store, "desk/other@1", "desk/base@1").ref
    page = client.get(f"/page/audits/{ref}").text
    assert "The recorded lineage says otherwise" in page
    assert "which no record of it names" in page
    page = client.get(f"/page/audits/{ref}", headers=ZH).text
    assert f"{ref} 推断 desk/other@1 派生自 desk/base@1，而其记录中没有提到它" in page


@pytest.mark.parametrize("file", ["result.json", "lineage.json", "sentences.json"])
def test_damage_is_said_and_is_no_fault(store: Store, client: TestClient, file: str) -> None:
    damage(store.folder("audit/desk/tuned", 1), file)
    assert client.get("/page/audits").status_code == 200
    answer = client.get(ONE)
    assert answer.status_code == 200
    assert "cannot be read" in answer.text


@pytest.mark.parametrize(
    "change", [{"direction": 3}, {"direction": {"first": "reference", "words": "x"}}, {"delta": 3}, {"delta": [{}]}]
)
def test_a_detail_that_does_not_fit_is_no_fault(store: Store, client: TestClient, change: dict[str, object]) -> None:
    file = store.folder("audit/desk/tuned", 1) / "result.json"
    plain = json.loads(file.read_text())
    for pair in plain["pairs"]:
        pair["stages"]["weights"]["detail"] |= change
    file.write_text(json.dumps(plain))
    assert client.get(ONE).status_code == 200
    assert client.get("/page/reports/audit/desk/tuned@1/report.html").status_code in (200, 422)


@pytest.mark.parametrize("ref", ["nothing", "desk/tuned@1", "../../etc", "audit/desk/tuned@9"])
def test_what_is_no_audit_is_not_found(client: TestClient, ref: str) -> None:
    assert client.get(f"/page/audits/{ref}").status_code == 404
