"""Which engines there are: name -> "module:function", imported when one is opened.

A function `(folder, room) -> Engine`. A new engine costs one file, one line here, and one line in the contract suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.engine.base import BaseEngine
from nacre.errors import ConfigError, closest
from nacre.lazy import named

if TYPE_CHECKING:
    from nacre.engine.room import EngineRoom

Opener = Callable[[Path, "EngineRoom"], BaseEngine]

ENGINES: Mapping[str, str] = {
    "echo": "nacre.engine.echo:open_echo",
    "native": "nacre.engine.native:open_native",
    "openai_http": "nacre.engine.openai_http:open_openai_http",
    "transformers": "nacre.engine.auto_model:open_auto_model",
}


def find(name: str) -> Opener:
    """The opener of an engine; raises ConfigError naming the closest known one."""
    target = ENGINES.get(name)
    if target is None:
        raise ConfigError(f"unknown engine {name!r}", remedy=closest(name, ENGINES))
    opener: Opener = named(target)
    return opener
