"""An optimised prompt as a rung: `prompt.md` says how the engine in `engine/` is asked; edited, it asks differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from nacre.engine.protocol import Engine
from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError
from nacre.recipe.config import build
from nacre.tiers.asking.asking import ask, default_sampling
from nacre.tiers.asking.kept import check_rows, kept_task
from nacre.tiers.asking.vectors import NamedVectors, rank_by_vectors, similarity
from nacre.tiers.prompt.file import PromptFile, load
from nacre.tiers.prompt.instruction import from_prompt
from nacre.tiers.prompt.label_wording import worded_queries
from nacre.tiers.prompt.outcome import PROMPT_FILE
from nacre.tiers.prompt.stages import PromptConfig
from nacre.tiers.rung import ENGINE_FOLDER, RUNG_FILE, Answer, Manifest, Rung
from nacre.tiers.task import Row, Task

VECTORS_FILE = "vectors.npz"
Solve = Callable[[Engine, Sequence[Row]], list[Answer]]


class PromptRung:
    """An opened prompt: its engine stays open until `close`."""

    def __init__(self, task: Task, solve: Solve, folder: Path, room: EngineRoom) -> None:
        self._task, self._solve = task, solve
        self._open = ExitStack()
        self._engine = self._open.enter_context(room.open(folder / ENGINE_FOLDER, remote=True))

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order. Raises BudgetReached, or EngineError where the engine fails for good."""
        check_rows(self._task.kind, rows)
        return self._solve(self._engine, rows)

    def close(self) -> None:
        """Ends the engine. Calling it twice does no harm."""
        self._open.close()


def open_rung(folder: Path, manifest: Manifest, room: EngineRoom) -> Rung:
    """The rung that the stage `prompt.solve` made in `folder`."""
    values, way = manifest.how.get("config"), manifest.how.get("way")
    if not isinstance(values, dict) or way not in ("words", "similarity"):
        raise CheckpointError(
            f"{folder / RUNG_FILE} does not say how to ask", remedy="run the stage prompt.solve again"
        )
    config = build(PromptConfig, values, str(folder / RUNG_FILE))
    task, prompt = kept_task(folder, manifest), load(folder / PROMPT_FILE)
    if way == "words":
        return PromptRung(task, in_words(task, config, prompt), folder, room)
    return PromptRung(task, by_nearness(task, config, prompt, NamedVectors.load(folder / VECTORS_FILE)), folder, room)


def in_words(task: Task, config: PromptConfig, prompt: PromptFile) -> Solve:
    """Asks with the instruction and the demonstrations of a prompt file."""
    instruction = from_prompt(prompt)

    def solve(engine: Engine, rows: Sequence[Row]) -> list[Answer]:
        how = default_sampling(engine, task, config.max_tokens)
        return ask(engine, task, rows, instruction, how=how, batch=config.batch)

    return solve


def by_nearness(task: Task, config: PromptConfig, prompt: PromptFile, named: NamedVectors) -> Solve:
    """Takes the label, or the passages, nearest in the embedding; the prompt file words the queries of `rank`."""

    def solve(engine: Engine, rows: Sequence[Row]) -> list[Answer]:
        if task.kind == "rank":
            asked = worded_queries(prompt, rows)
            return rank_by_vectors(engine, task, asked, named, top=config.top, batch=config.batch)
        return similarity(engine, task, rows, named, temperature=config.temperature, batch=config.batch)

    return solve
