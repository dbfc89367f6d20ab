"""Answers in which a teacher model names itself ("I am ... by ...", "我是由……开发的……") are found and dealt with.

A student trained on them says that it is its teacher. The patterns ask for a first person: an article about a company,
or a question about its model, is no self-identification. `scrub_patterns.py` holds the patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from nacre.data.report import DropReport, Step
from nacre.data.rows import Row
from nacre.data.scrub_patterns import NAMES, PATTERNS
from nacre.errors import ConfigError, closest

Action = Literal["drop", "mask", "report"]
STEP = "scrub"


@dataclass(frozen=True)
class ScrubConfig:
    """`action` on a row that matches: `drop` it, `mask` the names in the matching text, or only `report` it.

    `mask` writes the placeholders `{{name}}` and `{{author}}`; a match without a name to mask drops the row, counted
    apart. `patterns`: names of `PATTERNS`, empty for all. `fields`: text fields that a model wrote; empty means
    `messages` (the assistant's only), `response`, `output`, `answer` or `target`, whichever a row has.
    """

    action: Action = "drop"
    patterns: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ConfigError(f"scrub action {self.action!r} is unknown", remedy=closest(self.action, get_args(Action)))
        for name in self.patterns:
            if name not in PATTERNS:
                raise ConfigError(f"scrub pattern {name!r} is unknown", remedy=closest(name, PATTERNS))


ANSWER_FIELDS = ("messages", "response", "output", "answer", "target")
# A masked match reaches to the end of its sentence: what follows "I am ..." often names the maker.
_SENTENCE_END = re.compile(r"[。！？!?\n]|\.(?=\s|$)")


def find(text: str, patterns: Iterable[str] = ()) -> list[tuple[str, re.Match[str]]]:
    """(pattern name, match) of every self-identification in a text."""
    chosen = tuple(patterns) or tuple(PATTERNS)
    return [(name, match) for name in chosen for match in PATTERNS[name].regex.finditer(text)]


def scrub(rows: Iterable[Row], config: ScrubConfig, report: DropReport) -> Iterator[Row]:
    """Rows without a teacher's self-identification in their answers, or with it masked or reported."""
    tally = report.step(STEP)
    for row in rows:
        size = tally.enter(row)
        found = [hit for text in answers(row, config.fields) for hit in find(text, config.patterns)]
        if not found:
            tally.leave(size=size)
            yield row
            continue
        kept = _act(row, found, config, tally)
        if kept is not None:
            tally.leave(kept)
            yield kept


def _act(row: Row, found: list[tuple[str, re.Match[str]]], config: ScrubConfig, tally: Step) -> Row | None:
    name, match = found[0]
    around = match.string[max(0, match.start() - 20) : match.end() + 40]
    if config.action == "report":
        tally.note(f"self-identification {name}", around)
        return row
    if config.action == "drop":
        tally.drop(f"self-identification {name}", around)
        return None
    if any(PATTERNS[kind].generic for kind, _ in found):
        tally.drop(f"self-identification {name}: no name to mask", around)
        return None
    tally.change(f"self-identification {name} masked", around)
    return _masked(row, config)


def answers(row: Row, fields: tuple[str, ...] = ()) -> list[str]:
    """The texts of a row that a model wrote: the assistant's messages, or the answer fields."""
    texts = []
    for name in fields or ANSWER_FIELDS:
        value = row.get(name)
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            texts += [str(part["content"]) for part in value if _is_answer(part)]
    return texts


def _is_answer(part: object) -> bool:
    return isinstance(part, dict) and part.get("role") == "assistant" and "content" in part


def _masked(row: Row, config: ScrubConfig) -> Row:
    masked = dict(row)
    for name in config.fields or ANSWER_FIELDS:
        value = row.get(name)
        if isinstance(value, str):
            masked[name] = mask(value, config.patterns)
        elif isinstance(value, list):
            masked[name] = [
                part | {"content": mask(str(part["content"]), config.patterns)} if _is_answer(part) else part
                for part in value
            ]
    return masked


def mask(text: str, patterns: Iterable[str] = ()) -> str:
    """The text with model names as `{{name}}` and vendors as `{{author}}` in self-identifying sentences, only there."""
    masked, done = "", 0
    for start, stop in sorted((match.start(), _sentence_end(text, match.end())) for _, match in find(text, patterns)):
        if stop > done:
            start = max(start, done)
            masked += text[done:start] + NAMES.sub(_placeholder, text[start:stop])
            done = stop
    return masked + text[done:]


def _sentence_end(text: str, begin: int) -> int:
    end = _SENTENCE_END.search(text, begin)
    return end.start() if end else len(text)


def _placeholder(match: re.Match[str]) -> str:
    return "{{name}}" if match["model"] else "{{author}}"
