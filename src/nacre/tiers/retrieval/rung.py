"""A task solved by looking up, opened: neighbours, a gazetteer or a ranked corpus in the rung's `index/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from nacre.engine.protocol import Engine
from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError
from nacre.tiers.asking.kept import check_rows, kept_task
from nacre.tiers.retrieval import solver
from nacre.tiers.retrieval.gazetteer import Gazetteer
from nacre.tiers.retrieval.index import Index
from nacre.tiers.retrieval.vote import Vote
from nacre.tiers.rung import ENGINE_FOLDER, Answer, Manifest, Rung
from nacre.tiers.task import Row

INDEX_FOLDER = "index"


class RetrievalRung:
    """An opened rung; its engine and index stay open until `close`."""

    def __init__(self, folder: Path, manifest: Manifest, room: EngineRoom) -> None:
        self._task, self._how = kept_task(folder, manifest), manifest.how
        self._stack = ExitStack()
        self._engine: Engine | None = None
        if (folder / ENGINE_FOLDER).is_dir():
            self._engine = self._stack.enter_context(room.open(folder / ENGINE_FOLDER, remote=True))
        embeds = self._engine is not None and self._engine.capabilities.embed
        try:
            if self._how["way"] == "gazetteer":
                self._gazetteer = Gazetteer.load(folder / INDEX_FOLDER, fold=bool(self._how["fold"]))
            else:
                self._index = self._stack.enter_context(Index(folder / INDEX_FOLDER, self._engine if embeds else None))
        except BaseException:
            self._stack.close()
            raise

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order, with the passages or rows it comes from."""
        check_rows(self._task.kind, rows)
        if not rows:
            return []
        ways: dict[str, Callable[[Sequence[Row]], list[Answer]]] = {
            "vote": self._vote,
            "memory": self._memory,
            "demonstrations": self._shown,
            "rank": self._rank,
            "gazetteer": self._tag,
        }
        return ways[self._how["way"]](rows)

    def _tag(self, rows: Sequence[Row]) -> list[Answer]:
        return solver.answers_by_gazetteer(self._gazetteer, self._task, rows)

    def _vote(self, rows: Sequence[Row]) -> list[Answer]:
        vote = Vote(int(self._how["k"]), self._how["weighting"], self._how["mode"])
        return solver.answers_by_vote(solver.neighbours(self._index, self._task, rows, vote.k, vote.mode), vote)

    def _memory(self, rows: Sequence[Row]) -> list[Answer]:
        return solver.answers_by_memory(solver.neighbours(self._index, self._task, rows, 1, self._how["mode"]))

    def _shown(self, rows: Sequence[Row]) -> list[Answer]:
        shots = int(self._how["shots"])
        found = solver.neighbours(self._index, self._task, rows, shots, self._how["mode"])
        return solver.answers_by_demonstrations(self._writer(), self._task, rows, found, shots)

    def _rank(self, rows: Sequence[Row]) -> list[Answer]:
        ranked = solver.answers_by_ranking(self._index, self._task, rows, self._how["mode"])
        n = int(self._how.get("rerank", 0))
        return solver.reranked(self._writer(), self._task, rows, ranked, self._index, n) if n else ranked

    def _writer(self) -> Engine:
        if self._engine is None:
            raise CheckpointError("the rung's engine is gone", remedy="make the rung again with retrieval.solve")
        return self._engine

    def close(self) -> None:
        """Ends the engine and closes the index. Calling it twice does no harm."""
        self._stack.close()


def open_rung(folder: Path, manifest: Manifest, room: EngineRoom) -> Rung:
    """The rung that the stage `retrieval.solve` made in `folder`."""
    if "way" not in manifest.how:
        raise CheckpointError(f"{folder} does not say how to look up", remedy="run the stage retrieval.solve again")
    return RetrievalRung(folder, manifest, room)
