"""The first page: how to begin, what is here, what the gateway does; faults are told and never break it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from page_kit import ADMIN, HERE, HOSTILE, page_client, put
from starlette.testclient import TestClient

from nacre.errors import ResourceError
from nacre.lifecycle.serve.contract import Caller
from nacre.lifecycle.serve.routing import Table
from nacre.lineage.store import Store
from nacre.lineage.workspace import begin

ROW = {"requests": 7, "refused": 2, "tokens": 1234, "known_money": 0.5, "unpriced": 3}
PLAIN = Caller("k-2", "Bo", models=("mini",))


def _client(folder: Path, rows: Any = (), keys: dict[str, Caller] | None = None) -> TestClient:
    def usage(by: Any, since: float) -> Any:
        if isinstance(rows, Exception):
            raise rows
        return rows

    client = page_client(folder, keys)
    gateway: Any = client.app_state["page"].gateway
    gateway.table = Table({"mini": SimpleNamespace(), "spare": SimpleNamespace()}, {"smart": ["mini", "spare"]})
    gateway.health = SimpleNamespace(down={"spare": f"refused {HOSTILE}"})
    gateway.parts.ledger = SimpleNamespace(usage=usage)
    return client


def test_an_empty_store_names_the_three_commands_to_begin_with(tmp_path: Path) -> None:
    page = _client(tmp_path).get("/page/")
    assert page.status_code == 200
    for command in ("nacre run", "nacre ladder", "nacre audit"):
        assert command in page.text


def test_it_says_what_is_here_and_what_the_gateway_did_today(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "one", {"a": "1"}, kind="dataset", licence="MIT")
    put(store, "two", {"a": "1"}, metrics={"accuracy": 0.75})
    put(store, "bad", {"a": "1"}).path.joinpath("lineage.json").write_text("{")
    begin(store, "three", "sha256:" + "ab" * 32)
    page = _client(tmp_path, [ROW, ROW]).get("/page/").text
    assert "<b>1</b>" in page
    assert "0.75" in page
    assert "/runs/~three-abababababab" in page
    assert "2,468" in page
    assert "without a known price: 6" in page
    assert page.count("does not answer</span>") == 1  # spare; the route has another model
    assert HOSTILE not in page


def test_money_is_unknown_where_no_price_is_known_and_a_ledger_that_is_down_is_told(tmp_path: Path) -> None:
    put(Store(tmp_path), "one", {"a": "1"})
    assert "<b>unknown</b>" in _client(tmp_path, [ROW | {"unpriced": 7}]).get("/page/").text
    down = _client(tmp_path, ResourceError("the database is down", remedy="wait")).get("/page/")
    assert down.status_code == 200
    assert "the database is down" in down.text


@pytest.mark.parametrize(("stage", "name"), [("ladder.report", "ladder/desk/report"), ("audit.report", "audit/x")])
def test_a_report_that_cannot_be_read_is_told(tmp_path: Path, stage: str, name: str) -> None:
    put(Store(tmp_path), name, {"result.json": "{}"}, kind="report", stage=stage)
    page = _client(tmp_path).get("/page/")
    assert page.status_code == 200
    assert "The report cannot be read" in page.text


def test_a_key_that_is_no_administrators_sees_its_models_alone(tmp_path: Path) -> None:
    put(Store(tmp_path), "secret-plan", {"a": "1"})
    client = _client(tmp_path, [ROW], {"sk-a": ADMIN, "sk-b": PLAIN})
    client.post("/page/sign-in", data={"key": "sk-b"}, headers=HERE)
    page = client.get("/page/").text
    assert "mini" in page
    assert "spare" not in page
    assert "secret-plan" not in page
    for path in ("/artifacts", "/artifacts/secret-plan", "/artifacts/secret-plan/lineage.json", "/runs", "/runs/x"):
        assert client.get(f"/page{path}").status_code == 403
    client.post("/page/sign-in", data={"key": "sk-a"}, headers=HERE)
    assert "secret-plan" in client.get("/page/").text
