"""A kept result read back, and said in either language."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nacre.errors import IntegrityError, NacreError
from nacre.ladder.recommend import Asked, recommend
from nacre.ladder.result import LadderResult

STAGE, RESULT = "ladder.report", "result.json"


def read(file: Path) -> LadderResult:
    """The result that `LadderResult.to_dict` gave; fields of later versions are passed over.

    Raises IntegrityError for a file that is not there, or holds something else.
    """
    try:
        return from_dict(json.loads(file.read_bytes(), parse_constant=_refused, parse_float=_finite))
    except (OSError, ValueError, RecursionError) as error:
        why = str(error)
    except NacreError as error:
        why = error.message
    raise IntegrityError(f"{file} cannot be read: {why}", remedy="restore it from a copy, or climb again")


def from_dict(plain: Any) -> LadderResult:
    """The result of a JSON object; raises IntegrityError naming the first field that does not fit."""
    try:
        return _adapter().validate_python(_fields_of(plain))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise IntegrityError(f"no result of a ladder: {where}: {first['msg']}", remedy="climb again") from None


def in_language(result: LadderResult, language: str, margin: float = 0.0) -> LadderResult:
    """The result with its sentences in another language (`en`, `zh`).

    They are made again from the same rows; where that would recommend another tier than was recommended when it was
    kept, they stay as they were. Reasons, solvers and remarks are kept as texts and stay in the language of the task.
    """
    if result.language.casefold().partition("-")[0] == language:
        return result
    again = recommend(result.rows, Asked(result.metric, language, result.currency, margin))
    same = again.name == result.recommended.name
    return replace(result, language=language, recommended=again if same else result.recommended)


def _fields_of(plain: Any) -> Any:
    """The JSON object with a holding's `from`, which Python keeps for itself, as the field `origin`."""
    rows = plain.get("rows") if isinstance(plain, Mapping) else None
    if not isinstance(rows, list):
        return plain
    return {**plain, "rows": [_row(row) for row in rows]}


def _row(row: Any) -> Any:
    owns = row.get("owns") if isinstance(row, Mapping) else None
    if not isinstance(owns, Mapping):
        return row
    named = {
        part: {**one, "origin": one.get("from")} if isinstance(one, Mapping) else one for part, one in owns.items()
    }
    return {**row, "owns": named}


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)


@cache
def _adapter() -> TypeAdapter[LadderResult]:
    return TypeAdapter(LadderResult)
