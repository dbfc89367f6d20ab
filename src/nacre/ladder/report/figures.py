"""Figures as people read them: seconds, milliseconds, counts, money, scores; None is the word for unknown."""

from __future__ import annotations

from nacre.ladder.result import Row
from nacre.ladder.words import Words, money
from nacre.lifecycle.evaluate.markup import percent


def score(row: Row) -> str:
    """The score in percent."""
    return "–" if row.score is None else percent(row.score)


def span(row: Row) -> str:
    """The interval's ends in percent, without the sign."""
    if row.ci_low is None or row.ci_high is None:
        return ""
    return f"{100 * row.ci_low:.1f}–{100 * row.ci_high:.1f}"


def milliseconds(value: float) -> str:
    """A latency to three digits: `0.42`, `3.1`, `120`, `2,300`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds(value: float, words: Words) -> str:
    """A duration: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 60:
        return f"{value:.2g} {words('s')}" if value < 10 else f"{value:.0f} {words('s')}"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} {words('min')} {rest:02d} {words('s')}"
    return f"{minutes // 60} {words('h')} {minutes % 60:02d} {words('min')}"


def count(value: int) -> str:
    """A number of parameters: `812`, `57 k`, `22.7 M`, `1.10 B`."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return str(value)


def memory(mib: float) -> str:
    """Memory: `310 MiB`, `2.4 GiB`."""
    return f"{mib / 1024:.2g} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def cost(row: Row, currency: str, words: Words) -> str:
    """Money per 1,000 requests, or the word for unknown."""
    return words("unknown") if row.cost_per_1k is None else money(row.cost_per_1k, currency)


def short_tier(row: Row, words: Words) -> str:
    """A tier's name as a label; a variant (`relay:small`) keeps what sets it apart."""
    tier, _, variant = row.name.partition(":")
    known = f"short_{tier}"
    name = words(known) if known in words.TABLE else tier
    return f"{name} · {variant}" if variant else name


def owns_letters(row: Row) -> str:
    """K W D P I: capital is own, small is borrowed, in brackets called, a dot is none."""
    letters = ""
    for part, holding in row.owns.items():
        letter = part[0]
        shown = {"own": letter.upper(), "borrowed": letter, "called": f"({letter})"}
        letters += shown.get(holding.state, "·")
    return letters or "–"
