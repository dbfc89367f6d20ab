"""Ranking from scratch: an encoder trained so that a query lies near what answers it. Imports torch.

First on pairs that the corpus itself holds (a text's title or beginning, and its rest), then on the queries of the
training rows. The corpus is embedded once, into the rung; an answer is a ranking by cosine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nacre.data.tokenizer import Tokenizer
from nacre.data.write import write_json
from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.kernel.generate import embed
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, Rows, fit, keep_tokenizer, load_kernel
from nacre.tiers.pretrain import pairing
from nacre.tiers.pretrain.answering import Answering, Solved
from nacre.tiers.pretrain.effort import RECIPES
from nacre.tiers.pretrain.phases import Phase, Phases
from nacre.tiers.pretrain.tuning import schedule
from nacre.tiers.rung import Answer
from nacre.tiers.task import Row
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import ContrastConfig
from nacre.train.objectives.contrast import Contrast

if TYPE_CHECKING:
    from nacre.tiers.pretrain.solver import Setting

VECTORS, IDS = "vectors.safetensors", "ids.json"
CORPUS_SHARE = 0.6  # of the steps go to the corpus' own pairs
LEAST_PAIRS = 64  # fewer teach nothing
MOST_RANKED = 100  # ids of an answer


def trained(setting: Setting, phases: Phases) -> tuple[Phase, str]:
    """The tuned encoder, and in words what it learnt from the corpus before."""
    left_out: Counter[str] = Counter()
    own = list(pairing.of_corpus(setting.task.corpus, left_out))
    if left_out:
        phases.work.progress.note("pairs left out", **left_out)
    steps, start = setting.design.steps, None
    said = f"none: the corpus gives {len(own)} pairs of its own, {LEAST_PAIRS} are the least"
    if len(own) >= LEAST_PAIRS:
        first = max(1, round(steps * CORPUS_SHARE))
        start = phases.run("corpus-pairs", lambda work: _on_corpus(setting, own, first, work)).folder
        said, steps = f"{len(own):,} pairs of the corpus itself, {first:,} steps", max(1, steps - first)
    return phases.run("tune", lambda work: _on_queries(setting, start, steps, work)), said


def _on_corpus(setting: Setting, pairs: list[dict[str, Any]], steps: int, work: Work) -> Mapping[str, Scalar]:
    recipe = RECIPES["rank"]
    how = TrainConfig(
        max_steps=steps, batch_size=recipe.batch_size, optimizer=recipe.optimizer, lr=recipe.lr, bucket=True
    )
    kernel = setting.fresh(work.seed).with_head("none")
    return fit(kernel, _objective(setting), Rows([*pairs], []), Fit(how), work)


def _on_queries(setting: Setting, start: Path | None, steps: int, work: Work) -> Mapping[str, Scalar]:
    task = setting.task
    kernel = setting.fresh(work.seed).with_head("none") if start is None else load_kernel(start, work)
    held: dict[str, dict[str, Any]] = {}
    for pair in pairing.answered(task, task.valid):
        held.setdefault(pair["query"], pair)  # one each: figures by batch are comparable then
    rows = Rows([*pairing.answered(task, task.train)], [*held.values()])
    how = schedule(setting, steps, bool(held), metric="loss", mode="min")
    metrics = fit(kernel, _objective(setting), rows, Fit(how), work)
    keep_tokenizer(setting.tokenizer, work.out, None)
    return {"parameters": sum(one.numel() for one in kernel.parameters()), **metrics}


def _objective(setting: Setting) -> Contrast:
    context = setting.design.context
    return Contrast(setting.tokenizer, ContrastConfig(context=context, positive_context=context))


def keep_vectors(setting: Setting, work: Work) -> None:
    """Embeds the corpus with the model in `work.out` and writes vectors and ids beside it."""
    corpus, room = setting.task.corpus, setting.design.context
    kernel = hf.load(work.out / "model", device=work.device).float().eval()
    vectors = embedded(kernel, setting.tokenizer, [str(row["text"]) for row in corpus], room, work.progress.note)
    save_file({"vectors": vectors}, work.out / VECTORS)
    write_json(work.out / IDS, [str(row["id"]) for row in corpus])


def embedded(
    kernel: Any, tokenizer: Tokenizer, texts: Sequence[str], context: int, tell: Callable[..., None]
) -> Tensor:
    """Vectors (N, D) of length 1, the mean of the tokens' states; texts beyond the context are cut and told."""
    encoded = tokenizer.encode_batch(texts)
    cut = [index for index, ids in enumerate(encoded) if len(ids) > context]
    for index in cut:
        encoded[index] = tokenizer.encode(texts[index], max_length=context)
    if cut:
        tell("texts cut at the context", texts=len(cut), tokens=context)
    return embed(kernel, encoded, "mean", normalise=True)


class Ranker(Solved):
    """An encoder with the embedded corpus, answering with the ids of the nearest texts, best first."""

    def __init__(self, solved: Solved, vectors: Tensor, ids: Sequence[str]) -> None:
        super().__init__(solved.kernel, solved.tokenizer, solved.limits, solved.device)
        self.vectors, self.ids = vectors, ids

    def _speaker(self) -> Callable[[Sequence[Row]], list[Answer]]:
        return self._ranks

    def _ranks(self, rows: Sequence[Row]) -> list[Answer]:
        def tell(what: str, **counts: int) -> None:
            self.tell({what: counts["texts"]})

        queries = [str(row["query"]) for row in rows]
        found = embedded(self.kernel, self.tokenizer, queries, self.limits.context, tell)
        cosines = found @ self.vectors.T
        most = min(MOST_RANKED, len(self.ids))
        best = torch.sort(cosines, dim=-1, descending=True, stable=True)
        return [
            Answer(
                [self.ids[at] for at in places[:most].tolist()],
                scores={self.ids[int(places[0])]: round(float(values[0]), 6)},
            )
            for places, values in zip(best.indices, best.values, strict=True)
        ]


def opened_ranker(folder: Path, limits: Answering, device: str = "cpu") -> Ranker:
    """The ranker of a rung's folder. Raises CheckpointError where vectors and ids do not go together."""
    from nacre.tiers.pretrain.answering import opened

    vectors = load_file(folder / VECTORS)["vectors"]
    ids = json.loads((folder / IDS).read_text(encoding="utf-8"))
    if len(ids) != len(vectors):
        raise CheckpointError(f"{folder}: {len(vectors)} vectors for {len(ids)} ids", remedy="run the ladder again")
    return Ranker(opened(folder / "model", limits, device), vectors, ids)
