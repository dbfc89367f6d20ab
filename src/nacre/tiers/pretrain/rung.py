"""A task solved at tier 5, opened to answer. Imports torch when it opens."""

from __future__ import annotations

from pathlib import Path

from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError
from nacre.tiers.rung import Manifest, Rung


def open_rung(folder: Path, manifest: Manifest, room: EngineRoom) -> Rung:
    """The kernel in `model/` with its tokenizer, on the room's device. Raises CheckpointError where it is damaged."""
    from nacre.tiers.pretrain.answering import Answering, opened

    try:
        limits = Answering(manifest.kind, int(manifest.how["context"]), int(manifest.how["target_context"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: rung.json lacks {error}", remedy="run the ladder again") from error
    if manifest.kind == "rank":
        from nacre.tiers.pretrain.ranking import opened_ranker

        return opened_ranker(folder, limits, room.device)
    return opened(folder / "model", limits, room.device)
