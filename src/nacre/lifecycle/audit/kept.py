"""A kept audit read back, with its sentences as they were made, so that they can be said in either language.

`result.json` holds what `nacre audit --json` prints: sentences in English. `sentences.json` beside it holds of each
its template and values. A report kept without it is read all the same; its sentences stay English.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nacre.errors import IntegrityError, NacreError
from nacre.lifecycle.audit.messages import MESSAGES
from nacre.lifecycle.audit.said import Said, clauses, paragraph, say, term
from nacre.lifecycle.audit.verdict import KINDS, STAGES, Pair, StageVerdict
from nacre.lifecycle.audit.words import keys

STAGE, RESULT, SENTENCES = "audit.report", "result.json", "sentences.json"
# What a value of a kept file can set off in a sentence or a drawing that it does not fit.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
_JOINS = {"{clauses}": clauses, "{sentences}": paragraph}
_REMEDY = "restore it from a copy, or audit again"


def sentences_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Every sentence of the pairs by its English text: template and values. Those that could not be made again of
    plain values are left out."""
    found = {str(one): {"template": one.template, "values": _plain(one.values)} for one in _said(list(pairs))}
    known = _Sentences(found)
    return {text: row for text, row in found.items() if isinstance(known(text), Said)}


def read(folder: Path) -> tuple[Pair, ...]:
    """The pairs of a report artifact, the strongest first; raises IntegrityError for what is no audit."""
    found = _json(folder / RESULT)
    said = _json(folder / SENTENCES) if (folder / SENTENCES).exists() else {}
    try:
        return from_objects(found, said)
    except NacreError as error:
        raise IntegrityError(f"{folder / RESULT} cannot be read: {error.message}", remedy=_REMEDY) from None


def from_objects(found: Any, said: Any) -> tuple[Pair, ...]:
    """The pairs of `as_object` and `sentences_of`; raises IntegrityError naming what does not fit."""
    try:
        plain = found.get("pairs") or [{**found, "reference": found["references"][0]}]
        pairs: tuple[Pair, ...] = _adapter().validate_python(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise IntegrityError(f"no result of an audit: {where}: {first['msg']}", remedy=_REMEDY) from None
    except UNFIT:
        raise IntegrityError("no result of an audit", remedy=_REMEDY) from None
    for pair in pairs:
        _check(pair)
    known = _Sentences(said if isinstance(said, Mapping) else {})
    return tuple(_spoken(pair, known) for pair in pairs)


def _check(pair: Pair) -> None:
    """What a report looks up by name has to be of the names there are."""
    for name, stage in pair.stages.items():
        if name != stage.stage or name not in STAGES:
            raise IntegrityError(f"no result of an audit: there is no stage {name!r}", remedy=_REMEDY)
        if stage.kind is not None and stage.kind not in KINDS:
            raise IntegrityError(f"no result of an audit: there is no kind {stage.kind!r}", remedy=_REMEDY)


class _Sentences:
    """Sentences by their English text. What does not give that text again is not taken for its translation."""

    def __init__(self, rows: Mapping[str, Any]) -> None:
        self._rows = rows
        self._made: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        if text in self._rows and text not in self._made:
            self._made[text] = text  # a sentence that stands in itself is its text
            self._made[text] = self._again(text, self._rows[text])
        return self._made.get(text, text)

    def _again(self, text: str, row: Any) -> str:
        try:
            template, values = row["template"], {name: self.inside(value) for name, value in row["values"].items()}
            if template == "{word}" and values["word"] in keys():
                made = term(values["word"])
            elif template in _JOINS:
                made = _JOINS[template](values["parts"])
            elif template in MESSAGES:
                made = say(template, **values)
            else:
                return text
        except UNFIT:
            return text
        return made if str(made) == text else text

    def inside(self, value: Any) -> Any:
        """A plain value with every sentence in it."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, list | tuple):
            return tuple(self.inside(one) for one in value)
        if isinstance(value, Mapping):
            return {key: self.inside(one) for key, one in value.items()}
        return value


def _spoken(pair: Pair, known: _Sentences) -> Pair:
    stages = {name: _stage(stage, known) for name, stage in pair.stages.items()}
    return replace(pair, summary=known(pair.summary), stages=stages, control=known.inside(pair.control))


def _stage(stage: StageVerdict, known: _Sentences) -> StageVerdict:
    evidence = tuple(
        replace(one, text=known(one.text), assumption=known(one.assumption), detail=_at_top(one.detail, known))
        for one in stage.evidence
    )
    return replace(
        stage,
        text=known(stage.text),
        reason=stage.reason and known(stage.reason),
        power=stage.power and known(stage.power),
        not_tested=known.inside(stage.not_tested),
        notes=known.inside(stage.notes),
        detail=_at_top(stage.detail, known),
        evidence=evidence,
    )


def _at_top(detail: Mapping[str, Any], known: _Sentences) -> dict[str, Any]:
    """A detail with its sentences; lists of figures, which may be long, as they are."""
    return {key: one if isinstance(one, list) else known.inside(one) for key, one in detail.items()}


def _said(value: Any) -> Iterator[Said]:
    """Every sentence in a value, those inside of sentences too."""
    if isinstance(value, Said):
        yield value
        yield from _said(value.values)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from _said(getattr(value, item.name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _said(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _said(one)


def _plain(value: Any) -> Any:
    """A value as JSON has it; what JSON has not, as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return str(value)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{file} cannot be read: {error}", remedy=_REMEDY) from None


@cache
def _adapter() -> TypeAdapter[tuple[Pair, ...]]:
    return TypeAdapter(tuple[Pair, ...])
