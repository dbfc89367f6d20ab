"""The chart of usage: a bar for every day, none hidden, and what an administrator's choice means."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from nacre.web.areas.usage import Asked, Chart, chart

TITLE = "{day}: {requests}, {refused}, {failed}"


def day(name: str, requests: int, refused: int = 0, failed: int = 0) -> dict[str, Any]:
    return {"day": name, "requests": requests, "refused": refused, "failed": failed}


def heights(made: Chart, name: str) -> dict[str, float]:
    (bar,) = (one for one in made.bars if one.day == name)
    return {kind: tall for kind, _, tall in bar.parts}


def test_days_without_requests_are_gaps_and_parts_are_in_proportion() -> None:
    made = chart([day("2026-11-01", 100, refused=20, failed=30), day("2026-11-04", 10)], TITLE)
    assert [bar.day for bar in made.bars] == ["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04"]
    assert made.bars[1].parts == ()
    tall = heights(made, "2026-11-01")
    assert tall["f6"] / tall["f1"] == pytest.approx(20 / 50, rel=0.01)
    assert tall["f5"] / tall["f1"] == pytest.approx(30 / 50, rel=0.01)
    assert made.bars[0].title == "2026-11-01: 100, 20, 30"
    assert sum(tall.values()) == pytest.approx(190, abs=0.1), "the highest day of 100 fills the axis of 100"


def test_parts_of_a_bar_stand_on_each_other_inside_the_chart() -> None:
    made = chart([day("2026-11-01", 7, refused=2, failed=3)], TITLE)
    parts = made.bars[0].parts
    assert [kind for kind, _, _ in parts] == ["f1", "f6", "f5"]
    for (_, upper, _), (_, lower, tall) in pairwise(parts):
        assert lower + tall == pytest.approx(upper, abs=0.05)
    assert all(0 <= y <= 190 for _, y, _ in parts)


def test_one_request_among_a_million_can_be_seen() -> None:
    made = chart([day("2026-11-01", 1_000_000), day("2026-11-02", 1)], TITLE)
    assert heights(made, "2026-11-02")["f1"] >= 0.5


def test_days_beyond_a_year_are_counted_as_left_out() -> None:
    made = chart([day("2024-01-01", 1), day("2026-01-01", 1)], TITLE)
    assert len(made.bars) == 366
    assert made.left_out == 732 - 366
    assert made.bars[-1].day == "2026-01-01"
    assert all(bar.x + bar.width <= made.width for bar in made.bars)


@pytest.mark.parametrize(("most", "top"), [(1, 1), (3, 5), (11, 20), (51, 100), (100, 100), (101, 200)])
def test_the_axis_ends_at_a_round_number(most: int, top: int) -> None:
    made = chart([day("2026-11-01", most)], TITLE)
    assert made.ticks[-1] == (0.0, top)
    assert made.ticks[0] == (190.0, 0)
    assert all(isinstance(value, int) for _, value in made.ticks)


def test_a_choice_is_an_address_that_can_be_sent_on() -> None:
    asked = Asked("", 1_793_491_200.0, 1_793_577_600.0, "key_a", "m")
    assert asked.query == {"span": None, "from": "2026-11-01", "to": "2026-11-01", "key": "key_a", "model": "m"}
    assert Asked("7", 1.0, None, None, None).query == {"span": "7", "key": None, "model": None}
