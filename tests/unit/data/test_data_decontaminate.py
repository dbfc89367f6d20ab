"""Contamination: trap 53."""

from __future__ import annotations

import random

import pytest

from nacre.data.decontaminate import DecontaminateConfig, TestIndex, decontaminate
from nacre.data.report import DropReport
from nacre.data.rows import Row
from nacre.errors import DataError

CONFIG = DecontaminateConfig()


def sentence(rng: random.Random, n: int, han: bool) -> str:
    if han:
        return "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(n))
    return " ".join(f"word{rng.randrange(100_000)}" for _ in range(n))


def run(rows: list[Row], tests: list[Row], config: DecontaminateConfig = CONFIG) -> tuple[list[Row], DropReport]:
    report = DropReport()
    return list(decontaminate(rows, TestIndex({"bench": tests}, config), report)), report


@pytest.mark.parametrize(("han", "n"), [(False, 13), (True, 20)])
def test_trap_53_a_planted_ngram_is_found(han: bool, n: int) -> None:
    rng = random.Random(0)
    tests: list[Row] = [{"text": sentence(rng, 40, han)} for _ in range(20)]
    clean: list[Row] = [{"text": sentence(rng, 100, han)} for _ in range(50)]
    joint = "" if han else " "
    parts = list(tests[7]["text"]) if han else tests[7]["text"].split()
    planted = joint.join([sentence(rng, 50, han), *parts[11 : 11 + n], sentence(rng, 50, han)]).upper()
    short = joint.join([sentence(rng, 50, han), *parts[11 : 11 + n - 1], sentence(rng, 50, han)])
    kept, report = run([*clean, {"text": planted}, {"text": short}], tests)
    assert kept == [*clean, {"text": short}]
    event = report.step("decontaminate").dropped["contains a row of test set bench"]
    assert event.count == 1
    assert "bench, row 8" in event.samples[0]["where"]


@pytest.mark.parametrize("han", [False, True])
def test_trap_53_boilerplate_does_not_flag(han: bool) -> None:
    rng = random.Random(1)
    instruction = sentence(rng, 30, han)
    licence = sentence(rng, 30, han)
    joint = "" if han else " "
    tests: list[Row] = [{"text": instruction + joint + sentence(rng, 30, han)} for _ in range(10)]
    tests.append({"text": licence + joint + sentence(rng, 30, han)})
    rows: list[Row] = [{"text": instruction + joint + sentence(rng, 60, han)} for _ in range(5)]
    rows += [{"text": licence + joint + sentence(rng, 60, han)} for _ in range(30)]
    rows.append({"text": tests[3]["text"]})
    kept, report = run(rows, tests)
    assert kept == rows[:-1]
    assert len(report.step("decontaminate").noted) == 2


def test_short_test_rows_are_found_whole() -> None:
    tests: list[Row] = [
        {"text": "怎么退货"},
        {"text": "Where is my card?"},
        {"text": "how can i change the address of my last order"},
    ]
    rows: list[Row] = [
        {"text": "怎么退货？"},
        {"text": "请问怎么退货呢"},
        {"text": "where is my card"},
        {"text": "Where is my card, please?"},
        {"text": "Hello, how can I change the address of my last order? Thanks."},
        {"text": "How can I change the address of my next order?"},
    ]
    kept, _ = run(rows, tests)
    assert [row["text"] for row in kept] == [rows[1]["text"], rows[3]["text"], rows[5]["text"]]


def test_an_iterator_and_an_empty_test_set() -> None:
    index = TestIndex({"a": [{"text": "x y"}]}, CONFIG)
    assert list(decontaminate(iter([{"text": "x y"}, {"text": "z"}]), index, DropReport())) == [{"text": "z"}]
    with pytest.raises(DataError, match="'empty' has no rows"):
        TestIndex({"empty": []}, CONFIG)
