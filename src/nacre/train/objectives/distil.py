"""White-box distillation: a student learns what a teacher finds likely, not only what is right.

Hinton et al. 2015, "Distilling the knowledge in a neural network"; Agarwal et al. 2024, "On-policy distillation of
language models" (GKD). N trained positions or rows, V tokens or classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.errors import ConfigError
from nacre.train.loss import capped
from nacre.train.objective import IGNORE, Loss, Outputs, Predictive, Row
from nacre.train.objectives.config_align import DistilConfig
from nacre.train.objectives.layer_match import apart, pairs, seen
from nacre.train.objectives.onpolicy import can_write, written
from nacre.train.objectives.taught import Answers, Taught, TaughtBatch, untaught
from nacre.train.objectives.wrapped import Wrapped, told

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class Teacher:
    """A kernel that is asked and never changed: in evaluation mode, without gradients, no part of what is saved.

    `tokenizer` is the one it was trained with. `reads`: an objective with that tokenizer, where the student has another
    one; only for classes of whole texts, which are the same whoever reads them.
    """

    kernel: Kernel
    tokenizer: Tokenizer | None = None
    reads: Predictive[Any, Any] | None = None


class Distil(Wrapped):
    """The objective `inner`, learnt from a teacher as well. Metrics: `soft` (the divergence in nats, without T^2),
    `agreement` (how often both find the same most likely), `hidden` (the distance of the states)."""

    inner: Predictive[Any, Any]

    def __init__(
        self,
        inner: Predictive[Any, Any],
        teacher: Teacher,
        config: DistilConfig | None = None,
        *,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(inner)
        if not hasattr(inner, "outputs"):
            raise ConfigError(
                f"{type(inner).__name__} does not say what it predicts, so nothing can be compared with a teacher",
                remedy="distil a task of classes, tags or tokens",
            )
        self.teacher, self.config = teacher, config or DistilConfig()
        self._answers = Answers(self._asked, folder, device) if self.config.cache else None
        if teacher.reads is not None and self._answers is None:
            raise ConfigError("a teacher that reads by its own tokenizer is asked once", remedy="set cache: true")
        self.kept_tokens: int | None = None
        """How many tokens the teacher read where it is asked once."""
        self._columns: Tensor | None = None
        self._width: int | None = None  # tokens that both predict, where one table has more rows of padding
        for parameter in teacher.kernel.parameters():
            parameter.requires_grad_(False)
        teacher.kernel.eval()

    def check(self, kernel: Kernel) -> None:
        """As of `inner`; ConfigError too where teacher and student cannot be compared, position by position."""
        self.inner.check(kernel)
        mine, theirs = kernel.config, self.teacher.kernel.config
        for name in ("head", "layout"):
            if getattr(mine, name) != getattr(theirs, name) and not (name == "layout" and self.teacher.reads):
                raise ConfigError(
                    f"the teacher has {name} {getattr(theirs, name)!r}, the student {getattr(mine, name)!r}",
                    remedy="give a teacher that was tuned on the same kind of task",
                )
        if self.teacher.reads is None:
            check_tokens(getattr(self.inner, "tokenizer", None), self.teacher.tokenizer)
        if mine.labels:
            self._columns = columns_of(mine.labels, theirs.labels)
        else:
            self._check_rows(mine.vocab_size, theirs.vocab_size)
        if self.config.hidden is not None:
            pairs(self.config.hidden, mine, theirs)
        if self.config.on_policy is not None and not can_write(self.inner):
            raise ConfigError("on_policy needs a student that writes text", remedy="leave it out, or distil sft")

    def _check_rows(self, mine: int, theirs: int) -> None:
        """Tables of other sizes are those of one vocabulary with more or less padding, or of two vocabularies."""
        if mine == theirs:
            return
        self._width = min(mine, theirs)
        if self.teacher.tokenizer is None or len(self.teacher.tokenizer) > self._width:
            raise ConfigError(
                f"the student predicts {mine:,} tokens, the teacher {theirs:,}: another vocabulary",
                remedy="give a student and a teacher of one tokenizer, or let teach.collect gather texts instead",
            )

    # ---- rows and batches

    def encode(self, row: Row) -> Any:
        example = self.inner.encode(row)
        if self.teacher.reads is None or example is None:
            return example
        theirs = self.teacher.reads.encode(row)
        return None if theirs is None else Taught(example, theirs)

    def arrange(self, examples: Sequence[Any]) -> list[Any]:
        return list(examples) if self.teacher.reads is not None else self.inner.arrange(examples)

    def fit(self, examples: Sequence[Any]) -> list[Any]:
        fitted = self.inner.fit([untaught(one) for one in examples])
        if self._answers is None:
            return fitted
        read = [one.theirs if isinstance(one, Taught) else one for one in examples]
        reader = self.teacher.reads or self.inner
        self.kept_tokens = sum(reader.length(one) for one in read)
        return self._answers.beside(fitted, read, reader)

    def length(self, example: Any) -> int:
        return self.inner.length(untaught(example))

    def collate(self, examples: Sequence[Any], rng: torch.Generator) -> Any:
        batch = self.inner.collate([untaught(one) for one in examples], rng)
        said = [one.logits for one in examples if isinstance(one, Taught) and one.logits is not None]
        return TaughtBatch(batch, torch.stack(said)) if said else batch

    def count(self, batch: Any) -> int:
        return self.inner.count(_plain(batch))

    def tokens(self, batch: Any) -> int:
        return self.inner.tokens(_plain(batch))

    def predict(self, kernel: Kernel, batch: Any) -> Any:
        return self.inner.predict(kernel, _plain(batch))

    def loss(self, kernel: Kernel, batch: Any) -> Loss:
        return self.training_loss(kernel, batch) if kernel.training else self.inner.loss(kernel, _plain(batch))

    # ---- the loss

    def training_loss(self, kernel: Kernel, batch: Any) -> Loss:
        policy = self.config.on_policy
        if policy is None or float(torch.rand(())) >= policy.share:
            return self._on_rows(kernel, batch)
        # What is written has another length than the rows that the step counts by: its mean stands for theirs.
        own = written(self.inner, kernel, batch, policy)
        rows = torch.tensor(self.inner.count(batch), device=next(kernel.parameters()).device)
        if own is None:
            return Loss(next(one for one in kernel.parameters() if one.requires_grad).sum() * 0.0, rows)
        soft, metrics, count = self._soft(kernel, own)
        return Loss(soft / count.clamp_min(1) * rows, rows, {f"own_{name}": pair for name, pair in metrics.items()})

    def _on_rows(self, kernel: Kernel, batch: Any) -> Loss:
        share, match = self.config.share, self.config.hidden
        plain = _plain(batch)
        if match is None:
            outputs = self.inner.outputs(kernel, plain)
            said = batch.logits if isinstance(batch, TaughtBatch) else self._asked(self.inner, plain, _place(kernel))
            distance = None
        else:
            layers = pairs(match, kernel.config, self.teacher.kernel.config)
            with seen(kernel, layers) as mine, seen(self.teacher.kernel, set(layers.values())) as theirs:
                outputs = self.inner.outputs(kernel, plain)
                said = self._asked(self.inner, plain, _place(kernel))
            distance = apart(kernel, mine, theirs, layers, match.kind)
        hard = self.inner.loss_of(outputs)
        soft, metrics, count = self._compared(outputs, said)
        total = (1 - share) * hard.sum + share * soft
        metrics = {**hard.metrics, **metrics, "hard": told(hard.sum, hard.count)}
        if distance is not None and match is not None:
            weights = positions(plain, outputs, distance)
            hidden = (distance * weights).sum()
            total = total + match.weight * hidden
            metrics["hidden"] = told(hidden, count)
        return Loss(total, hard.count, metrics)

    def _soft(self, kernel: Kernel, batch: Any) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], Tensor]:
        return self._compared(self.inner.outputs(kernel, batch), self._asked(self.inner, batch, _place(kernel)))

    def _compared(self, outputs: Outputs, said: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], Tensor]:
        """T^2 D summed over what is trained, the metrics, and how many are trained."""
        trained = outputs.targets != IGNORE
        mine, theirs = outputs.logits[trained][:, : self._width], said[trained][:, : self._width]
        nats = divergence(mine, theirs, self.config).sum()
        count = trained.sum()
        same = (mine.detach().argmax(-1) == theirs.argmax(-1)).sum()
        metrics = {"soft": told(nats, count), "agreement": (same, count)}
        return self.config.temperature**2 * nats, metrics, count

    @torch.no_grad()
    def _asked(self, reader: Predictive[Any, Any], batch: Any, device: torch.device | str) -> Tensor:
        """(N, V) what the teacher predicts, its classes in the student's order."""
        kernel = self.teacher.kernel.to(device).eval()
        logits = reader.outputs(kernel, batch).logits
        return logits if self._columns is None else logits[:, self._columns.to(logits.device)]


def divergence(student: Tensor, teacher: Tensor, config: DistilConfig) -> Tensor:
    """(N,) D(teacher, student) in nats at the config's temperature, without its square. Logits are (N, V)."""
    p = (capped(teacher, None) / config.temperature).log_softmax(-1)
    q = (capped(student, None) / config.temperature).log_softmax(-1)
    if config.direction == "forward":
        return _kl(p, q)
    if config.direction == "reverse":
        return _kl(q, p)
    mixture = torch.logaddexp(p + math.log(config.beta), q + math.log1p(-config.beta))
    return config.beta * _kl(p, mixture) + (1 - config.beta) * _kl(q, mixture)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """(N,) KL(p || q) of log-probabilities (N, V)."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def positions(batch: Any, outputs: Outputs, grid: Tensor) -> Tensor:
    """(B, T) how much each position counts: trained tokens 1; of rows that are trained as one, each its real tokens
    in equal parts."""
    trained = outputs.targets != IGNORE
    if trained.numel() == grid.numel():
        return trained.reshape(grid.shape).to(grid.dtype)
    picks = getattr(batch, "picks", None)
    if picks is not None:
        flat = torch.zeros(grid.numel(), dtype=grid.dtype, device=grid.device)
        return flat.index_add(0, picks, trained.to(grid.dtype)).view(grid.shape)
    real: Tensor = batch.mask.to(grid.dtype)
    return real / real.sum(-1, keepdim=True).clamp_min(1)


def columns_of(mine: Sequence[str], theirs: Sequence[str]) -> Tensor | None:
    """The teacher's class for each of the student's, by name; None where the order is the same.

    ConfigError unless both have the same classes.
    """
    if set(mine) != set(theirs):
        lacking, more = sorted(set(mine) - set(theirs)), sorted(set(theirs) - set(mine))
        raise ConfigError(
            f"the teacher and the student do not have the same classes: the teacher lacks {lacking[:5]}, "
            f"and has besides {more[:5]}",
            remedy="give the teacher that was tuned on these classes",
        )
    if tuple(mine) == tuple(theirs):
        return None
    return torch.tensor([theirs.index(name) for name in mine])


def same_tokens(mine: Tokenizer, theirs: Tokenizer) -> bool:
    """Whether both tokenizers give every token the same number."""
    return mine is theirs or mine.raw.get_vocab(True) == theirs.raw.get_vocab(True)


def check_tokens(mine: Tokenizer | None, theirs: Tokenizer | None) -> None:
    """Raises ConfigError unless both tokenizers give every token the same number."""
    if mine is not None and theirs is not None and not same_tokens(mine, theirs):
        raise ConfigError(
            f"the teacher has another vocabulary ({len(theirs):,} tokens) than the student ({len(mine):,}): "
            "what they read and predict cannot be compared token by token",
            remedy="give both one tokenizer, or gather the teacher's texts (teach.collect); classes of whole texts can "
            "be learnt from it with cache: true",
        )


def _plain(batch: Any) -> Any:
    return batch.inner if isinstance(batch, TaughtBatch) else batch


def _place(kernel: Kernel) -> torch.device:
    return next(kernel.parameters()).device
