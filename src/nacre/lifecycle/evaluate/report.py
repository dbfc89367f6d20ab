"""One HTML file that opens offline: no address of another file or host, the same bytes for the same content."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template

from nacre.lifecycle.evaluate import sections
from nacre.lifecycle.evaluate.content import Report
from nacre.lifecycle.evaluate.markup import text
from nacre.lifecycle.evaluate.words import Words

# A section costs one function and one line here; the key is its anchor and its title in `words`.
SECTIONS: dict[str, Callable[[Report, Words], str]] = {
    "results": sections.results,
    "comparison": sections.comparison,
    "tables": sections.tables,
    "samples": sections.samples,
    "training": sections.training,
    "roc": sections.roc,
    "calibration": sections.calibration,
    "confusion": sections.confusion,
    "classes": sections.classes,
    "mistakes": sections.mistakes,
    "data": sections.data,
    "lineage": sections.lineage,
    "anatomy": sections.anatomy,
    "settings": sections.settings,
}


def render(report: Report) -> str:
    """The page as text."""
    words = Words(report.language)
    filled = {name: html for name, draw in SECTIONS.items() if (html := draw(report, words))}
    body = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{text(words(name))}</h2>{html}</section>'
        for name, html in filled.items()
    )
    links = "".join(f'<li><a href="#{name}">{text(words(name))}</a></li>' for name in filled)
    notes = "".join(f"<li>{text(note)}</li>" for note in report.notes)
    aside = f'<aside aria-label="{text(words("notes"))}"><h2>{text(words("notes"))}</h2><ul>{notes}</ul></aside>'
    return Template((files(__package__) / "templates" / "report.html").read_text(encoding="utf-8")).substitute(
        language="zh-CN" if report.language == "zh" else "en",
        title=text(report.title),
        kind=text(words("report")),
        verdict=text(report.verdict),
        contents=text(words("contents")),
        links=links,
        notes=aside if notes else "",
        body=body,
    )


def write(report: Report, path: Path) -> None:
    """Writes the page to `path`."""
    path.write_text(render(report), encoding="utf-8", newline="\n")
