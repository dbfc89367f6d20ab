"""One HTML file that opens offline: no script, no address of another file or host, everything of a file escaped.

The frame (head, colours for light, dark and print, contents) is that of an evaluation's report; `audit.css` adds what
only an audit shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from string import Template

from nacre.lifecycle import evaluate
from nacre.lifecycle.audit.report import sections
from nacre.lifecycle.audit.sentences import names
from nacre.lifecycle.audit.verdict import Pair
from nacre.lifecycle.audit.words import Words
from nacre.lifecycle.evaluate.markup import text

# A section costs one function and one line here; the key is its anchor and its title in `words`.
SECTIONS: Mapping[str, Callable[[Pair, Words], str]] = {
    "stages": sections.stages,
    "evidence": sections.evidence,
    "untested": sections.untested,
    "layers": sections.layers,
    "delta": sections.delta,
    "names": sections.rename_map,
    "control": sections.control,
    "cost": sections.cost,
}


def render(pairs: Sequence[Pair], language: str = "en", date: str | None = None) -> str:
    """The page as text: the strongest pair in full, below a table of all where there are several.

    `date` is that of the audit; today's where None.
    """
    words, best, date = Words(language), pairs[0], date or datetime.now(UTC).strftime("%Y-%m-%d")
    drawn = {"ranking": sections.ranking(pairs, words)} if len(pairs) > 1 else {}
    drawn |= {name: draw(best, words) for name, draw in SECTIONS.items()}
    drawn["cite"] = sections.cite(best, words, date)
    filled = {name: html for name, html in drawn.items() if html}
    body = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{text(words(name))}</h2>{html}</section>'
        for name, html in filled.items()
    )
    links = "".join(f'<li><a href="#{name}">{text(words(name))}</a></li>' for name in filled)
    a, b = names(best)
    many = words("title_many", subject=a, n=len(pairs))
    page = Template(_file(evaluate.__name__, "report.html")).substitute(
        language="zh-CN" if language == "zh" else "en",
        title=text(many if len(pairs) > 1 else words("title", subject=a, reference=b)),
        kind=text(words("report")),
        verdict=sections.verdict(best, words),
        contents=text(words("contents")),
        links=links,
        notes=sections.glance(pairs, words, date),
        body=body,
    )
    return page.replace("</style>", _file(__package__, "audit.css") + "</style>", 1)


def _file(package: str, name: str) -> str:
    return (files(package) / "templates" / name).read_text(encoding="utf-8")
