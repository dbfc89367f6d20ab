"""What to build for a task: vocabulary, kernel and length of training, from its text and the budget. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nacre.data.tokenizer import Tokenizer
from nacre.data.tokenizer_config import TokenizerConfig
from nacre.kernel.config import KernelConfig
from nacre.kernel.presets import preset
from nacre.metrics.quality import Kind
from nacre.recipe.scaling import Rule, Shape, Sized, size, vocabulary
from nacre.tiers.pretrain.effort import EFFORTS, RECIPES, allowed
from nacre.tiers.pretrain.stages import SolveConfig
from nacre.tiers.pretrain.texts import Measured
from nacre.tiers.task import Task, targets_of, text_of

SHARE_WHOLE = 0.99  # of the texts fit the context; the others are cut, and counted
MOST_MEASURED = 5_000  # training rows whose lengths are looked at
SENTINELS = 32


@dataclass(frozen=True)
class Design:
    """A kernel to be, and how long it is trained. `steps` are of tuning; `epochs` what they come to.

    `context` and `target_context` are in tokens, special ones included.
    """

    family: str
    sized: Sized
    context: int
    target_context: int
    batch_size: int
    steps: int
    epochs: float
    flops: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "epochs": round(self.epochs, 2),
            "target_context": self.target_context,
            "tuning_flops": self.flops,
            "size": self.sized.to_dict(),
        }


def tokenizer_config(task: Task, found: Measured) -> TokenizerConfig:
    """WordPiece for kernels that read, Unigram for those that write; a vocabulary of the size that the text feeds.

    Case is kept where it carries the answer: names in tagging, written text.
    """
    entries = vocabulary(found.n_bytes, found.distinct)
    if task.kind == "generate":
        return TokenizerConfig(algorithm="unigram", style="t5", vocab_size=entries, sentinels=SENTINELS)
    lowercase = task.kind != "tag"
    return TokenizerConfig(
        algorithm="wordpiece", style="bert", vocab_size=entries, lowercase=lowercase, character_coverage=1.0
    )


def design(config: SolveConfig, task: Task, tokenizer: Tokenizer, found: Measured) -> Design:
    """The kernel that the budget and the data allow, and the steps of tuning that the budget pays."""
    recipe, effort = RECIPES[task.kind], EFFORTS[config.effort]
    lengths = Lengths.of(task, tokenizer)
    context, target_context = lengths.context(recipe.longest), lengths.target_context(recipe.longest)
    family = config.preset or recipe.preset

    def kernel(shape: Shape) -> KernelConfig:
        given = choices(family, shape, max(context, target_context), tokenizer)
        made = preset(family, **given | dict(recipe.choices))
        # Tuning reads states: what a masked-language head weighs and costs is no part of the solution.
        return made if made.layout == "encoder-decoder" else made.replace(head="none")

    unique = found.n_bytes / max(1.0, lengths.bytes_per_token)
    flops = config.flops or effort.flops * recipe.share
    typical = round(lengths.mean)
    sized = size(flops, unique, kernel, typical, rule=Rule(config.ratio, config.epochs), shapes=allowed(recipe))
    batch_size = recipe.batch_for(_examples(task))
    flops_per_step = batch_size * lengths.per_example(task.kind) * sized.weight.flops_per_token
    per_pass = max(1.0, _examples(task) / batch_size)
    paid = math.floor(min(flops / flops_per_step, effort.passes * per_pass))
    steps = config.steps or max(1, paid)
    spent = steps * flops_per_step
    return Design(family, sized, context, target_context, batch_size, steps, steps / per_pass, spent)


def _examples(task: Task) -> int:
    """Labelled examples: rows, or pairs of a query and a text that answers it."""
    return sum(len(row["relevant"]) for row in task.train) if task.kind == "rank" else len(task.train)


def choices(family: str, shape: Shape, positions: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of KernelConfig in which the kernel differs from its family's base model."""
    given: dict[str, Any] = {
        "hidden_size": shape.hidden_size,
        "layers": shape.layers,
        "heads": shape.heads,
        "max_positions": positions,
        "vocab_size": len(tokenizer),
        "pad_id": tokenizer.pad_id,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        # Attention without dropout runs on torch's fast CPU kernel.
        "attention_dropout": 0.0,
    }
    if family.startswith("t5"):
        heads = max(1, shape.hidden_size // 64)
        given |= {"heads": heads, "head_dim": 64, "tied": True, "decoder_start_id": tokenizer.pad_id}
        given["logit_scale"] = shape.hidden_size**-0.5
    return given


@dataclass(frozen=True)
class Lengths:
    """Tokens of training texts, special ones included: of what is read, and of what is to be written."""

    read: Sequence[int]
    written: Sequence[int]
    bytes_per_token: float

    @classmethod
    def of(cls, task: Task, tokenizer: Tokenizer) -> Lengths:
        rows = task.train[:: max(1, len(task.train) // MOST_MEASURED)]
        asked = [text_of(row, task.kind) for row in rows]
        if task.kind == "rank":
            asked += [str(row["text"]) for row in task.corpus[:: max(1, len(task.corpus) // MOST_MEASURED)]]
        answers = [text for row in rows for text in targets_of(row)] if task.kind == "generate" else []
        read = [len(ids) for ids in tokenizer.encode_batch(asked)]
        written = [len(ids) for ids in tokenizer.encode_batch(answers)] if answers else []
        n_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in [*asked, *answers])
        return cls(read, written, n_bytes / max(1, sum(read) + sum(written)))

    @property
    def mean(self) -> float:
        """Tokens of an example; of a source and its target the mean of both: the kernel reads them side by side."""
        reads = sum(self.read) / len(self.read)
        return (reads + sum(self.written) / len(self.written)) / 2 if self.written else reads

    def per_example(self, kind: Kind) -> float:
        """Tokens that an example takes: a query and a text are both read."""
        return self.mean * (2 if kind == "rank" else 1)

    def context(self, longest: int) -> int:
        return _whole(self.read, longest)

    def target_context(self, longest: int) -> int:
        return _whole(self.written, longest) if self.written else 3


def _whole(lengths: Sequence[int], longest: int) -> int:
    """A multiple of 16 that holds nearly every text whole, at most `longest`."""
    ordered = sorted(lengths)
    enough = ordered[min(len(ordered) - 1, math.floor(SHARE_WHOLE * len(ordered)))]
    return min(longest, max(16, -(-enough // 16) * 16))
