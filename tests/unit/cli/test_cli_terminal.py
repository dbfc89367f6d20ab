from __future__ import annotations

import io

import pytest

from nacre.cli.terminal import coloured, duration, number, pad, size, table, truncate, width


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("abc", 3), ("中文", 4), ("a中", 3), ("é", 1), ("ｱ", 1), ("！", 2), ("👍", 2)]
)
def test_width_counts_columns(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize("columns", range(1, 12))
def test_truncated_text_fits_and_says_that_it_was_cut(columns: int) -> None:
    cut = truncate("中文 and English", columns)
    assert width(cut) <= columns
    assert cut.endswith("…")


def test_text_that_fits_is_left_alone() -> None:
    assert truncate("中文", 4) == "中文"


def test_padding_aligns_wide_characters() -> None:
    assert [width(pad(text, 6)) for text in ("abc", "中文", "")] == [6, 6, 6]
    assert pad("7", 3, right=True) == "  7"


def test_table_aligns_columns_whatever_the_script() -> None:
    lines = table([["意图", "1,000", "x"], ["intents", "7", "y"]], ["name", "rows", "note"]).splitlines()
    assert [width(line) for line in lines[2:]] == [17, 17]
    assert lines[3] == "intents      7  y"


def test_table_cuts_only_the_last_column() -> None:
    lines = table([["a", "中" * 40]], ["name", "note"], columns=30).splitlines()
    assert width(lines[2]) <= 30
    assert lines[2].endswith("…")


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("x", "red", Tty()) == "\x1b[31mx\x1b[0m"
    assert coloured("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("x", "red", Tty()) == "x"


def test_figures_as_people_read_them() -> None:
    assert [number(one) for one in (1234567, 0.123456, 12345.6, True, "x")] == [
        "1,234,567",
        "0.1235",
        "12,346",
        "True",
        "x",
    ]
    assert [duration(one) for one in (0.04, 59.94, 61, 3700)] == ["0.0 s", "59.9 s", "1:01 min", "1:01 h"]
    assert [size(one) for one in (10, 2048, 5 * 2**20, 3 * 2**30)] == ["10 B", "2.0 KiB", "5.0 MiB", "3.0 GiB"]
