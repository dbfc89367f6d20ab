"""What is optimised: words for an engine that writes, or the wording that an embedding compares."""

from __future__ import annotations

from typing import Literal

from nacre.engine.protocol import Engine, Unsupported, unsupported
from nacre.errors import ConfigError, DataError
from nacre.tiers.prompt.stages import Way
from nacre.tiers.task import Task

_BY_NEARNESS = ("classify", "rank")


def check_task(wish: Literal["auto", "words", "similarity"], task: Task) -> None:
    """Raises before any call: ConfigError for a way that the kind does not have, DataError for a task without rows."""
    if wish == "similarity" and task.kind not in _BY_NEARNESS:
        what = f"a task of the kind {task.kind} cannot be solved by similarity"
        raise ConfigError(what, remedy="set way to words, with an engine that can chat or complete")
    if wish == "words" and task.kind == "rank":
        what = "a prompt in words cannot rank a corpus by itself"
        raise ConfigError(what, remedy="set way to similarity; the tier retrieval ranks by full text and vectors")
    for split in ("train", "valid"):
        if not getattr(task, split):
            what = f"the task {task.name} has no {split} rows: a prompt is searched for on train and chosen on valid"
            raise DataError(what, remedy=f"give the task {split} rows")


def way_for(wish: Literal["auto", "words", "similarity"], task: Task, engine: Engine) -> Way:
    """The way for a task and an engine. Raises Unsupported where the engine can do neither."""
    able = engine.capabilities
    near = task.kind in _BY_NEARNESS
    if wish == "similarity" or (task.kind == "rank" and wish == "auto"):
        if not able.embed:
            raise unsupported(engine, "embed")
        return "similarity"
    if wish == "words":
        if not (able.chat or able.complete):
            raise unsupported(engine, "chat")
        return "words"
    if able.chat or (able.complete and not (near and able.embed)):
        return "words"
    if near and able.embed:
        return "similarity"
    raise Unsupported(
        f"{engine.name} cannot write: a prompt for a task of the kind {task.kind} needs an engine that does",
        remedy="give an engine that can chat or complete (upstream: http://HOST/v1#MODEL)",
    )
