"""A task solved at tier 4, opened to answer. Imports torch when it opens."""

from __future__ import annotations

from pathlib import Path

from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError
from nacre.tiers.rung import Manifest, Rung


def open_rung(folder: Path, manifest: Manifest, room: EngineRoom) -> Rung:
    """The kernel in `model/`, and the embedded corpus of `rank`, on the room's device.

    Raises CheckpointError where something is missing or damaged.
    """
    from nacre.tiers.kernel_answers import Corpus, Limits, opened

    how = manifest.how
    try:
        limits = Limits(manifest.kind, int(how["context"]), int(how["target_context"]), how["pooling"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: rung.json lacks {error}", remedy="run the ladder again") from error
    corpus = Corpus.load(folder) if manifest.kind == "rank" else None
    return opened(folder / "model", limits, room.device, corpus)
