"""Ladder reports on the page: listed, in short, compared, in either language, damaged ones said to be so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from page_kit import HOSTILE, page_client, put
from page_store import damage, ladder_result, put_ladder, put_rungs
from starlette.testclient import TestClient

from nacre.ladder.report import figures
from nacre.ladder.words import Words
from nacre.lineage.store import Store
from nacre.web.areas import ladders

REF = "/page/ladders/ladder/desk/report@1"
ZH = {"accept-language": "zh-CN"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    put_rungs(store)
    put_ladder(store, ladder_result())
    return store


@pytest.fixture
def client(store: Store) -> TestClient:
    return page_client(store.root)


def test_an_empty_store_says_how_to_begin(tmp_path: Path) -> None:
    assert "nacre ladder desk" in page_client(tmp_path).get("/page/ladders").text


def test_the_list_shows_the_newest_first_with_what_was_recommended(store: Store, client: TestClient) -> None:
    other = ladder_result("zh", created="2026-02-02T03:04:05+00:00")
    put_ladder(store, other, "ladder/客服/report")
    page = client.get("/page/ladders").text
    assert page.index("客服意图</a>") < page.index("desk</a>")
    assert ladder_result().recommended.headline in page
    only = client.get("/page/ladders?task=desk").text
    assert "客服意图" not in only
    assert "客服" in client.get("/page/ladders?task=nothing").text  # among the tasks to choose from


def test_every_row_is_there_with_the_figures_of_the_command(client: TestClient) -> None:
    page, words = client.get(REF).text, Words("en")
    result = ladder_result()
    for row in result.rows:
        assert figures.short_tier(row, words) in page
        if row.ok:
            assert figures.score(row) in page
            assert figures.span(row) in page
            assert figures.cost(row, result.currency, words) in page
    assert "left out by choice" in page
    assert "no memory &lt;script&gt;" in page
    assert "take a smaller one {{ 7*7 }}" in page
    assert HOSTILE not in page
    assert all(line.replace("&", "&amp;").replace("'", "&#39;") in page for line in result.recommended.would_change[:1])


def test_a_rung_leads_to_its_artifact_and_to_the_chat_where_it_is_there(client: TestClient) -> None:
    page = client.get(REF).text
    assert 'href="/page/artifacts/desk/tune@1"' in page
    assert 'href="/page/chat?model=desk%2Ftune%401"' in page
    assert "no longer in the store" not in page


def test_a_rung_that_is_gone_leads_nowhere(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_ladder(store, ladder_result())
    page = page_client(tmp_path).get(REF).text
    assert "no longer in the store" in page
    assert "/artifacts/desk/tune@1" not in page


def test_the_viewer_s_language_is_that_of_the_sentences_and_of_the_frame(client: TestClient) -> None:
    page = client.get(REF, headers=ZH).text
    assert re.search(r"<h1>[^<]*第 ?\d 层|<h1>[^<]*基线", page)
    whole = client.get("/page/reports/ladder/desk/report@1/report.html", headers=ZH).text
    assert 'lang="zh-CN"' in whole
    assert "各层一览" in whole
    assert "Every tier" in client.get("/page/reports/ladder/desk/report@1/report.html").text


def test_two_ladders_of_a_task_stand_side_by_side(store: Store, client: TestClient) -> None:
    later = ladder_result()
    rows = tuple(replace(row, score=(row.score or 0) - 0.1) if row.name == "tune" else row for row in later.rows[:-1])
    put_ladder(store, replace(later, rows=rows, test_examples=10, created="2026-03-01T00:00:00+00:00"))
    page = client.get(REF + "?with=ladder/desk/report@2").text
    assert "+10.0" in page
    assert "may not be comparable" in page
    assert "60 / 10" in page
    assert client.get(REF + "?with=desk/tune@1").status_code == 404
    assert client.get(REF + "?with=/etc/passwd").status_code == 404


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": [{"tier": 99}]}', "\x00"])
def test_a_damaged_result_is_a_page_that_says_so(store: Store, client: TestClient, content: str) -> None:
    damage(store.folder("ladder/desk/report", 1), "result.json", content)
    for path in ("/page/ladders", REF):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "cannot be read" in answer.text
    assert client.get("/page/reports/ladder/desk/report@1/report.html").status_code == 422
    assert client.get("/page/reports/ladder/desk/report@1/report.html?kept=1").status_code == 200


def test_a_damaged_record_is_listed_last_and_said_to_be_so(store: Store, client: TestClient) -> None:
    damage(store.folder("ladder/desk/report", 1), "lineage.json")
    for path in ("/page/ladders", REF):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "cannot be read" in answer.text


def test_a_changed_result_is_shown_and_said_to_be_changed(store: Store, client: TestClient) -> None:
    file = store.folder("ladder/desk/report", 1) / "result.json"
    file.write_text(file.read_text().replace('"task": "desk"', '"task": "Desk"'))
    assert "Changed after it was written: result.json" in client.get(REF).text


@pytest.mark.parametrize("ref", ["nothing", "desk/tune@1", "../../etc", "ladder/desk/report@9", "ladder/desk/report@x"])
def test_what_is_no_ladder_is_not_found(client: TestClient, ref: str) -> None:
    assert client.get(f"/page/ladders/{ref}").status_code == 404


def test_many_reports_come_in_pages(store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladders, "_A_PAGE", 2)
    for number in range(2):
        put(store, f"ladder/t{number}/report", {"result.json": "{"}, kind="report", stage="ladder.report")
    first, last = client.get("/page/ladders").text, client.get("/page/ladders?page=2").text
    assert (first.count("<tr>"), last.count("<tr>")) == (3, 2)
    assert 'rel="next"' in first
    assert 'rel="prev"' in last
    assert client.get("/page/ladders?page=99").text == last.replace("page%3D2", "page%3D99")
    assert client.get("/page/ladders?page=-1%00").status_code == 200
