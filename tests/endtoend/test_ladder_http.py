"""Tiers 1 to 3 against a chat engine known by its address only, which misbehaves all the time."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("urllib3")

import yaml
from scripted_upstream import Received, Sent, Upstream, dropped, reply, scripted, status

from nacre.ladder.ladder import LadderOptions, climb
from nacre.ladder.task_file import load
from nacre.recipe.references import open_store

WORDS = {"refund": "money", "parcel": "box", "password": "login"}
TIERS = ("baseline", "relay", "prompt", "retrieval")
SECRET = "sk-very-secret-value"


def chat(trouble: bool) -> Callable[[Received], Sent]:
    """Answers with the label whose word stands in the row; every fifth request meets trouble, some rows a refusal."""
    turn, lock = itertools.count(), threading.Lock()
    troubles = [status(429, after=0), status(500), dropped(), status(503)]

    def step(received: Received) -> Sent:
        with lock:
            number = next(turn)
        if trouble and number % 5 == 0:
            return troubles[(number // 5) % len(troubles)](received)
        asked = received.body["messages"][-1]["content"]
        if "forbidden" in asked:
            return reply(None, refusal="I cannot help with that.")(received)
        if "mumble" in asked:
            return reply("hard to say, maybe several")(received)
        found = next((label for label, word in WORDS.items() if word in asked), "refund")
        return reply(found, model="somebody-else-7b" if "impostor" in asked else "scripted")(received)

    return step


@pytest.fixture
def task(tmp_path: Path) -> Path:
    rows = [
        {"text": f"{filler} {word} {number}", "label": label}
        for number in range(6)
        for label, word in WORDS.items()
        for filler in ("about my", "the")
    ]
    test = [
        {"text": "where is my money", "label": "refund"},
        {"text": "the box is wet", "label": "parcel"},
        {"text": "my login fails", "label": "password"},
        {"text": "a forbidden box", "label": "parcel"},
        {"text": "mumble login", "label": "password"},
        {"text": "impostor money", "label": "refund"},
    ]
    for name, part in (("train", rows), ("test", test)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    plain = {
        "name": "http",
        "kind": "classify",
        "about": "What the message is about.",
        "language": "en",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "tiers": {"prompt": {"budget_requests": 60}, "tune": False, "pretrain": False},
    }
    file = tmp_path / "task.yaml"
    file.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return file


def upstream_of(upstream: Upstream, **settings: Any) -> dict[str, Any]:
    patience = {"backoff_s": 0.001, "attempts": 6, "concurrency": 3, "offers": ["chat"]}
    return {"address": upstream.url, "model": "scripted", **patience, **settings}


@pytest.mark.slow
def test_three_tiers_by_address_in_spite_of_a_misbehaving_upstream(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADDER_TEST_KEY", SECRET)
    store = open_store(tmp_path / "store")
    with scripted(default=chat(trouble=True)) as upstream:
        file = replace(load(task), upstream=upstream_of(upstream, key_variable="LADDER_TEST_KEY"))
        result = climb(file, store, LadderOptions(tiers=TIERS, device="cpu"))
        sent = len(upstream.requests)
        again = climb(file, store, LadderOptions(tiers=TIERS, device="cpu"))
        assert len(upstream.requests) == sent  # nothing is asked twice
    rows = {row.name: row for row in result.rows}
    assert {name: (rows[name].status, rows[name].reason) for name in TIERS} == dict.fromkeys(TIERS, ("ok", None))
    relay = rows["relay"]
    assert relay.problems["refused"] == 1
    assert relay.problems["unparsable"] == 1
    assert "somebody-else-7b" in relay.served_by
    assert relay.score == pytest.approx(4 / 6)
    assert relay.cost_per_1k is None  # no price was given
    assert relay.owns["kernel"].state == "called"
    assert result.spent["requests"] == sent
    assert again.spent["requests"] == 0
    kept = [file for file in store.root.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert kept == []


def test_prices_turn_tokens_into_money(task: Path, tmp_path: Path) -> None:
    with scripted(default=chat(trouble=False)) as upstream:
        file = replace(load(task), upstream=upstream_of(upstream))
        file = replace(file, prices=replace(file.prices, input_per_million=2.0, output_per_million=10.0))
        result = climb(file, open_store(tmp_path / "store"), LadderOptions(tiers=("relay",), device="cpu"))
    relay = result.row("relay")
    assert relay is not None
    # The scripted upstream counts 7 tokens read and 3 written for every request.
    assert relay.cost_per_1k == pytest.approx(1000 * (7 * 2.0 + 3 * 10.0) / 1e6)
    assert relay.cost_basis == "tokens"


@pytest.mark.parametrize("key_variable", [None, "LADDER_TEST_ABSENT_KEY"])
def test_an_unreachable_upstream_or_a_missing_key_is_a_row(
    task: Path, tmp_path: Path, key_variable: str | None
) -> None:
    with scripted() as upstream:
        address = upstream.url  # closed again below: nobody listens there
    settings = {"address": address, "model": "gone", "attempts": 1, "offers": ["chat"]}
    if key_variable is not None:
        settings["key_variable"] = key_variable
    file = replace(load(task), upstream=settings)
    result = climb(file, open_store(tmp_path / "store"), LadderOptions(tiers=("baseline", "relay"), device="cpu"))
    relay = result.row("relay")
    assert relay is not None
    assert relay.status in ("failed", "skipped")
    assert (key_variable or address.removeprefix("http://").partition("/")[0]) in (relay.reason or "")
    assert relay.remedy
    assert result.recommended.name == "baseline"


def test_an_address_is_a_reference(task: Path, tmp_path: Path) -> None:
    with scripted(default=chat(trouble=False)) as upstream:
        file = replace(load(task), upstream=f"{upstream.url}#scripted")
        result = climb(file, open_store(tmp_path / "store"), LadderOptions(tiers=("relay",), device="cpu"))
    relay = result.row("relay")
    assert relay is not None
    assert relay.ok
