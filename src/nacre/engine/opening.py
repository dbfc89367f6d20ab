"""From a folder to an engine: a checkpoint is run here, an `engine.json` says whom to call."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.engine import catalogue
from nacre.engine.base import BaseEngine
from nacre.engine.cached import AnswerCache
from nacre.engine.metered import Metered
from nacre.engine.protocol import Engine
from nacre.engine.settings import ENGINE_FILE, read_engine_file
from nacre.errors import CheckpointError

if TYPE_CHECKING:
    from nacre.engine.room import EngineRoom

_log = logging.getLogger(__name__)


def open_folder(folder: Path, room: EngineRoom, *, remote: bool = False) -> Engine:
    """The engine of a folder, metered by `room`; with `remote` a local one is put behind a loopback server.

    Raises CheckpointError where the folder holds neither an `engine.json` nor a checkpoint.
    """
    engine = open_bare(folder, room)
    if remote and room.through_http and engine.in_process:
        from nacre.engine.looped import over_loopback

        engine = over_loopback(engine)
    return Metered(engine, room, None if room.cache is None else AnswerCache(room.cache))


def open_bare(folder: Path, room: EngineRoom) -> BaseEngine:
    """The engine of a folder itself, neither metered nor cached."""
    if (folder / ENGINE_FILE).is_file():
        name = str(read_engine_file(folder)["engine"])
        return catalogue.find(name)(folder, room)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds neither {ENGINE_FILE} nor config.json",
            remedy="give a checkpoint, or an address: http://HOST/v1#MODEL",
        )
    try:
        return catalogue.find("native")(folder, room)
    except CheckpointError as refused:
        if not inexpressible(refused):
            raise
        _log.warning("%s: %s: opened with transformers", folder, refused.message)
        return catalogue.find("transformers")(folder, room)


def inexpressible(error: CheckpointError) -> bool:
    """Whether the kernel refused a model for what it is, not for a missing or damaged file."""
    return error.message.startswith("config.json") and " is not JSON" not in error.message
