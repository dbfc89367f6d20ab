"""The address of a served model, as a reference: `http(s)://HOST/v1#MODEL`, made into an engine's folder.

Settings may stand before the `#`: `https://HOST/v1?key_variable=NAME&offers=chat,embed#MODEL`. A key never does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from nacre.engine.settings import ENGINE_FILE
from nacre.errors import ConfigError, closest
from nacre.lineage.digest import digest_json
from nacre.lineage.durable import write_atomic

_EXAMPLE = "such as http://localhost:8000/v1#MODEL"
_SETTINGS = ("key_variable", "offers")


def engine_folder(engines: Path, address: str) -> Path:
    """The folder under `engines` whose `engine.json` says what the address says: the same address, the same bytes.

    Raises ConfigError where the address names no model, or holds a user, a password or a setting that is not known.
    """
    plain = settings_in(address)
    text = json.dumps(plain, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    words = re.sub(r"[^\w.-]+", "-", f"{urlsplit(address).hostname}-{plain['model']}").strip("-.")[:60]
    folder = engines / f"{words}-{digest_json(plain).removeprefix('sha256:')[:12]}"
    file = folder / ENGINE_FILE
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text.encode())
    return folder


def settings_in(address: str) -> dict[str, Any]:
    """The `engine.json` of an address."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"this is no address: {error}", remedy=_EXAMPLE) from error
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "the address holds a user or a password",
            remedy="leave it out, and name the variable that holds the key: ?key_variable=NAME#MODEL",
        )
    if not host:
        raise ConfigError(f"{address!r} names no host", remedy=_EXAMPLE)
    if not parts.fragment:
        raise ConfigError(f"{address!r} names no model", remedy=_EXAMPLE)
    plain: dict[str, Any] = {"engine": "openai_http", "model": unquote(parts.fragment)}
    plain["address"] = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _SETTINGS:
            raise ConfigError(f"{name!r} cannot be set in an address", remedy=closest(name, _SETTINGS))
        plain[name] = [one for one in value.split(",") if one] if name == "offers" else value
    return plain
