"""Small pieces of HTML: escaped text, tables, figures, numbers in the form a reader expects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape as _escape

from nacre.lifecycle.evaluate.content import Style
from nacre.metrics.bootstrap import Interval


@dataclass(frozen=True)
class Html:
    """Text that is markup already; everything else is escaped."""

    text: str


Cell = str | int | float | Html


def text(value: Cell) -> str:
    """A cell as HTML: markup as it is, numbers with thousands separated, text escaped."""
    if isinstance(value, Html):
        return value.text
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return _escape(value, quote=True)


def percent(share: float, digits: int = 1) -> str:
    """0.913 -> 91.3 %, the sign kept off the number by a thin space."""
    return f"{100 * share:.{digits}f}\u2009%"


def number(value: float, style: Style) -> str:
    """A figure as a reader expects it: a percentage, a whole count, or four significant digits."""
    if style == "percent":
        return percent(value)
    if style == "count":
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def ends(interval: Interval, style: Style) -> tuple[str, str]:
    """The interval's ends, in the style of its value."""
    low, high = number(interval.low, style), number(interval.high, style)
    return low.replace("\u2009%", ""), high


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], numeric: Sequence[int] = (), caption: str = "") -> str:
    """A table that scrolls sideways on its own; columns in `numeric` are set right."""

    def cells(tag: str, row: Sequence[Cell]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        return "".join(
            f"<{tag}{scope}{' class=num' if i in numeric else ''}>{text(cell)}</{tag}>" for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    label = f' aria-label="{text(caption)}"' if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="group"{label}><table>{title}'
        f"<thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Content behind a line that opens it."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def bar(share: float) -> Html:
    """A share as a number over a bar of its length."""
    width = max(0.0, min(1.0, share)) * 100
    return Html(f'<span class="bar" style="--w:{width:.1f}%">{percent(share)}</span>')


def legend(names: dict[str, int]) -> str:
    """Colour keys of a plot."""
    items = "".join(
        f'<li><i style="background:var(--s{colour})"></i>{text(name)}</li>' for name, colour in names.items()
    )
    return f'<ul class="legend">{items}</ul>'


def figure(drawing: str, caption: str = "", keys: dict[str, int] | None = None) -> str:
    """A drawing with its colour keys and caption; wide drawings scroll sideways."""
    note = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="scroll" tabindex="0">{drawing}</div>{legend(keys) if keys else ""}{note}</figure>'
