"""The file of all rollouts: one line each, cut back to the last checkpoint when a run is resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "rollouts.jsonl"


class Logbook:
    """Lines that lie under `folder` while the run goes on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def position(self) -> int:
        """Bytes written, all of them on the disk."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        return self.path.stat().st_size

    def cut(self, position: int) -> None:
        """Removes what was written behind `position`."""
        if self.path.exists():
            os.truncate(self.path, position)

    def copy(self, folder: Path) -> None:
        """Puts the file into an artifact."""
        if self.path.exists():
            shutil.copyfile(self.path, folder / FILE)
