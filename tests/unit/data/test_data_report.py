"""The report: counts that add up, a few samples, readable."""

from __future__ import annotations

from nacre.data.report import DropReport, shorten


def filled(n: int) -> DropReport:
    report = DropReport(n_samples=2)
    step = report.step("clean")
    for number in range(n):
        row = {"text": f"第{number}行"}
        size = step.enter(row)
        if number % 3 == 0:
            step.drop("short", row["text"], where=f"line {number}")
        else:
            step.leave(size=size)
    return report


def test_counts_add_up_and_samples_are_bounded() -> None:
    report = filled(30)
    step = report.step("clean")
    assert (step.rows_in, step.rows_out, step.rows_dropped) == (30, 20, 10)
    assert step.bytes_in > step.bytes_out > 0
    plain = report.to_dict()["steps"][0]
    assert plain["dropped"]["short"]["count"] == 10
    assert plain["dropped"]["short"]["samples"] == [
        {"where": "line 0", "text": "第0行"},
        {"where": "line 3", "text": "第3行"},
    ]


def test_merging_equals_counting_together() -> None:
    together, other = filled(6), filled(9)
    together.merge(other)
    step = together.step("clean")
    assert (step.rows_in, step.rows_out, step.rows_dropped) == (15, 10, 5)
    assert len(step.dropped["short"].samples) == 2


def test_the_table_says_what_why_and_shows_a_sample() -> None:
    table = filled(3).table()
    assert "dropped 1: short" in table
    assert "第0行" in table
    assert "第0行" not in filled(3).table(samples=False)


def test_samples_are_shortened_to_one_line() -> None:
    assert shorten("a\n b") == "a b"
    assert len(shorten("长" * 10_000)) == 160
    assert shorten("长" * 10_000).endswith("…")
