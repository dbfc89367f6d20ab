"""An engine whose answers a test writes down, and small tasks of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from nacre.engine.protocol import (
    Capabilities,
    Embedded,
    EngineError,
    Generation,
    Message,
    OnToken,
    Prompt,
    Sampling,
    Score,
    Usage,
    unsupported,
)
from nacre.tiers.task import Task

ONE = Usage(10, 2, 1, "upstream")


class WrittenEngine:
    """`reply(prompt as text)` writes, `weigh(prompt as text, continuation)` scores, `vector(text)` embeds."""

    name, identity = "written", "written:1"

    def __init__(
        self,
        can: tuple[str, ...] = ("chat",),
        reply: Callable[[str], Any] = lambda text: text,
        weigh: Callable[[str, str], float] = lambda prompt, text: 0.0,
        vector: Callable[[str], Sequence[float]] = lambda text: (1.0, 0.0),
        context: int | None = None,
    ) -> None:
        self.capabilities = Capabilities(**dict.fromkeys(can, True), context=context)
        self.reply, self.weigh, self.vector = reply, weigh, vector
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []
        self.sizes: list[int] = []

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        self.sizes.append(len(prompts))
        self.samplings.append(how)
        self.prompts += prompts
        return [self._written(self.reply(flat(one))) for one in prompts]

    @staticmethod
    def _written(said: Any) -> Generation:
        if isinstance(said, Exception):
            raise said
        text, stopped = said if isinstance(said, tuple) else (said, "end")
        return Generation(text, stopped, "written-1", ONE)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        self.sizes.append(len(pairs))
        return [Score(self.weigh(flat(prompt), text), len(text.split()), "written-1", ONE) for prompt, text in pairs]

    def embed(self, texts: Sequence[str]) -> Embedded:
        if not self.capabilities.embed:
            raise unsupported(self, "embed")
        self.sizes.append(len(texts))
        vectors = np.array([self.vector(text) for text in texts], dtype=np.float32)
        return Embedded(vectors, "written-1", Usage(len(texts), 0, 1, "upstream"))

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        pass


def flat(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n\n".join(one.content for one in prompt)


def last(prompt: Prompt) -> Message:
    assert not isinstance(prompt, str)
    return prompt[-1]


def blamed(status: int = 400) -> EngineError:
    return EngineError("this request is not accepted", remedy="send another", status=status)


def classify_task(folder: Path = Path(), language: str = "en", **more: Any) -> Task:
    plain = {"about": "Sort what customers write.", "labels": ("refund", "card", "card_arrival")}
    return Task("desk", "classify", metric="accuracy", language=language, folder=folder, **{**plain, **more})


def tag_task(language: str = "en", **more: Any) -> Task:
    labels = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    return Task("ner", "tag", "", "entity_f1", language, Path(), **{"labels": labels, **more})


def generate_task(**more: Any) -> Task:
    return Task("mt", "generate", "", "chrf", "en", Path(), **more)


def rank_task(folder: Path = Path(), **more: Any) -> Task:
    return Task("law", "rank", "", "mrr@10", "en", folder, **more)


def write_task(
    folder: Path, task: Task, *, rows: Sequence[dict[str, Any]] = (), corpus: Sequence[dict[str, Any]] = ()
) -> Path:
    """A task's artifact, as `task.prepare` makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: getattr(task, name) for name in ("name", "kind", "about", "metric", "language", "target_language")}
    plain |= {"labels": list(task.labels), "descriptions": dict(task.descriptions), "languages": []}
    (folder / "task.json").write_text(json.dumps(plain), encoding="utf-8")
    for name, many in (("valid", rows), ("corpus", corpus)):
        if many:
            text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in many)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder
