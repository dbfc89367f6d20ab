"""Documents packed into blocks of a fixed size.

Two ways. `pack` keeps documents apart: a block lists pieces of documents, which the model must isolate from each other
by segment ids and positions that restart. `stream` is the plain concatenation (GPT-2, GPT-3): one document flows into
the next, a block is a slice. Both say in a `PackReport` what was split, padded or left out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nacre.errors import ConfigError

Array = npt.NDArray[Any]


class Piece(NamedTuple):
    """Positions `start` (included) to `stop` (excluded) of a document."""

    document: int
    start: int
    stop: int


@dataclass(frozen=True)
class PackReport:
    """What packing did. Positions are counted after packing: kept + padding = blocks * size."""

    documents: int
    blocks: int
    size: int
    kept: int
    padding: int
    split_documents: int
    dropped_documents: int
    dropped_positions: int

    @property
    def filled(self) -> float:
        """Share of positions that hold text."""
        return self.kept / max(1, self.kept + self.padding)


def pack(lengths: Sequence[int], size: int, *, min_piece: int = 1) -> tuple[list[list[Piece]], PackReport]:
    """Blocks of pieces, each block at most `size` long, by best-fit decreasing; depends on nothing but the lengths.

    A document longer than `size` is cut into pieces of `size` and a rest. Pieces shorter than `min_piece` are dropped
    and counted; with the default only empty documents are. Best-fit decreasing needs at most 11/9 of the fewest
    possible blocks (Johnson 1973). Cost O(n log n) for n pieces.
    """
    _check_size(size)
    if min_piece < 1:
        raise ConfigError(f"min_piece is {min_piece}", remedy="give 1 or more")
    pieces = [
        Piece(document, start, min(start + size, length))
        for document, length in enumerate(lengths)
        for start in range(0, length, size)
    ]
    kept = [piece for piece in pieces if piece.stop - piece.start >= min_piece]
    blocks = _best_fit(sorted(kept, key=lambda piece: (piece.start - piece.stop, piece)), size)
    n_kept = sum(piece.stop - piece.start for piece in kept)
    report = PackReport(
        documents=len(lengths),
        blocks=len(blocks),
        size=size,
        kept=n_kept,
        padding=len(blocks) * size - n_kept,
        split_documents=sum(length > size for length in lengths),
        dropped_documents=len(lengths) - len({piece.document for piece in kept}),
        dropped_positions=sum(lengths) - n_kept,
    )
    return blocks, report


def _best_fit(pieces: Sequence[Piece], size: int) -> list[list[Piece]]:
    """Each piece into the fullest block that has room for it, else into a new one."""
    blocks: list[list[Piece]] = []
    with_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of `with_room`, ascending: at most `size` of them, however many blocks
    for piece in pieces:
        length = piece.stop - piece.start
        at = bisect_left(rooms, length)
        if at == len(rooms):
            blocks.append([piece])
            block, room = len(blocks) - 1, size
        else:
            room = rooms[at]
            block = with_room[room].pop()
            blocks[block].append(piece)
            if not with_room[room]:
                del with_room[room], rooms[at]
        left = room - length
        if left:
            if left not in with_room:
                with_room[left] = []
                insort(rooms, left)
            with_room[left].append(block)
    return blocks


def stream(documents: Sequence[Array], size: int, *, drop_tail: bool = False) -> tuple[list[Array], PackReport]:
    """The documents as one stream in slices of `size` + 1 tokens, each sharing its last token with the next slice.

    A slice gives `size` predictions: of its tokens [1:] from its tokens [:-1], so that every token of the stream but
    the first is predicted once. The last slice is shorter; `drop_tail` leaves it out and counts its predictions.
    Slices are views of one array.
    """
    _check_size(size)
    full = [document for document in documents if len(document)]
    flat: Array = np.concatenate(full) if full else np.zeros(0, dtype=np.int32)
    n_predictions = max(0, len(flat) - 1)
    n_kept = n_predictions // size * size if drop_tail else n_predictions
    blocks = [flat[start : min(start + size, n_kept) + 1] for start in range(0, n_kept, size)]
    ends = np.cumsum([len(document) for document in full])
    starts = ends - [len(document) for document in full] if full else ends
    report = PackReport(
        documents=len(documents),
        blocks=len(blocks),
        size=size,
        kept=n_kept,
        padding=len(blocks) * size - n_kept,
        split_documents=int(np.count_nonzero(starts // size != (ends - 1) // size)),
        dropped_documents=len(documents) - len(full),
        dropped_positions=n_predictions - n_kept,
    )
    return blocks, report


def _check_size(size: int) -> None:
    if size < 1:
        raise ConfigError(f"the block size is {size}", remedy="give 1 or more positions")
