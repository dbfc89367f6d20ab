"""Objectives: how rows become batches, and how batches become a loss.

An objective is a small class. `prepare` turns rows into examples before training starts and tells every mistake then;
during training only `collate`, `count` and `loss` run. The loss is a (sum, count) pair, so that no layout of batches,
accumulation or ranks can change its meaning: the gradient of a step is the sum of sums over the sum of counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from nacre.errors import ConfigError, DataError, closest
from nacre.lazy import named

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel

Row = Mapping[str, Any]

# Targets with this value are not trained; the value that torch.nn.functional.cross_entropy ignores by default.
IGNORE = -100

CATALOGUE: dict[str, str] = {
    "causal": "nacre.train.objectives.causal:Causal",
    "mlm": "nacre.train.objectives.mlm:MaskedLM",
    "nsp": "nacre.train.objectives.nsp:SentencePairs",
    "span": "nacre.train.objectives.span:SpanCorruption",
    "classify": "nacre.train.objectives.classify:Classify",
    "classify_image": "nacre.train.objectives.image:ClassifyImage",
    "tag": "nacre.train.objectives.tag:Tag",
    "sft": "nacre.train.objectives.sft:Sft",
    "sft_seq2seq": "nacre.train.objectives.sft:SftSeq2Seq",
    "seq2seq": "nacre.train.objectives.seq2seq:Seq2Seq",
    "contrast": "nacre.train.objectives.contrast:Contrast",
    "reward": "nacre.train.objectives.reward:Reward",
    "preference": "nacre.train.objectives.preference:Preference",
    "preference_kto": "nacre.train.objectives.preference:Kto",
}


@dataclass(frozen=True)
class Loss:
    """`sum`: scalar float32 with a gradient; `count`: scalar, how many tokens or rows it sums over.

    `metrics` holds further (sum, count) pairs by name, without gradients: add them up over batches, then divide.
    """

    sum: Tensor
    count: Tensor
    metrics: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """sum / count, and 0 when nothing was trained."""
        return self.sum / self.count.clamp_min(1)


@dataclass(frozen=True)
class Batch:
    """Base of the batches: a dataclass whose tensor fields travel to a device together; None stays None."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        moved = {
            item.name: value.to(device, non_blocking=non_blocking)
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        return replace(self, **moved)


E = TypeVar("E")
B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Outputs:
    """What a kernel predicts: `logits` (N, V) over tokens or classes, `targets` (N,) int64, IGNORE where nothing is
    trained."""

    logits: Tensor
    targets: Tensor


class Objective(Protocol[E, B]):
    """What the training loop and the evaluation need to know of a task. E is its example, B its batch."""

    dropped: Counter[str]
    """Rows that became no example, by reason."""
    truncated: Counter[str]
    """Rows of which a part was cut away, by what was cut."""
    noted: Counter[str]
    """Anything else a person should know, counted (a document split over blocks, a sentence halved)."""

    def check(self, kernel: Kernel) -> None:
        """Raises ConfigError when this kernel cannot be trained on this objective."""

    def encode(self, row: Row) -> E | None:
        """One row as an example; None is a drop, counted in `dropped`. Raises DataError on a row that is wrong."""

    def arrange(self, examples: Sequence[E]) -> list[E]:
        """What needs all rows at once: packing, pairing, windows. Raises DataError when the rows cannot be used."""

    def fit(self, examples: Sequence[E]) -> list[E]:
        """The training examples as they are trained (some objectives vary them), after taking from them what the loss
        needs (class weights). DataError if they teach nothing."""

    def length(self, example: E) -> int:
        """Positions the example takes in a batch, for grouping examples of like length."""

    def collate(self, examples: Sequence[E], rng: torch.Generator) -> B:
        """A batch on the CPU. Whatever is random is drawn from `rng` and nothing else."""

    def count(self, batch: B) -> int:
        """What the loss divides by: trained tokens, or rows. Equals `loss(kernel, batch).count`."""

    def tokens(self, batch: B) -> int:
        """Real (not padding) positions the kernel reads, for tokens per second."""

    def loss(self, kernel: Kernel, batch: B) -> Loss:
        """The training loss of a batch as (sum, count)."""

    def predict(self, kernel: Kernel, batch: B) -> Any:
        """What evaluation needs of a batch; each objective says what. Without gradients, on the CPU."""

    def watch(self, step: int) -> None:
        """Raises TrainingError when the losses so far, to those of `step` (from 1), show that the run has gone astray.

        Called after each step on CPU; on a GPU, which it may wait for, at reports and before checkpoints.
        """


class Predictive(Objective[E, B], Protocol[E, B]):
    """An objective whose loss is one of distributions over tokens or classes, so that these can be compared with a
    teacher's, or with those of a second pass."""

    def outputs(self, kernel: Kernel, batch: B) -> Outputs:
        """The predictions that the loss judges, and nothing else."""

    def loss_of(self, outputs: Outputs) -> Loss:
        """The training loss of predictions: `loss(kernel, batch)` is that of `outputs(kernel, batch)`."""


class Tallied:
    """The three counters of an objective, and defaults for what most objectives do not need."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.truncated: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()

    def note(self, what: str, n: int) -> None:
        """Counts `n` of something in `noted`, if there were any."""
        if n:
            self.noted[what] += n

    def check(self, kernel: Kernel) -> None:
        del kernel

    def watch(self, step: int) -> None:
        del step

    def arrange(self, examples: Sequence[Any]) -> list[Any]:
        return list(examples)

    def fit(self, examples: Sequence[Any]) -> list[Any]:
        return list(examples)


@dataclass(frozen=True)
class LanguageScore:
    """Negative log-likelihood of text: nats summed over `tokens`, and the UTF-8 bytes that these tokens spell."""

    nll: float
    tokens: int
    bytes: int

    def __add__(self, other: LanguageScore) -> LanguageScore:
        return LanguageScore(self.nll + other.nll, self.tokens + other.tokens, self.bytes + other.bytes)


@dataclass(frozen=True)
class MaskedScore:
    """Of hidden tokens: negative log-likelihood in nats, how many, how many were guessed right.

    It depends on what was hidden: it is no likelihood of the text and has no bits per byte.
    """

    nll: float
    tokens: int
    correct: int

    def __add__(self, other: MaskedScore) -> MaskedScore:
        return MaskedScore(self.nll + other.nll, self.tokens + other.tokens, self.correct + other.correct)


def load(name: str) -> type[Any]:
    """The objective class called `name` in the catalogue; its module is imported now."""
    if name not in CATALOGUE:
        raise ConfigError(f"no objective is called {name!r}", remedy=closest(name, CATALOGUE))
    found: type[Any] = named(CATALOGUE[name])
    return found


def prepare(
    objective: Objective[E, Any], rows: Iterable[Row], source: str = "data", *, training: bool = True
) -> list[E]:
    """All examples of `rows`, arranged. `source` names the rows in errors; `training` fits the objective to them.

    Raises DataError with the number of the row (from 1), the field and a remedy; also when nothing is left.
    """
    dropped_before = Counter(objective.dropped)
    encoded: list[E] = []
    number = 0
    for number, row in enumerate(rows, 1):
        try:
            example = objective.encode(row)
        except DataError as error:
            raise DataError(f"{source}, row {number}: {error.message}", remedy=error.remedy) from error
        if example is not None:
            encoded.append(example)
    try:
        examples = objective.arrange(encoded) if encoded else []
        if training and examples:
            examples = objective.fit(examples)
    except DataError as error:
        raise DataError(f"{source}: {error.message}", remedy=error.remedy) from error
    if not examples:
        dropped = objective.dropped - dropped_before
        why = ", ".join(f"{count:,} {reason}" for reason, count in dropped.most_common()) or "it is empty"
        raise DataError(
            f"{source}: none of {number:,} rows can be used ({why})",
            remedy="check the path and the fields of the rows, or loosen the cleaning filters",
        )
    return examples


def text_field(row: Row, name: str) -> str:
    """The text in field `name`, never empty; DataError names the field and the fields that are there."""
    value = row.get(name)
    if isinstance(value, str) and value.strip():
        return value
    if name not in row:
        problem = f"the field {name!r} is missing (fields: {', '.join(sorted(row)) or 'none'})"
    elif isinstance(value, str):
        problem = f"the field {name!r} is empty"
    else:
        problem = f"the field {name!r} holds {type(value).__name__}, not text"
    raise DataError(problem, remedy=f"give every row a text in {name!r}, or remove the row")


def is_blank(row: Row, name: str) -> bool:
    """Whether the field is there and holds nothing but white space: what corpora are full of, and no mistake."""
    value = row.get(name)
    return isinstance(value, str) and not value.strip()


def check_kernel(
    kernel: Kernel,
    tokenizer: Tokenizer | None,
    objective: str,
    *,
    heads: Sequence[str],
    layouts: Sequence[str],
    positions: int,
) -> None:
    """Raises ConfigError unless the kernel has one of the heads and layouts, every token's row and enough positions."""
    config = kernel.config
    if config.head not in heads:
        raise ConfigError(
            f"{objective} needs a kernel with the head {' or '.join(heads)}, this one has {config.head!r}",
            remedy=f"build it with head={heads[0]!r}, or give it one: kernel.with_head({heads[0]!r})",
        )
    if config.layout not in layouts:
        raise ConfigError(
            f"{objective} needs a kernel of layout {' or '.join(layouts)}, this one is {config.layout!r}",
            remedy="choose another objective, or another preset",
        )
    if tokenizer is not None and len(tokenizer) > config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer):,} tokens, the kernel embeds {config.vocab_size:,}",
            remedy=f"build the kernel with vocab_size={len(tokenizer)}",
        )
    if kernel.room is not None and positions > kernel.room:
        raise ConfigError(
            f"{objective} makes texts of {positions:,} tokens, the kernel takes {config.max_positions:,}",
            remedy=f"lower the length to {config.max_positions}, or build the kernel with max_positions={positions}",
        )
