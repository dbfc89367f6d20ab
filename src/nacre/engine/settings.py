"""`engine.json`: which engine a folder describes, and how it is set. Strict: an unknown key names the closest one."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from nacre.errors import ConfigError, closest

ENGINE_FILE = "engine.json"
Settings = TypeVar("Settings")


def read_engine_file(folder: Path) -> dict[str, Any]:
    """The parsed `engine.json`; raises ConfigError for what is no JSON object, or names no engine."""
    file = folder / ENGINE_FILE
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", remedy="write it again as JSON") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("engine"), str):
        raise ConfigError(f"{file} names no engine", remedy='it is an object with "engine": NAME')
    return plain


def settings_of(plain: dict[str, Any], kind: type[Settings], where: str) -> Settings:
    """A dataclass filled from the keys beside `engine`, types checked; raises ConfigError naming the key."""
    from pydantic import TypeAdapter, ValidationError

    given = {key: value for key, value in plain.items() if key != "engine"}
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}", remedy=closest(key, known))
    try:
        adapter: TypeAdapter[Settings] = TypeAdapter(kind)
        return adapter.validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "engine.json"
        raise ConfigError(f"{where}: {place}: {first['msg']}", remedy="correct the value") from error
