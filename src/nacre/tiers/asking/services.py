"""What asking somebody else's engine needs, whatever for: its terms of use, and answers where single requests fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nacre.engine.protocol import Engine, EngineError, Generation, Prompt, Sampling
from nacre.engine.settings import ENGINE_FILE, read_engine_file
from nacre.errors import ConfigError
from nacre.recipe.stage import Work


def is_remote(engine: Path) -> bool:
    """Whether the folder of an engine says that somebody else's machine answers."""
    return (engine / ENGINE_FILE).is_file() and "address" in read_engine_file(engine)


def check_terms(engine: Path, terms: str, role: str) -> None:
    """A remote engine has terms, which somebody must have read. ConfigError where nothing is said of them."""
    if is_remote(engine) and not terms.strip():
        raise ConfigError(
            f"the {role} is a service, and nothing is said of its terms of use",
            remedy='read whether they allow to train on its answers, and say so: terms: "ADDRESS, read on DATE: yes"',
        )


def tell_terms(engine: Engine, role: str, terms: str, work: Work) -> None:
    """What the terms of the engine in the input `role` are, before anything is sent; and in the record."""
    remote = is_remote(work.inputs[role])
    said = terms.strip() or ("none given" if remote else "none given: it runs on this machine")
    work.progress.note("terms of use", **{role: engine.name}, terms=said)
    work.declare(note=f"answers by {engine.name}; terms of use: {said}")


def generated(engine: Engine, prompts: Sequence[Prompt], how: Sampling) -> list[Generation | None]:
    """One answer per prompt; None where the request was at fault. What was answered stays in the cache."""
    try:
        return list(engine.generate(prompts, how))
    except EngineError as error:
        if not error.blames_the_request:
            raise
        if len(prompts) == 1:
            return [None]
    return [answer for prompt in prompts for answer in generated(engine, [prompt], how)]
