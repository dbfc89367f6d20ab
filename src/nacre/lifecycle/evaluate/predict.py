"""What a kernel says about test rows: batched inference in order of length, with everything cut or skipped counted.

Imports torch: stage modules import this inside their functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.data.tokenizer import Tokenizer
from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.model import Kernel
from nacre.metrics.language import LanguageScore
from nacre.progress import Progress
from nacre.train.loss import token_nll
from nacre.train.objective import IGNORE, Objective, Row
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig, TagConfig
from nacre.train.objectives.tag import Tag

Floats = NDArray[np.float64]


@dataclass
class Model:
    """A kernel ready to predict, and the tokenizer that lies beside it (None for images)."""

    kernel: Kernel
    tokenizer: Tokenizer | None
    device: str
    batch: int
    progress: Progress

    @property
    def words(self) -> Tokenizer:
        """The tokenizer; CheckpointError when there is none."""
        if self.tokenizer is None:
            raise CheckpointError(
                "the model folder holds no tokenizer.json, and no tokenizer was given",
                remedy="give the tokenizer as an input, or keep its files beside the weights",
            )
        return self.tokenizer


def open_model(folder: Path, tokenizer: Path | None, device: str, batch: int, progress: Progress) -> Model:
    """Loads kernel and tokenizer; raises CheckpointError for a folder that is no checkpoint."""
    kernel = hf.load(folder, device=device).eval()
    source = tokenizer or (folder if (folder / "tokenizer.json").is_file() else None)
    return Model(kernel, Tokenizer.load(source) if source else None, device, batch, progress)


@dataclass
class Answers:
    """One entry per row, in order. Counted: rows cut (`truncated`), skipped (`dropped`), read in parts (`windowed`)."""

    values: list[Any]
    truncated: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    windowed: Counter[str] = field(default_factory=Counter)


def _by_length(
    model: Model, objective: Objective[Any, Any], examples: Sequence[Any]
) -> Iterator[tuple[list[int], Any]]:
    """(rows, batch on the device), the longest first, so that memory runs out at once or never."""
    order = sorted(range(len(examples)), key=lambda row: -objective.length(examples[row]))
    rng = torch.Generator().manual_seed(0)  # objectives that predict draw nothing from it
    for start in range(0, len(order), model.batch):
        rows = order[start : start + model.batch]
        yield rows, objective.collate([examples[row] for row in rows], rng).to(model.device)
        model.progress.update(min(start + model.batch, len(order)), len(order))


def class_probabilities(model: Model, objective: Objective[Any, Any], rows: Sequence[Row]) -> Answers:
    """Probabilities (N, C) of `classify` and `classify_image` objectives, one array (C,) per row."""
    objective.check(model.kernel)
    examples = [objective.encode(row) for row in rows]
    values: list[Floats] = [np.empty(0)] * len(rows)
    for numbers, batch in _by_length(model, objective, examples):
        scores = objective.predict(model.kernel, batch).double().numpy()
        if not np.isfinite(scores).all():
            raise CheckpointError(
                "the model's probabilities are not finite: its weights hold NaN, or overflow their precision",
                remedy="fetch or train it again; a model in float16 may need float32",
            )
        for number, score in zip(numbers, scores, strict=True):
            values[number] = score
    return Answers(values, objective.truncated, objective.dropped)


def pair_rewards(model: Model, objective: Objective[Any, Any], rows: Sequence[Row]) -> tuple[list[int], Answers]:
    """The numbers of the rows that could be read (from 0), and for each the rewards (2,), the chosen answer's first.

    `objective` is `reward` or `preference`: it predicts (B, 2).
    """
    objective.check(model.kernel)
    encoded = [(number, example) for number, row in enumerate(rows) if (example := objective.encode(row)) is not None]
    examples = objective.arrange([example for _, example in encoded])
    values: list[Floats] = [np.empty(0)] * len(examples)
    for places, batch in _by_length(model, objective, examples):
        scores = objective.predict(model.kernel, batch).double().numpy()
        if not np.isfinite(scores).all():
            raise CheckpointError(
                "the model's rewards are not finite: its weights hold NaN, or overflow their precision",
                remedy="fetch or train it again; a model in float16 may need float32",
            )
        for place, score in zip(places, scores, strict=True):
            values[place] = score
    return [number for number, _ in encoded], Answers(values, objective.truncated, objective.dropped)


def tag_config(context: int, trained: Mapping[str, Any]) -> TagConfig:
    """How a tagger reads: windows overlap as in its training, by a quarter of the context at most."""
    overlap = min(int(trained.get("overlap", TagConfig.overlap)), max(context // 4, 1))
    return TagConfig(context=context, overlap=overlap)


def tag_names(model: Model, context: int, trained: Mapping[str, Any], rows: Sequence[Row]) -> Answers:
    """A list of tag names per row. Rows longer than `context` are read in windows; every token gets a tag."""
    labels = model.kernel.config.labels
    objective = Tag(model.words, labels, tag_config(context, trained))
    objective.check(model.kernel)
    # Tags are not read here, and test data may hold some that the model does not know.
    blank = [{"tokens": row["tokens"], "tags": [labels[0]] * len(row["tokens"])} for row in rows]
    windows = objective.arrange([objective.encode(row) for row in blank])
    values = [[""] * len(row["tokens"]) for row in rows]
    for _, batch in _by_length(model, objective, windows):
        for part in objective.predict(model.kernel, batch):
            values[part.row][part.start : part.start + len(part.tags)] = [labels[tag] for tag in part.tags]
    windowed = Counter({name: n for name, n in objective.noted.items() if "windows" in name})
    return Answers(values, objective.truncated, objective.dropped, windowed)


def language_scores(model: Model, context: int, rows: Sequence[Row]) -> Answers:
    """A LanguageScore per row. A longer text is cut into pieces of `context`; each is read without the one before."""
    tokenizer = model.words
    ends = tokenizer.eos_id is not None
    objective = Causal(tokenizer, CausalConfig(context=context, packing="none", add_eos=ends, count_bytes=True))
    objective.check(model.kernel)
    pieces: list[Any] = []
    owner: list[int] = []
    for number, row in enumerate(rows):
        example = objective.encode(row)
        found = objective.arrange([example]) if example is not None else []
        pieces += found
        owner += [number] * len(found)
    sums = np.zeros((len(rows), 3))
    for numbers, batch in _by_length(model, objective, pieces):
        for number, score in zip(numbers, _piece_scores(model.kernel, batch), strict=True):
            sums[owner[number]] += score
    values = [LanguageScore(float(nll), int(tokens), int(size)) for nll, tokens, size in sums]
    return Answers(values, objective.truncated, objective.dropped, objective.noted)


@torch.no_grad()
def _piece_scores(kernel: Kernel, batch: Any) -> Floats:
    """(B, 3): nats, predicted tokens, bytes of each row of a causal batch."""
    hidden = kernel(batch.ids, segments=batch.segments, positions=batch.positions).hidden
    nll = token_nll(kernel.lm_logits(hidden).flatten(0, 1), batch.targets.flatten(), None).view(batch.targets.shape)
    real = batch.targets != IGNORE
    columns = [nll.double() * real, real.double(), batch.n_bytes.double() * real]
    return torch.stack([column.sum(-1) for column in columns], dim=-1).cpu().numpy()


def written(
    model: Model, prompts: Sequence[Sequence[int]], how: Callable[[int], GenerationConfig]
) -> list[tuple[str, str]]:
    """(text, why it stopped) per prompt. `how(batch number)` gives the settings, so that every batch draws its own."""
    texts: list[tuple[str, str]] = []
    decode = model.words.decode
    for number, start in enumerate(range(0, len(prompts), model.batch)):
        part = prompts[start : start + model.batch]
        for one in generate(model.kernel, part, how(number), decode=decode):
            texts.append((one.text if one.text is not None else decode(one.ids), one.stopped))
        model.progress.update(len(texts), len(prompts))
    return texts


def start_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that begin a text from nothing: the start token, or the end token where one serves as both."""
    for found in (tokenizer.bos_id, tokenizer.eos_id):
        if found is not None:
            return [found]
    raise CheckpointError(
        "the tokenizer has neither a start nor an end token, so a text cannot begin from nothing",
        remedy="give prompts, or train the tokenizer in a style with a start token (gpt, llama)",
    )


def counts(found: Mapping[str, int]) -> dict[str, int]:
    """A counter as plain values, the empty entries left out."""
    return {name: int(value) for name, value in found.items() if value}
