"""Logs of any length as curves: peaks survive, gaps are gaps, nothing is read twice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nacre.web import runlog
from nacre.web.curves import Line, chart, log_ticks, round_step
from nacre.web.runlog import Curve, Point, Reading, Series, read_log


def _write(path: Path, rows: Iterable[dict[str, Any]], mode: str = "w") -> Path:
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def _curve(reading: Reading, name: str) -> Curve:
    return next(one for one in reading.curves if one.name == name)


def _steps(curve: Curve) -> list[float]:
    return [point.step for line in curve.lines for point in line]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=700))
@example([float(step == 1234) - float(step == 777) for step in range(5000)])
@settings(deadline=None, max_examples=40)
def test_thinning_keeps_the_highest_the_lowest_and_the_last_value_and_the_order(values: list[float]) -> None:
    series = Series()
    for step, value in enumerate(values):
        series.add(Point(step, step, value))
    (line,) = series.lines()
    assert len(line) <= 2 * runlog.MOST_BUCKETS + 1
    kept = [point.value for point in line]
    assert max(kept) == max(values)
    assert min(kept) == min(values)
    assert kept[-1] == values[-1]
    assert [point.step for point in line] == sorted(point.step for point in line)
    if len(values) <= runlog.MOST_BUCKETS:
        assert kept == values


def test_a_log_that_grows_is_read_on_and_half_a_line_waits(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", ({"time": step, "step": step, "loss": 1.0} for step in range(10)))
    with path.open("a") as file:
        file.write('{"time": 10, "step": 10, "lo')
    assert _steps(_curve(read_log(path), "loss")) == list(range(10))
    with path.open("a") as file:
        file.write('ss": 7.0}\n')
    found = read_log(path)
    last = _curve(found, "loss").last
    assert last is not None
    assert (last.step, last.value) == (10, 7.0)
    assert found.unread == 0


def test_values_that_are_no_numbers_leave_a_gap_and_are_counted(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": math.nan if 3 <= step < 6 else 1.0, "other": math.inf} for step in range(10)]
    found = read_log(_write(tmp_path / "m.jsonl", rows))
    loss = _curve(found, "loss")
    assert [len(line) for line in loss.lines] == [3, 4]
    assert (loss.missing, loss.first_missing, loss.count) == (3, 3, 10)
    assert _curve(found, "other").lines == []


def test_lines_that_are_no_rows_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'nonsense\n[1]\n\xff\xfe\n{"step": 1, "loss": 2, "name": "x", "ok": true}\n{"step": "x"}\n\n')
    found = read_log(path)
    assert found.unread == 3
    assert [curve.name for curve in found.curves] == ["loss"]


def test_what_a_resumed_run_logs_again_replaces_what_it_logged_before(tmp_path: Path) -> None:
    first = [{"time": step, "step": step, "total": 20, "loss": 1.0} for step in range(10)]
    again = [{"time": 1000, "event": "resumed", "attempt": 2}]
    again += [{"time": 1000 + step, "step": step, "total": 20, "loss": 2.0} for step in range(5, 20)]
    found = read_log(_write(tmp_path / "m.jsonl", [*first, *again]))
    loss = _curve(found, "loss")
    assert _steps(loss) == list(range(20))
    assert [point.value for line in loss.lines for point in line] == [1.0] * 5 + [2.0] * 15
    assert found.attempts == 2
    assert found.seconds == 9 + 19  # without the night between


def test_steps_that_begin_again_begin_another_line(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1.0} for _ in range(3) for step in range(4)]
    assert [len(line) for line in _curve(read_log(_write(tmp_path / "m.jsonl", rows)), "loss").lines] == [4, 4, 4]


def test_a_file_that_was_replaced_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", ({"step": step, "loss": 1.0} for step in range(50)))
    read_log(path)
    path.unlink()
    _write(path, [{"step": 3, "loss": 5.0}])
    assert _steps(_curve(read_log(path), "loss")) == [3]


def test_of_a_log_too_large_to_read_even_parts_with_both_ends_are_read_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog, "MOST_BYTES", 64 << 10)
    monkeypatch.setattr(runlog, "_PART", 4 << 10)
    path = _write(tmp_path / "m.jsonl", ({"step": step, "total": 40_000, "loss": step} for step in range(40_000)))
    found = read_log(path)
    loss = _curve(found, "loss")
    steps = _steps(loss)
    assert (steps[0], steps[-1]) == (0, 39_999)
    assert found.unread == 0
    read = found.size - found.left_out
    assert 0.5 * runlog.MOST_BYTES < read <= runlog.MOST_BYTES
    assert max(after - before for before, after in pairwise(steps)) < 40_000 / 12
    _write(path, [{"step": 40_000, "loss": 1}], "a")
    assert read_log(path).left_out == found.left_out


def test_one_endless_line_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("x" * (3 << 20))
    assert read_log(path).unread >= 1


@given(st.floats(1e-12, 1e12), st.floats(1.0, 1e9))
@settings(deadline=None)
def test_ticks_are_round_few_and_around_the_values(low: float, factor: float) -> None:
    high = low * factor
    ticks = log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low * (1 + 1e-9)
    assert ticks[-1] >= high * (1 - 1e-9)
    assert f"{round_step(high):.0e}"[0] in "125"
    assert round_step(high) >= high * (1 - 1e-9)


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(-1e9, 1e9)), min_size=1, max_size=30), st.booleans())
@settings(deadline=None, max_examples=80)
def test_a_chart_stays_inside_its_frame_and_counts_what_it_cannot_show(
    dots: list[tuple[float, float]], log: bool
) -> None:
    found = chart([Line("x", [sorted(dots)], 0)], log=log)
    fits = [value for _, value in dots if value > 1e-300 or not log]
    if not fits:
        assert found is None
        return
    assert found is not None
    assert found.hidden == len(dots) - len(fits)
    (line,) = found.lines
    numbers = [pair.split() for pair in line.path.replace("M", "L").split("L") if pair]
    for x, y in [*((float(x), float(y)) for x, y in numbers), *line.dots]:
        assert found.left - 0.1 <= x <= found.right + 0.1
        assert found.top - 0.1 <= y <= found.bottom + 0.1
