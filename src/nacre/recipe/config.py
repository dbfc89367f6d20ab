"""Strict building of config dataclasses from plain values (YAML, JSON, `--set`): all mistakes at once, with remedies.

Types are not guessed: a string is no number, a number is no string. Lists fill tuples, strings fill paths and enums.
Of a section that is given in part, the rest is what the section is by default where it stands: three epochs, of
`train: TrainConfig = TrainConfig(epochs=3)` with `{lr: 1e-3}`. A dataclass may name in `INSTEAD` groups of fields of
which any that is given stands for all (`max_steps` for the default `epochs`).
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from math import isfinite
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from nacre.errors import ConfigError, NacreError, closest

T = TypeVar("T")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
_MISSING = ("missing", "missing_argument")  # what pydantic calls a key that is not there


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what it is, what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.remedy})"


def raise_problems(problems: Sequence[Problem]) -> None:
    """One ConfigError for all mistakes; nothing when there is none."""
    if not problems:
        return
    if len(problems) == 1:
        raise ConfigError(f"{problems[0].where}: {problems[0].what}", remedy=problems[0].remedy)
    lines = "".join(f"\n  - {problem}" for problem in problems)
    raise ConfigError(f"{len(problems)} mistakes:{lines}", remedy="correct each of them; nothing was started")


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass of `kind` from plain `values`; raises ConfigError naming every wrong key and value."""
    built, problems = try_build(kind, values, where)
    raise_problems(problems)
    assert built is not None  # no problems means built: see try_build
    return built


def try_build(kind: type[T], values: Mapping[str, Any], where: str) -> tuple[T | None, list[Problem]]:
    """The dataclass, or the list of all mistakes."""
    problems = list(_unknown_keys(kind, values, where))
    try:
        text = json.dumps(_completed(kind, values), ensure_ascii=True)
        built: T | None = _adapter(kind).validate_json(text, strict=True)
    except TypeError as error:
        return None, [*problems, Problem(where, f"a value is no plain YAML: {error}", "use numbers, strings and lists")]
    except ValidationError as error:
        return None, problems + [_explain(kind, values, where, row) for row in _findings(values, error)]
    except NacreError as error:
        return None, [*problems, Problem(where, error.message, error.remedy)]
    return (None if problems else built), problems


def plain(config: Any) -> Any:
    """A config as JSON values, every default filled in: what fingerprints and records hold."""
    return _adapter(type(config)).dump_python(config, mode="json")


def _completed(kind: Any, values: Any, default: Any = None) -> Any:
    """`values` with what `default`, an instance of `kind`, has otherwise than the dataclass itself."""
    if not isinstance(values, Mapping):
        return values
    hints, found = get_type_hints(kind), dict(values)
    for one in fields(kind):
        own = one.default if one.default_factory is MISSING else one.default_factory()
        stands = own if default is None else getattr(default, one.name)
        if one.name in values:
            section = _section(hints[one.name])
            if section is not None:
                found[one.name] = _completed(section, values[one.name], stands if isinstance(stands, section) else None)
        elif stands != own and not _is_replaced(kind, one.name, values):
            found[one.name] = plain(default)[one.name]
    return found


def _section(kind: Any) -> type | None:
    """The dataclass that a field is, or is when it is given."""
    found = [one for one in get_args(kind) or (kind,) if isinstance(one, type) and is_dataclass(one)]
    return found[0] if len(found) == 1 and get_origin(kind) in (None, Union, types.UnionType) else None


def _is_replaced(kind: Any, name: str, values: Mapping[str, Any]) -> bool:
    return any(name in group and not values.keys().isdisjoint(group) for group in getattr(kind, "INSTEAD", ()))


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:  # building one costs milliseconds
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _unknown_keys(kind: Any, values: Any, where: str) -> Iterator[Problem]:
    """Keys that no dataclass on the way down has; pydantic would ignore them in a standard dataclass."""
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(values, Mapping):
        hints = get_type_hints(kind)
        known = [field.name for field in fields(kind) if field.init]
        for key, value in values.items():
            if key not in known:
                yield Problem(where, f"unknown key {key!r}", closest(str(key), known))
            else:
                yield from _unknown_keys(hints[key], value, f"{where}.{key}")
        return
    arguments = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        found = [list(_unknown_keys(one, values, where)) for one in arguments if _may_hold(one, values)]
        yield from min(found, key=len, default=[])
    elif isinstance(values, Mapping) and len(arguments) == 2:
        for key, value in values.items():
            yield from _unknown_keys(arguments[1], value, f"{where}.{key}")
    elif isinstance(values, list) and arguments:
        for index, value in enumerate(values):
            yield from _unknown_keys(arguments[0], value, f"{where}.{index}")


def _may_hold(kind: Any, values: Any) -> bool:
    if isinstance(values, Mapping):
        return is_dataclass(kind) or len(get_args(kind)) == 2
    return not is_dataclass(kind)


def _findings(values: Any, error: ValidationError) -> Iterator[Any]:
    """pydantic's findings; what it says of each member of a union, under the member's name, becomes one."""
    unions: dict[tuple[Any, ...], list[Any]] = {}
    for row in error.errors(include_url=False):
        path, union = _place(values, row)
        if union is None:
            yield row
        else:
            unions.setdefault(union, []).append({**row, "loc": path})
    for place, rows in unions.items():
        inside = [row for row in rows if len(row["loc"]) > len(place)]  # it has the form of this member, with a mistake
        if inside:
            yield from inside
        else:
            wanted = " or ".join(row["msg"].removeprefix("Input should be ") for row in rows)
            yield {**rows[0], "type": "union", "msg": f"Input should be {wanted}"}


def _place(values: Any, row: Any) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
    """A finding's path without the names of union members, and the path of the first union on it."""
    path: list[Any] = []
    union = None
    for step in row["loc"]:
        inside = (isinstance(values, Mapping) and step in values) or (
            isinstance(values, list) and isinstance(step, int)
        )
        if inside:
            values = values[step]
        elif row["type"] not in _MISSING or step != row["loc"][-1]:
            union = tuple(path) if union is None else union
            continue
        path.append(step)
    return tuple(path), union


def _explain(kind: type, values: Mapping[str, Any], where: str, row: Any) -> Problem:
    """One of pydantic's findings, in our words."""
    path = ".".join([where, *(str(step) for step in row["loc"])])
    given, code = row["input"], row["type"]
    if code in _MISSING:
        return Problem(path, "required and not given", "add it")
    shown = json.dumps(given, ensure_ascii=False, default=str)
    said = row["msg"].replace("an object", "a mapping").replace("a valid array", "a list")  # YAML's words
    what = f"{said[:1].lower()}{said[1:]}, not {shown if len(shown) <= 60 else shown[:57] + '...'}"
    if isinstance(given, str) and code in ("float_type", "int_type", "bool_type") and _is_number(given):
        return Problem(path, what, f"write {given} without quotes")
    context = row.get("ctx", {})
    if code == "literal_error" and isinstance(given, str):
        return Problem(path, what, closest(given, _literals(context.get("expected", ""))))
    if code == "value_error":
        return Problem(path, str(context.get("error", row["msg"])), "correct the value")
    return Problem(path, what, _default_remedy(kind, row["loc"]))


def _literals(expected: str) -> list[str]:
    return [word for word in expected.replace(" or ", ", ").replace("'", "").split(", ") if word]


def _default_remedy(kind: type, path: Sequence[Any]) -> str:
    for field in fields(kind):
        if path and field.name == path[0] and field.default is not MISSING and not is_dataclass(field.default):
            return f"its default is {json.dumps(field.default, ensure_ascii=False, default=str)}"
    return "correct the value"


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return text in ("true", "false")
