"""How a kernel of our own answers the rows of a task. Imports torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nacre.data.tokenizer import Tokenizer
from nacre.kernel import hf
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.model import Kernel
from nacre.kernel.sampling import SamplingConfig
from nacre.metrics.quality import Kind
from nacre.tiers.rung import Answer
from nacre.tiers.task import Row, text_of
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig, TagConfig
from nacre.train.objectives.tag import Tag, join_parts

_log = logging.getLogger(__name__)

BATCH = 32
TOP = 5  # classes whose probability is told
EMPTY = Answer(None, problem="the row's text is empty")


@dataclass(frozen=True)
class Answering:
    """The kind of task, and the tokens that are read and written at most."""

    kind: Kind
    context: int
    target_context: int


class Solved:
    """A kernel with its tokenizer, answering rows."""

    def __init__(self, kernel: Kernel, tokenizer: Tokenizer, limits: Answering, device: str) -> None:
        self.kernel, self.tokenizer, self.limits, self.device = kernel, tokenizer, limits, device

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order; a row without text gets none. Batches do not change answers."""
        speak = self._speaker()
        asked = [index for index, row in enumerate(rows) if text_of(row, self.limits.kind).strip()]
        answers = [EMPTY] * len(rows)
        # By length, so that batches hold little padding.
        asked.sort(key=lambda index: -len(text_of(rows[index], self.limits.kind)))
        with torch.inference_mode():
            for start in range(0, len(asked), BATCH):
                part = asked[start : start + BATCH]
                for index, answer in zip(part, speak([rows[index] for index in part]), strict=True):
                    answers[index] = answer
        return answers

    def close(self) -> None:
        """Nothing was started."""

    def _speaker(self) -> Callable[[Sequence[Row]], list[Answer]]:
        return {"classify": self._classes, "tag": self._tags, "generate": self._texts}[self.limits.kind]

    def _classes(self, rows: Sequence[Row]) -> list[Answer]:
        labels = self.kernel.config.labels
        objective = Classify(self.tokenizer, labels, ClassifyConfig(context=self.limits.context))
        examples = [objective.encode({"text": row["text"], "label": labels[0]}) for row in rows]
        self.tell(objective.truncated)
        batch = objective.collate(examples, torch.Generator()).to(self.device)
        answers = []
        for scores in objective.predict(self.kernel, batch):
            found = torch.sort(scores, descending=True, stable=True)
            best = [(labels[int(at)], float(p)) for at, p in zip(found.indices[:TOP], found.values[:TOP], strict=True)]
            answers.append(Answer(best[0][0], scores=dict(best)))
        return answers

    def _tags(self, rows: Sequence[Row]) -> list[Answer]:
        labels = self.kernel.config.labels
        how = TagConfig(context=self.limits.context, overlap=min(32, self.limits.context // 4))
        objective = Tag(self.tokenizer, labels, how)
        blank = [{"tokens": list(row["tokens"]), "tags": [labels[0]] * len(row["tokens"])} for row in rows]
        windows = objective.arrange([objective.encode(row) for row in blank])
        parts = []
        for start in range(0, len(windows), BATCH):
            batch = objective.collate(windows[start : start + BATCH], torch.Generator())
            parts += objective.predict(self.kernel, batch.to(self.device))
        tags = join_parts(parts)
        return [Answer([labels[at] for at in tags[number]]) for number in range(len(rows))]

    def _texts(self, rows: Sequence[Row]) -> list[Answer]:
        encoded = self.tokenizer.encode_batch([str(row["source"]) for row in rows])
        room = self.limits.context
        self.tell({"sources cut at the context": sum(len(ids) > room for ids in encoded)})
        prompts = [ids if len(ids) <= room else [*ids[: room - 1], ids[-1]] for ids in encoded]
        how = GenerationConfig(max_new_tokens=self.limits.target_context, sampling=SamplingConfig(temperature=0.0))
        return [
            Answer(self.tokenizer.decode(one.ids).strip(), raw=self.tokenizer.decode(one.ids))
            for one in generate(self.kernel, prompts, how)
        ]

    def tell(self, truncated: Any) -> None:
        for what, count in truncated.items():
            if count:
                _log.warning("%s (%d tokens): %d of the rows", what, self.limits.context, count)


def opened(model: Path, limits: Answering, device: str = "cpu") -> Solved:
    """The kernel of a folder, ready to answer."""
    kernel = hf.load(model, device=device).float().eval()
    return Solved(kernel, Tokenizer.load(model), limits, device)
