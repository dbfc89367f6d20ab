"""How a kernel in a folder answers the rows of a task of any kind. Imports torch.

classify, tag: its head. generate: a decoder goes on after the source, an encoder-decoder answers it. rank: the query's
embedding against those of a corpus, by cosine.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.data.tokenizer import Tokenizer
from nacre.data.write import write_json
from nacre.errors import CheckpointError, DataError
from nacre.kernel import hf
from nacre.kernel.config import Pooling
from nacre.kernel.generate import GenerationConfig, embed, generate
from nacre.kernel.model import Kernel
from nacre.kernel.sampling import SamplingConfig
from nacre.metrics.quality import Kind
from nacre.tiers.rung import Answer, Manifest
from nacre.tiers.task import Row, text_of
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig, TagConfig
from nacre.train.objectives.tag import Tag, join_parts

_log = logging.getLogger(__name__)

BATCH = 32
TOP = 5  # classes whose probability is told
RANKED = 100  # documents of an answer
MODEL, VECTORS, IDS = "model", "corpus.npy", "corpus.json"  # of a rung
EMPTY = Answer(None, problem="the row's text is empty")


@dataclass(frozen=True)
class Limits:
    """The kind of task, the tokens that are read and written at most, and how embeddings are pooled."""

    kind: Kind
    context: int
    target_context: int = 128
    pooling: Pooling = "mean"

    @property
    def how(self) -> dict[str, Any]:
        """What `rung.json` says of them, besides the kind."""
        return {"context": self.context, "target_context": self.target_context, "pooling": self.pooling}


class Corpus(NamedTuple):
    """What is ranked: ids, and their embeddings (N, D) of length 1."""

    ids: tuple[str, ...]
    vectors: NDArray[np.float32]

    def save(self, folder: Path) -> None:
        """Writes `corpus.npy` (float32) and `corpus.json`."""
        np.save(folder / VECTORS, self.vectors.astype(np.float32), allow_pickle=False)
        write_json(folder / IDS, list(self.ids))

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Raises CheckpointError where a file is missing or the two do not belong together."""
        try:
            ids = tuple(json.loads((folder / IDS).read_text(encoding="utf-8")))
            vectors = np.load(folder / VECTORS, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}: the corpus cannot be read: {error}", remedy="run it again") from error
        if vectors.ndim != 2 or len(vectors) != len(ids):
            what = f"{folder}: {len(ids)} ids for vectors of the shape {vectors.shape}"
            raise CheckpointError(what, remedy="run the ladder again")
        return cls(ids, vectors.astype(np.float32, copy=False))


class KernelAnswers:
    """A kernel with its tokenizer that answers rows: a `Rung`. `corpus` is what `rank` ranks."""

    def __init__(self, kernel: Kernel, tokenizer: Tokenizer, limits: Limits, corpus: Corpus | None = None) -> None:
        self.kernel, self.tokenizer, self.limits, self.corpus = kernel.eval(), tokenizer, limits, corpus
        self.device = next(kernel.parameters()).device

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order; a row without text gets none. Batches do not change answers."""
        kind = self.limits.kind
        speak = {"classify": self._classes, "tag": self._tags, "generate": self._texts, "rank": self._ranks}[kind]
        texts = [text_of(row, kind) for row in rows]
        # By length, so that batches hold little padding.
        asked = sorted((at for at, text in enumerate(texts) if text.strip()), key=lambda at: -len(texts[at]))
        answers = [EMPTY] * len(rows)
        with torch.inference_mode():
            for start in range(0, len(asked), BATCH):
                part = asked[start : start + BATCH]
                for at, answer in zip(part, speak([rows[at] for at in part]), strict=True):
                    answers[at] = answer
        return answers

    def close(self) -> None:
        """Nothing was started."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D), each of length 1; longer texts are cut at the context, which is logged."""
        vectors = embed(self.kernel, self._read(texts), self.limits.pooling, normalise=True, batch=BATCH)
        return vectors.numpy().astype(np.float32)

    def embedded(self, documents: Sequence[Row]) -> Corpus:
        """Documents (`id`, `text`) as what is ranked."""
        ids, texts = tuple(str(row["id"]) for row in documents), [str(row["text"]) for row in documents]
        return Corpus(ids, self.embed(texts))

    def _classes(self, rows: Sequence[Row]) -> list[Answer]:
        labels = self.kernel.config.labels
        objective = Classify(self.tokenizer, labels, ClassifyConfig(context=self.limits.context))
        given = [{**row, "label": labels[0]} for row in rows]
        batch = objective.collate([objective.encode(row) for row in given], torch.Generator()).to(self.device)
        self._tell(objective.truncated)
        answers = []
        for scores in objective.predict(self.kernel, batch):
            found = torch.sort(scores, descending=True, stable=True)
            best = [(labels[int(at)], float(p)) for at, p in zip(found.indices[:TOP], found.values[:TOP], strict=True)]
            answers.append(Answer(best[0][0], scores=dict(best)))
        return answers

    def _tags(self, rows: Sequence[Row]) -> list[Answer]:
        labels = self.kernel.config.labels
        objective = Tag(self.tokenizer, labels, tag_config(self.limits.context))
        blank = [{"tokens": list(row["tokens"]), "tags": [labels[0]] * len(row["tokens"])} for row in rows]
        windows = objective.arrange([objective.encode(row) for row in blank])
        parts = []
        for start in range(0, len(windows), BATCH):
            batch = objective.collate(windows[start : start + BATCH], torch.Generator()).to(self.device)
            parts += objective.predict(self.kernel, batch)
        tags = join_parts(parts)
        return [Answer([labels[at] for at in tags[number]]) for number in range(len(rows))]

    def _texts(self, rows: Sequence[Row]) -> list[Answer]:
        sources, written = [str(row["source"]) for row in rows], self.limits.target_context
        if self.kernel.config.layout == "encoder-decoder":
            prompts = self._read(sources)
        else:
            bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
            room = self.limits.context - written - len(bos)
            bare = self.tokenizer.encode_batch(sources, add_special=False)
            self._tell({"sources cut at the context": sum(len(ids) > room for ids in bare)})
            prompts = [[*bos, *ids[:room]] for ids in bare]
        how = GenerationConfig(max_new_tokens=written, sampling=SamplingConfig(temperature=0.0))
        return [
            Answer(text.strip(), raw=text)
            for text in (self.tokenizer.decode(one.ids) for one in generate(self.kernel, prompts, how))
        ]

    def _ranks(self, rows: Sequence[Row]) -> list[Answer]:
        if self.corpus is None:
            raise DataError("there is no corpus to rank", remedy="give the task a corpus")
        scores = self.embed([text_of(row, "rank") for row in rows]) @ self.corpus.vectors.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :RANKED]
        return [
            Answer(
                [self.corpus.ids[at] for at in found],
                scores={self.corpus.ids[at]: float(own[at]) for at in found[:TOP]},
            )
            for found, own in zip(order, scores, strict=True)
        ]

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        whole, room = self.tokenizer.encode_batch(texts), self.limits.context
        self._tell({"texts cut at the context": sum(len(ids) > room for ids in whole)})
        return [
            ids if len(ids) <= room else self.tokenizer.encode(text, max_length=room)
            for ids, text in zip(whole, texts, strict=True)
        ]

    def _tell(self, truncated: Mapping[str, Any]) -> None:
        for what, count in truncated.items():
            if count:
                _log.warning("%s (%d tokens): %d", what, self.limits.context, count)


def tag_config(context: int) -> TagConfig:
    """How taggers of rungs are trained and read."""
    return TagConfig(context=context, overlap=min(32, context // 4))


def opened(model: Path, limits: Limits, device: str = "cpu", corpus: Corpus | None = None) -> KernelAnswers:
    """The kernel of a folder with the tokenizer beside it, in float32."""
    return KernelAnswers(hf.load(model, device=device).float(), Tokenizer.load(model), limits, corpus)


def opened_rung(folder: Path, manifest: Manifest, device: str = "cpu") -> KernelAnswers:
    """The kernel in `model/` of a rung, and the embedded corpus of `rank`.

    Raises CheckpointError where something is missing or damaged.
    """
    how = manifest.how
    try:
        limits = Limits(manifest.kind, int(how["context"]), int(how["target_context"]), how["pooling"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: rung.json lacks {error}", remedy="run the ladder again") from error
    corpus = Corpus.load(folder) if manifest.kind == "rank" else None
    return opened(folder / MODEL, limits, device, corpus)
