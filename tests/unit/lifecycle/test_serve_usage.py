"""Prices, sums and their tables: what is unknown stays unknown."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nacre.cli import serve_keys, serve_usage
from nacre.cli.main import main
from nacre.cli.parser import VerbParser
from nacre.engine.prices import Prices
from nacre.errors import ConfigError, UsageError
from nacre.lifecycle.serve.contract import Entry, Outcome, Usage
from nacre.lifecycle.serve.state.database import connect
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.pricing import PriceList
from nacre.lifecycle.serve.state.usage import Spent, csv_text, disagrees, forget, spent, sums

DAY = 1_795_305_600.0  # 2026-11-22 00:00 UTC
PRICES = PriceList(
    {
        "fast": Prices(input_per_million=1.0, output_per_million=4.0),
        "half": Prices(input_per_million=1.0),
        "vectors": Prices(embedding_per_million=0.5),
        "local": Prices(machine_hour=3.6),
    }
)


def entry(identity: str, **changes: Any) -> Entry:
    base = Entry(identity, DAY, "key_a", "chat", "fast", "fast", "ok", 200, 10, 5, "upstream", 15, 0.25)
    return replace(base, **changes)


def stored(folder: Path, *entries: Entry) -> Path:
    async def run() -> None:
        ledger = StoredLedger(folder / "gateway.db", journal=folder)
        for one in entries:
            ledger.enter(one)
        await ledger.close()

    asyncio.run(run())
    return folder / "gateway.db"


def grouped(path: Path, *by: str, **span: float) -> list[dict[str, Any]]:
    database = connect(path)
    rows = sums(database, by, **span)
    database.close()
    return rows


@pytest.mark.parametrize(
    ("model", "usage", "outcome", "options", "money"),
    [
        ("fast", Usage(1000, 500, "upstream"), "ok", {}, 0.003),
        ("fast", Usage(1000, None, "upstream"), "ok", {}, None),
        ("fast", Usage(), "client_left", {}, None),
        ("fast", Usage(1000, 10, "tokenizer"), "cut_short", {}, 0.00104),
        ("fast", Usage(1000, 500, "upstream"), "ok", {"cached": True}, 0.0),
        ("fast", Usage(), "refused", {}, 0.0),
        ("fast", Usage(), "upstream_error", {}, 0.0),
        ("half", Usage(1000, 500, "upstream"), "ok", {}, None),
        ("vectors", Usage(2000, None, "upstream"), "ok", {"embedding": True}, 0.001),
        ("local", Usage(1000, 500, "tokenizer"), "ok", {"seconds": 2.0}, 0.002),
        ("unlisted", Usage(1000, 500, "upstream"), "ok", {}, None),
        ("unlisted", Usage(), "refused", {}, 0.0),
    ],
)
def test_money_of_a_call(
    model: str, usage: Usage, outcome: Outcome, options: dict[str, Any], money: float | None
) -> None:
    found = PRICES.money(model, usage, outcome, **{"seconds": 0.0, **options})
    assert found == (None if money is None else pytest.approx(money))


def test_estimates_before_a_call() -> None:
    assert PRICES.estimate("fast", 1000, 500) == pytest.approx(0.003)
    assert PRICES.estimate("vectors", 2000, 0, embedding=True) == pytest.approx(0.001)
    assert PRICES.estimate("local", 1000, 500) == pytest.approx(0.01)
    assert PRICES.estimate("half", 1000, 500) is None
    assert PRICES.estimate("unlisted", 1, 1) is None


def test_two_currencies_are_refused() -> None:
    with pytest.raises(ConfigError, match="CNY and USD"):
        PriceList({"a": Prices(input_per_million=1.0), "b": Prices(input_per_million=1.0, currency="CNY")})


def test_an_unknown_price_makes_the_sum_unknown_and_is_counted(tmp_path: Path) -> None:
    path = stored(tmp_path, entry("a"), entry("b", money=None), entry("c", served="free", money=0.0))
    (fast, free) = grouped(path, "model")
    assert (fast["model"], fast["money"], fast["unpriced"], fast["known_money"]) == ("fast", None, 1, 0.25)
    assert (free["model"], free["money"], free["unpriced"]) == ("free", 0.0, 0)
    assert grouped(path)[0]["money"] is None


def test_unknown_tokens_are_counted_but_those_of_refused_requests_are_not(tmp_path: Path) -> None:
    unknown = {"prompt_tokens": None, "completion_tokens": None, "counted_by": "nobody", "our_tokens": None}
    path = stored(
        tmp_path,
        entry("a", **unknown, outcome="client_left"),
        entry("b", **unknown, outcome="refused", served=None, money=0.0),
        entry("c", **unknown, cached=True, money=0.0),
        entry("d"),
    )
    row = grouped(path)[0]
    assert (row["requests"], row["uncounted"], row["refused"], row["cached"], row["tokens"]) == (4, 1, 1, 1, 15)


@pytest.mark.parametrize(("ours", "theirs"), [(98, False), (102, False), (97, True), (103, True), (None, False)])
def test_a_count_of_ours_that_differs_by_over_two_per_cent_is_counted(
    tmp_path: Path, ours: int | None, theirs: bool
) -> None:
    one = entry("a", prompt_tokens=60, completion_tokens=40, our_tokens=ours)
    row = grouped(stored(tmp_path, one))[0]
    assert (row["tokens"], row["disagreeing"]) == (100, int(theirs))
    assert disagrees(one) is theirs
    assert not disagrees(replace(one, counted_by="tokenizer"))


def test_groups_and_spans(tmp_path: Path) -> None:
    path = stored(
        tmp_path,
        entry("a", at=DAY - 0.5, key="key_b"),
        entry("b"),
        entry("c", at=DAY + 86_399.0, served=None, asked="gone", outcome="refused", money=0.0),
        entry("d", at=DAY + 86_400.0),
    )
    days = [(row["day"], row["requests"]) for row in grouped(path, "day")]
    assert days == [("2026-11-21", 1), ("2026-11-22", 2), ("2026-11-23", 1)]
    assert [(row["key"], row["day"]) for row in grouped(path, "key", "day", since=DAY, until=DAY + 86_400.0)] == [
        ("key_a", "2026-11-22")
    ]
    assert [(row["model"], row["outcome"]) for row in grouped(path, "model", "outcome", since=DAY)] == [
        ("fast", "ok"),
        ("gone", "refused"),
    ]
    with pytest.raises(UsageError, match="modell") as error:
        grouped(path, "modell")
    assert "'model'" in error.value.remedy
    assert grouped(path, since=DAY * 2) == []


def test_csv_leaves_unknown_money_empty_and_holds_no_formula(tmp_path: Path) -> None:
    path = stored(tmp_path, entry("a", served=None, asked="=HYPERLINK(1)", money=None), entry("b", served="中文,模型"))
    rows = list(csv.DictReader(io.StringIO(csv_text(grouped(path, "model")))))
    assert [(row["model"], row["money"]) for row in rows] == [("'=HYPERLINK(1)", ""), ("中文,模型", "0.25")]
    assert csv_text([]) == ""


# ---- the command line


def call(module: Any, verb: str, *words: str) -> int:
    parser = VerbParser(verb, module.HELP)
    module.add_arguments(parser)
    args: Namespace = parser.parse_args(list(words))
    return int(module.run(args))


def keys(*words: str) -> int:
    return call(serve_keys, "serve keys", *words)


def test_the_command_line_makes_a_key_that_opens_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--database", str(tmp_path / "g.db"))
    options = ("--models", "gpt-*, 中文", "--money", "50", "--per", "month", "--expires", "90d", "--concurrent", "4")
    assert keys("create", "小王", *options, *where) == 0
    out, err = capsys.readouterr()
    secret = out.strip()
    assert secret not in err
    store = KeyStore(tmp_path / "g.db")
    found = store.find(secret)
    assert found is not None
    assert found.models == ("gpt-*", "中文")
    assert (found.allowance.money, found.allowance.per, found.allowance.concurrent) == (50.0, "month", 4)
    assert keys("list", *where) == 0
    listed = capsys.readouterr().out
    assert secret not in listed
    assert "小王" in listed
    assert "money 50 a month" in listed
    assert keys("rotate", "小王", "--json", *where) == 0
    renewed = json.loads(capsys.readouterr().out)["secret"]
    assert store.find(renewed) == found
    assert keys("revoke", "小王", *where) == 0
    assert keys("list", "--json", *where) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["keys"][0]["state"] == "revoked"
    store.close()


@pytest.mark.parametrize(
    "words",
    [
        ("create",),
        ("revoke",),
        ("list", "bot"),
        ("create", "bot", "--per", "day"),
        ("create", "bot", "--expires", "soon"),
        ("create", "bot", "--grace", "1h"),
        ("revoke", "bot", "--money", "5"),
        ("revoke", "bot", "--admin"),
        ("rotate", "bot", "--grace", "-1h"),
        ("delete", "bot"),
    ],
)
def test_a_command_that_cannot_be_meant_says_what_to_write(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as error:
        keys(*words)
    assert error.value.remedy


@pytest.mark.parametrize("words", [("keys", "list"), ("keys", "revoke", "bot"), ("keys", "rotate", "bot"), ("usage",)])
@pytest.mark.parametrize("option", ["--store", "--database"])
def test_a_mistyped_place_is_told_and_not_made(words: tuple[str, ...], option: str, tmp_path: Path) -> None:
    verb, *rest = words
    with pytest.raises(UsageError, match="no gateway database at") as error:
        call(
            {"keys": serve_keys, "usage": serve_usage}[verb], f"serve {verb}", *rest, option, str(tmp_path / "mistyped")
        )
    assert "--store" in (error.value.remedy or "")
    assert not any(tmp_path.iterdir())


def test_usage_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored(tmp_path, entry("a"), entry("b", money=None, our_tokens=99))
    where = ("--database", str(path))
    assert call(serve_usage, "serve usage", "--by", "key,model,day", "--since", "2026-11", *where) == 0
    shown = capsys.readouterr().out
    assert "1 unpriced, the others 0.2500; 1 counted otherwise by us" in shown
    assert call(serve_usage, "serve usage", "--json", "--by", "model", *where) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"][0]["requests"], found["rows"][0]["money"]) == (2, None)
    assert call(serve_usage, "serve usage", "--csv", "--until", "2026-11-22T00:00", *where) == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError):
        call(serve_usage, "serve usage", "--csv", "--json", *where)
    with pytest.raises(UsageError, match="no moment"):
        call(serve_usage, "serve usage", "--since", "yesterdayish", *where)


def test_spans_and_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [serve_keys.span_s(text) for text in ("45s", "30min", "12h", "90d", "2w")] == [
        45, 1800, 43_200, 7_776_000, 1_209_600,
    ]  # fmt: skip
    monkeypatch.setattr(serve_keys.time, "time", lambda: DAY)
    assert serve_keys.moment("1d") == DAY - 86_400
    assert serve_keys.moment("1d", future=True) == DAY + 86_400
    assert serve_keys.moment("2026-11-22") == DAY
    assert serve_keys.moment("2026-11-22T08:00+08:00") == DAY
    assert serve_keys.moment("2026-11") == DAY - 21 * 86_400


# --- old entries go, sums stay


def of_many_days(folder: Path) -> Path:
    entries = [
        entry(
            f"e{day}-{n}",
            at=DAY + day * 86_400.0 + n * 5000.0,
            key=f"key_{'ab'[n % 2]}",
            served=[None, "fast", "slow"][n % 3],
            asked="smart",
            outcome=["ok", "ok", "refused", "cut_short"][n % 4],
            money=None if n == 3 else 0.25,
            our_tokens=99 if n == 5 else 15,
            cached=n == 6,
        )
        for day in (-40, -2, -1, 0)
        for n in range(12)
    ]
    return stored(folder, *entries)


def test_what_is_deleted_stays_in_every_sum_and_budget(tmp_path: Path) -> None:
    path = of_many_days(tmp_path)
    groupings = ((), ("key",), ("model", "outcome"), ("key", "model", "day", "outcome"))
    before = [grouped(path, *by) for by in groupings]
    since = grouped(path, "key", since=DAY - 86_400)
    database = connect(path)
    spent_before = [spent(database, "key_a", at) for at in (None, DAY - 2 * 86_400)]
    assert forget(database, DAY + 3600) == 36  # today stays
    assert forget(database, DAY + 3600) == 0
    assert [spent(database, "key_a", at) for at in (None, DAY - 2 * 86_400)] == spent_before
    assert database.rows("SELECT COUNT(*) FROM entries") == [(12,)]
    database.close()
    assert [grouped(path, *by) for by in groupings] == before
    assert grouped(path, "key", since=DAY - 86_400) == since
    stored(tmp_path, entry("late", at=DAY - 86_400))  # one that comes after its day was deleted
    database = connect(path)
    assert forget(database, DAY) == 1
    database.close()
    assert grouped(path)[0]["requests"] == before[0][0]["requests"] + 1


def test_deleting_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = of_many_days(tmp_path)
    words = ["serve", "usage", "--database", str(path)]
    assert main([*words, "--delete", "--before", "2026-11-21", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": 24, "before": "2026-11-21"}
    for wrong in (["--delete"], ["--before", "90d"], ["--delete", "--before", "2999-01-01"],
                  ["--delete", "--before", "90d", "--csv"], ["--delete", "--before", "soon"]):  # fmt: skip
        assert main([*words, *wrong]) == 2
        assert "remedy: " in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    assert sum(row["requests"] for row in json.loads(capsys.readouterr().out)["rows"]) == 48


def test_what_stays_unknown_is_charged_to_the_budget_and_to_no_sum(tmp_path: Path) -> None:
    left = entry("b", prompt_tokens=None, completion_tokens=None, money=None, outcome="client_left")
    path = stored(tmp_path, entry("a"), replace(left, estimated_tokens=600, estimated_money=0.5))
    database = connect(path)
    assert spent(database, "key_a") == Spent(15 + 600, pytest.approx(0.25 + 0.5))  # type: ignore[arg-type]
    (row,) = sums(database, ())
    assert (row["tokens"], row["money"], row["known_money"], row["uncounted"]) == (15, None, 0.25, 1)
    assert forget(database, DAY + 10 * 86400) == 2
    assert spent(database, "key_a") == Spent(615, pytest.approx(0.75))  # type: ignore[arg-type]
    database.close()


def test_a_database_of_version_1_is_raised(tmp_path: Path) -> None:
    path = stored(tmp_path, entry("a"))
    with sqlite3.connect(path) as connection:
        for table in ("entries", "past"):
            for column in ("estimated_tokens", "estimated_money"):
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("UPDATE counters SET value = 1 WHERE name = 'schema'")
    connection.close()
    both = [connect(path), connect(path)]
    assert spent(both[1], "key_a") == Spent(15, 0.25)
    for database in both:
        database.close()
    stored(tmp_path, entry("b", estimated_tokens=7))
