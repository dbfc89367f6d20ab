"""Full text: Chinese and English alike, single characters, no syntax in queries."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.tiers.retrieval import fulltext
from nacre.tiers.retrieval.terms import folded, query_terms, terms

TEXTS = {
    1: "Refunds are paid within 5 working days to the same card.",
    2: "退款会在五个工作日内退回原来的银行卡。",
    3: "Öffnungszeiten: das Café in Zürich",
    4: "全角ＡＢＣ１２３和半角",
    5: "他说：好",
    6: "policies and boxes",
}


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    found = sqlite3.connect(":memory:")
    fulltext.create(found)
    fulltext.add(found, ((number, "", text) for number, text in TEXTS.items()))
    return found


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("refund", 1), ("WORKING day", 1), ("退款", 2), ("银行卡", 2), ("卡", 2), ("内", 2), ("好", 5), ("他", 5),
        ("zurich cafe", 3), ("offnungszeiten", 3), ("abc123", 4), ("ａｂｃ１２３", 4), ("policy", 6), ("boxes", 6),
    ],
)  # fmt: skip
def test_finds(database: sqlite3.Connection, query: str, number: int) -> None:
    assert fulltext.search(database, query, 3)[0][0] == number


def test_a_character_is_found_wherever_it_stands_in_a_run() -> None:
    database = sqlite3.connect(":memory:")
    fulltext.create(database)
    fulltext.add(database, [(1, "", "甲乙丙")])
    assert [bool(fulltext.search(database, one, 1)) for one in "甲乙丙丁"] == [True, True, True, False]


@pytest.mark.parametrize(
    "query",
    ['"', "refund OR", "NEAR(a b)", "body:refund", "refund*", "-refund", "(", "^refund", "a AND", "'; DROP", "{}"],
)
def test_no_query_is_syntax(database: sqlite3.Connection, query: str) -> None:
    fulltext.search(database, query, 3)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_query_and_finds_itself(text: str) -> None:
    database = sqlite3.connect(":memory:")
    fulltext.create(database)
    fulltext.add(database, [(1, "", text), (2, "", "other words")])
    found = fulltext.search(database, text, 2)
    assert bool(list(terms(text))) == bool(found)
    assert not found or 1 in {number for number, _ in found}


def test_long_queries_are_whole(database: sqlite3.Connection) -> None:
    words = " ".join(f"word{number}" for number in range(5000)) + " refund"
    assert fulltext.search(database, words, 1)[0][0] == 1


def test_terms() -> None:
    assert list(terms("退款 ok")) == ["退款", "款", "ok"]
    assert query_terms("退款退 a") == (["退款", "款退", "a"], [])
    assert query_terms("卡 cards") == (["card"], ["卡"])
    assert folded("Ｃａｆé İ") == "cafe i"
