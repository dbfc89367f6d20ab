"""From a folder to an engine: a checkpoint is run here, an `engine.json` says whom to call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nacre.engine.protocol import Engine

if TYPE_CHECKING:
    from nacre.engine.room import EngineRoom


def open_folder(folder: Path, room: EngineRoom, *, remote: bool = False) -> Engine:
    """The engine of a folder, metered by `room`; with `remote` a local one is put behind a loopback server."""
    raise NotImplementedError
