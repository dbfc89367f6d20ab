"""Whole reports: only `report.html` of an artifact of the store, under a policy that lets nothing in it run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from page_kit import ADMIN, page_client, put
from page_store import ATTACK, ladder_result, put_ladder, put_models
from starlette.testclient import TestClient

from nacre.lifecycle.serve.contract import Caller
from nacre.lineage.store import Store

WHOLE = "/page/reports/desk/evaluation@1/report.html"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    put_models(store)
    put_ladder(store, ladder_result())
    return store


@pytest.fixture
def client(store: Store) -> TestClient:
    return page_client(store.root)


@pytest.mark.parametrize("path", [WHOLE, "/page/reports/ladder/desk/report@1/report.html"])
def test_a_report_has_a_policy_of_its_own_and_the_headers_of_every_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "frame-ancestors 'self'", "sandbox",
            "form-action 'none'", "base-uri 'none'"} == set(policy)  # fmt: skip
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_a_report_of_another_stage_is_given_as_it_is(client: TestClient) -> None:
    assert client.get(WHOLE).text == ATTACK


def test_the_theme_that_was_chosen_is_that_of_our_reports(client: TestClient) -> None:
    path = "/page/reports/ladder/desk/report@1/report.html"
    assert "(prefers-color-scheme: dark)" in client.get(path).text
    dark = client.get(path, headers={"cookie": "nacre_theme=dark"}).text
    light = client.get(path, headers={"cookie": "nacre_theme=light"}).text
    assert "@media all {" in dark
    assert "@media not all {" in light
    assert "(prefers-color-scheme: dark)" not in dark + light


@pytest.mark.parametrize(
    "path",
    [
        "desk/tuned@1/report.html", "nothing/report.html", "../../etc/passwd/report.html",
        "desk/evaluation@1/../../secret/report.html", "%2e%2e/%2e%2e/secret/report.html", "/etc/report.html",
        "desk/evaluation@1/metrics.json", "desk/evaluation@1/", "data:desk/report.html",
        "desk%00/report.html",
    ],
)  # fmt: skip
def test_nothing_else_is_given(store: Store, client: TestClient, path: str) -> None:
    outside = store.root / "secret"
    outside.mkdir()
    (outside / "report.html").write_text("the secret")
    answer = client.get(f"/page/reports/{path}")
    assert answer.status_code == 404
    assert "the secret" not in answer.text
    assert "What the report says." not in answer.text


def test_links_lead_nowhere(store: Store, client: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret.html"
    secret.write_text("the secret")
    folder = store.folder("desk/evaluation", 1)
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(secret)
    assert client.get(WHOLE).status_code == 404
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    (elsewhere / "report.html").unlink(missing_ok=True)
    (elsewhere / "report.html").write_text("the secret")
    shutil.rmtree(folder)
    folder.symlink_to(elsewhere)
    assert client.get(WHOLE).status_code == 404
    os.unlink(folder)


def test_what_is_no_file_is_not_waited_for(store: Store, client: TestClient) -> None:
    file = store.folder("desk/evaluation", 1) / "report.html"
    file.unlink()
    os.mkfifo(file)
    assert client.get(WHOLE).status_code == 404


def test_without_an_administrator_s_key_nobody_sees_a_report(store: Store) -> None:
    keys = {"admin-key": ADMIN, "user-key": Caller("k-user", "Uma")}
    client = page_client(store.root, keys)
    assert client.get(WHOLE).status_code == 303
    for key, status in (("user-key", 403), ("admin-key", 200)):
        client.cookies.clear()
        client.post("/page/sign-in", data={"key": key}, headers={"origin": "http://127.0.0.1:8400"})
        assert client.get(WHOLE).status_code == status


def test_bytes_that_are_no_text_do_no_harm(store: Store, client: TestClient) -> None:
    put(store, "odd", {"report.html": b"\xff\xfe<p>odd</p>"}, kind="report")
    assert "<p>odd</p>" in client.get("/page/reports/odd/report.html").text
