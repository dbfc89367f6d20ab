"""Runs on the page: under way, cut short, finished; their curves, and what is sent while they go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_kit import HOSTILE, page_client, put

from nacre.lineage.store import Store
from nacre.lineage.workspace import begin, holder, lock

MARK = "sha256:" + "ab" * 32


def _log(folder: Path, n: int = 20, **more: float) -> Path:
    log = folder / "logs" / "metrics.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"time": 1e9 + step, "step": step, "total": 100, "loss": 3.0 - step / 50, **more} for step in range(1, n)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return log


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for seed in (1, 2):
        _log(put(store, "客服/tune", {"w": str(seed)}, seed=seed, created=f"2026-01-0{seed}").path, lr=0.1 * seed)
    return store


def test_finished_runs_are_listed_and_laid_over_each_other(store: Store) -> None:
    client = page_client(store.root)
    page = client.get("/page/runs").text
    assert page.index("客服/tune@2") < page.index("客服/tune@1")
    moved = client.get("/page/runs?with=客服/tune@1&with=客服/tune@2")
    assert moved.status_code == 303
    both = client.get(moved.headers["location"])
    assert both.status_code == 200
    assert both.text.count('class="line s1"') == both.text.count('class="line s2"') == 4
    assert "Learning rate" in both.text
    for asked in ("?axis=time", "?scale=log", "?with=nothing", "?with=客服/tune@2"):
        assert client.get(f"/page/runs/客服/tune@2{asked}").status_code == 200
    assert client.get("/page/runs/nothing").status_code == 404
    assert client.get("/page/runs/~nothing-abc").status_code == 404


def test_a_run_is_running_while_its_lock_is_held_and_cut_short_after(store: Store) -> None:
    log = _log(begin(store, "客服/tune", MARK).out)
    client = page_client(store.root)
    with lock(store, "客服/tune", pytest.fail):
        assert "process" in str(holder(store, "客服/tune"))
        page = client.get("/page/runs/~客服+tune-abababababab")
        assert page.status_code == 200
        assert "data-live=" in page.text
        assert ">running<" in page.text
        assert ">running<" in client.get("/page/runs").text
    assert holder(store, "客服/tune") is None
    page = client.get("/page/runs/~客服+tune-abababababab")
    assert ">interrupted<" in page.text
    assert "data-live=" not in page.text
    assert "nacre run 客服.yaml" in client.get("/page/runs").text.replace("&#39;", "").replace("'", "")
    assert log.exists()


def test_nothing_is_sent_where_nothing_is_new(store: Store) -> None:
    log, client = _log(begin(store, "客服/tune", MARK).out), page_client(store.root)
    address = "/page/runs/~客服+tune-abababababab?part=curves"
    with lock(store, "客服/tune", pytest.fail):
        first = client.get(address)
        assert first.headers["x-nacre-live"] == "yes"
        assert "<html" not in first.text
        seen = {"if-none-match": first.headers["etag"]}
        same = client.get(address, headers=seen)
        assert (same.status_code, same.content) == (304, b"")
        with log.open("a") as file:
            file.write('{"time": 1000000020, "step": 20, "total": 100, "loss": 99.5}\n')
        later = client.get(address, headers=seen)
        assert later.status_code == 200
        assert "99.5" in later.text
    assert client.get(address, headers={"if-none-match": later.headers["etag"]}).headers["x-nacre-live"] == "no"


def test_a_run_that_has_become_an_artifact_leads_there(store: Store) -> None:
    record = store.get("客服/tune", 2).record
    assert record is not None
    mark = str(record.fingerprint).removeprefix("sha256:")[:12]
    client = page_client(store.root)
    moved = client.get(f"/page/runs/~客服+tune-{mark}")
    assert moved.status_code == 303
    assert moved.headers["location"].endswith("tune@2")
    assert client.get(f"/page/runs/~客服+tune-{mark}?part=curves").status_code == 404


def test_a_hostile_log_is_text_and_odd_values_are_told(store: Store) -> None:
    space = begin(store, "odd", MARK)
    log = space.out / "logs" / "metrics.jsonl"
    log.parent.mkdir()
    rows = [{"event": HOSTILE, HOSTILE: HOSTILE}, {"event": None, "time": "x"}]
    rows += [{"time": 1.0, "step": step, HOSTILE: step, "loss": float("nan")} for step in range(3)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{half")
    page = page_client(store.root).get("/page/runs/~odd-abababababab?scale=log")
    assert page.status_code == 200
    assert HOSTILE not in page.text
    assert "3 of 3 values are no numbers" in page.text
    assert "1 values are zero or below" in page.text


def test_a_work_folder_without_a_log_and_an_empty_store_are_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    client = page_client(store.root)
    assert "nacre run" in client.get("/page/runs").text
    begin(store, "ladder/desk/tune", MARK)
    (store.root / "work" / "foreign").mkdir()
    page = client.get("/page/runs")
    assert page.status_code == 200
    assert "nacre ladder desk" in page.text
    assert "logged nothing yet" in client.get("/page/runs/~ladder+desk+tune-abababababab").text
