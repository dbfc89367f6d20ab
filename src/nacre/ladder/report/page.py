"""One HTML file that opens offline: no address of another file or host, no script, the same bytes for the same result.

The frame (head, colours for light, dark and print, contents) is that of an evaluation's report; `ladder.css` adds
what only the ladder shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from nacre.ladder.report import details, sections
from nacre.ladder.result import LadderResult
from nacre.ladder.words import Words
from nacre.lifecycle import evaluate
from nacre.lifecycle.evaluate.markup import text

CHOICES_FILE = "choices.json"  # in a rung: what its solver chose between on validation rows

# A section costs one function and one line here; the key is its anchor and its title in `labels.py`.
# Choices are drawn from what is passed beside the result.
SECTIONS: Mapping[str, Callable[[LadderResult, Words], str] | None] = {
    "ladder_tiers": sections.tiers,
    "ladder_quality": sections.quality,
    "ladder_time": sections.time,
    "ladder_owns": sections.owns,
    "ladder_between": details.between,
    "ladder_choices": None,
    "ladder_data": details.data,
    "ladder_method": details.method,
    "ladder_lineage": details.lineage,
}


def render(result: LadderResult, choices: Mapping[str, Any] | None = None) -> str:
    """The page as text. `choices` maps a tier to what it chose between on validation rows; else they are read from
    the rungs' folders."""
    words = Words(result.language)
    chosen = details.choices(result, choices_of(result) if choices is None else choices, words)
    drawn = {name: draw(result, words) if draw else chosen for name, draw in SECTIONS.items()}
    filled = {name: html for name, html in drawn.items() if html}
    body = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{text(words(name))}</h2>{html}</section>'
        for name, html in filled.items()
    )
    links = "".join(f'<li><a href="#{name}">{text(words(name))}</a></li>' for name in filled)
    page = Template(_file(evaluate.__name__, "report.html")).substitute(
        language="zh-CN" if words.language == "zh" else "en",
        title=text(result.task),
        kind=text(words("ladder_report")),
        verdict=sections.verdict(result),
        contents=text(words("contents")),
        links=links,
        notes=sections.cards(result, words) + sections.changes(result, words),
        body=body,
    )
    return page.replace("</style>", _file(__package__, "ladder.css") + "</style>", 1)


def write(result: LadderResult, path: Path, choices: Mapping[str, Any] | None = None) -> None:
    """Writes the page to `path`."""
    path.write_text(render(result, choices), encoding="utf-8", newline="\n")


def choices_of(result: LadderResult) -> dict[str, Any]:
    """`choices.json` of every rung that has one, by the row's name; a damaged one is there as the text of the error."""
    found: dict[str, Any] = {}
    for row in result.rows:
        file = Path(row.folder) / CHOICES_FILE if row.folder else None
        if file is not None and file.is_file():
            try:
                found[row.name] = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                found[row.name] = f"{CHOICES_FILE}: {error}"
    return found


def _file(package: str, name: str) -> str:
    return (files(package) / "templates" / name).read_text(encoding="utf-8")
