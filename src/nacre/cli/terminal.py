"""Text for terminals: display width (Chinese characters take two columns), truncation, tables, colour."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import IO

_COLOURS = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
_UNBOUNDED = 1_000_000


def width(text: str) -> int:
    """Columns that `text` takes: wide East Asian characters two, combining marks and control characters none."""
    return sum(map(_columns, text))


def truncate(text: str, columns: int) -> str:
    """`text` in at most `columns` columns, ended by an ellipsis where something was cut."""
    if width(text) <= columns:
        return text
    kept, used = [], 1
    for character in text:
        used += _columns(character)
        if used > columns:
            break
        kept.append(character)
    return "".join(kept) + "…"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """`text` filled with spaces to `columns`; `right` aligns it to the right."""
    filling = " " * max(0, columns - width(text))
    return filling + text if right else text + filling


def table(rows: Sequence[Sequence[str]], head: Sequence[str], *, columns: int | None = None) -> str:
    """Aligned columns under a head. The last column is cut to the terminal's width; elsewhere nothing is cut.

    A column whose cells are all numbers is aligned to the right.
    """
    cells = [[_one_line(cell) for cell in row] for row in [head, *rows]]
    widths = [max(width(row[index]) for row in cells) for index in range(len(head))]
    rights = [bool(rows) and all(_is_number(row[index]) for row in cells[1:]) for index in range(len(head))]
    limit = columns if columns is not None else terminal_columns()
    widths[-1] = max(12, min(widths[-1], limit - sum(widths[:-1]) - 2 * (len(head) - 1)))
    lines = []
    for row in cells:
        row = [*row[:-1], truncate(row[-1], widths[-1])]
        parts = [pad(cell, size, right=right) for cell, size, right in zip(row, widths, rights, strict=True)]
        lines.append("  ".join(parts).rstrip())
    rule = "  ".join("-" * size for size in widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def terminal_columns(stream: IO[str] | None = None) -> int:
    """Columns of the terminal behind `stream` (stdout); without one, no limit: pipes get whole lines."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else _UNBOUNDED


def coloured(text: str, colour: str, stream: IO[str] | None = None) -> str:
    """`text` in a colour, on a terminal that wants colours (https://no-color.org); as it is elsewhere."""
    wanted = (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wanted else text


def number(value: object) -> str:
    """A metric as people read it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def size(n_bytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024 or unit == "GiB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    raise AssertionError("unreachable")


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cc", "Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_number(text: str) -> bool:
    return text == "" or text.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()
