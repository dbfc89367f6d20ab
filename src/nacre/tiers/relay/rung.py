"""A relay as a rung: rows go to the engine in the rung's `engine/`, in the way that its manifest names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nacre.engine.protocol import Engine, Sampling
from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError
from nacre.recipe.config import build
from nacre.tiers.asking.asking import ask, default_sampling, score_labels
from nacre.tiers.asking.kept import check_rows, kept_task
from nacre.tiers.asking.vectors import NamedVectors, rank_by_vectors, similarity
from nacre.tiers.relay.stages import RelayConfig
from nacre.tiers.rung import ENGINE_FOLDER, RUNG_FILE, Answer, Manifest, Rung
from nacre.tiers.task import Row, Task

VECTORS_FILE, CORPUS_FILE = "vectors.npz", "corpus.jsonl"


@dataclass(frozen=True)
class Relay:
    """A task and the way an engine is asked for its answers. `named`: vectors of labels or passages, where used."""

    task: Task
    config: RelayConfig
    named: NamedVectors | None = None

    def answer(self, engine: Engine, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order."""
        check_rows(self.task.kind, rows)
        if self.config.way == "labels":
            return score_labels(
                engine,
                self.task,
                rows,
                per_token=self.config.per_token,
                calibrate=self.config.calibrate,
                batch=self.config.batch,
            )
        if self.config.way == "similarity":
            return self._nearest(engine, rows)
        if self.task.kind == "rank":
            return self._rank_in_words(engine, rows)
        return ask(engine, self.task, rows, how=self._sampling(engine), batch=self.config.batch)

    def _nearest(self, engine: Engine, rows: Sequence[Row]) -> list[Answer]:
        if self.named is None:
            raise CheckpointError(f"the relay of {self.task.name} has no vectors", remedy="make the rung again")
        config = self.config
        if self.task.kind == "rank":
            return rank_by_vectors(engine, self.task, rows, self.named, top=config.top, batch=config.batch)
        return similarity(engine, self.task, rows, self.named, temperature=config.temperature, batch=config.batch)

    def _rank_in_words(self, engine: Engine, rows: Sequence[Row]) -> list[Answer]:
        """A small corpus as a whole, of a large one the passages nearest by vectors, ranked by a model that reads."""
        config, corpus = self.config, self._passages
        if self.named is None:
            shown = [list(corpus.values())] * len(rows)
            return ask(engine, self.task, rows, candidates=shown, how=self._sampling(engine), batch=config.batch)
        found = self._nearest(engine, rows)
        shown = [[corpus[one] for one in answer.value[: config.candidates]] for answer in found]
        ranked = ask(engine, self.task, rows, candidates=shown, how=self._sampling(engine), batch=config.batch)
        return [_behind(first, second, config.candidates) for first, second in zip(ranked, found, strict=True)]

    def _sampling(self, engine: Engine) -> Sampling:
        return default_sampling(engine, self.task, self.config.max_tokens)

    @cached_property
    def _passages(self) -> dict[str, Row]:
        return {str(row["id"]): row for row in self.task.corpus}


def _behind(ranked: Answer, found: Answer, shown: int) -> Answer:
    """The ranking in words, and behind it what was found but not shown."""
    usage = ranked.usage + found.usage
    if ranked.value is None:
        return replace(ranked, usage=usage)
    return replace(ranked, value=[*ranked.value, *found.value[shown:]], usage=usage)


class RelayRung:
    """An opened relay: its engine stays open until `close`."""

    def __init__(self, relay: Relay, folder: Path, room: EngineRoom) -> None:
        self._relay = relay
        self._open = ExitStack()
        self._engine = self._open.enter_context(room.open(folder / ENGINE_FOLDER, remote=True))

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order. Raises BudgetReached, or EngineError where the engine fails for good."""
        return self._relay.answer(self._engine, rows)

    def close(self) -> None:
        """Ends the engine. Calling it twice does no harm."""
        self._open.close()


def open_rung(folder: Path, manifest: Manifest, room: EngineRoom) -> Rung:
    """The rung that the stage `relay.solve` made in `folder`."""
    values = manifest.how.get("config")
    if not isinstance(values, dict):
        raise CheckpointError(f"{folder / RUNG_FILE} does not say how to ask", remedy="run the stage relay.solve again")
    config = build(RelayConfig, values, str(folder / RUNG_FILE))
    vectors = folder / VECTORS_FILE
    named = NamedVectors.load(vectors) if config.way == "similarity" or vectors.is_file() else None
    return RelayRung(Relay(kept_task(folder, manifest), config, named), folder, room)
