"""Training against small changes of the word embeddings that raise the loss most.

The change is added to what the embedding of tokens gives, by a hook, for one forward pass: no weight is touched, so
nothing has to be restored (trap 43). Norms are over a whole example, (T, D), as the three papers have them. With an
encoder-decoder the encoder's input is changed. B examples, T positions, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nacre.errors import ConfigError
from nacre.train.objective import Loss, Objective
from nacre.train.objectives.config import AdversarialConfig
from nacre.train.objectives.wrapped import Wrapped, told

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


class Adversarial(Wrapped):
    """Any objective of text, trained on changed embeddings too.

    - `fgm` (Miyato et al. 2017, section 3): one step of length `epsilon` along the gradient;
      loss = clean + `weight` * changed.
    - `pgd` (Madry et al. 2018, section 2.1, in the L2 ball): `steps` of length `alpha`, each put back into the ball of
      radius `epsilon`; loss = clean + `weight` * changed, the last change.
    - `freelb` (Zhu et al. 2020, algorithm 1): from a random change, `steps` of length `alpha` in the ball; the loss is
      the mean over the changes on the way, so that every pass trains.

    The count is that of the clean loss. Metrics: `clean_loss` and `adversarial_loss`, each over that count;
    `attack_share`, the norm of the change over that of the embeddings (positions of padding included), by which
    `epsilon` is chosen: the papers' lengths hold for embeddings of unit variance.
    """

    def __init__(self, inner: Objective[Any, Any], config: AdversarialConfig | None = None) -> None:
        super().__init__(inner)
        self.config = config or AdversarialConfig()

    def check(self, kernel: Kernel) -> None:
        """ConfigError for a kernel without tokens."""
        if kernel.config.is_vision:
            raise ConfigError("adversarial training changes embeddings of tokens", remedy="train images without it")
        super().check(kernel)

    def training_loss(self, kernel: Kernel, batch: Any) -> Loss:
        return self._free(kernel, batch) if self.config.method == "freelb" else self._attacked(kernel, batch)

    def _attacked(self, kernel: Kernel, batch: Any) -> Loss:
        config = self.config
        steps, length = (1, config.epsilon) if config.method == "fgm" else (config.steps, config.alpha)
        with shifted(kernel) as shift:
            clean = loss = self.inner.loss(kernel, batch)
            for _ in range(steps):
                shift.climb(loss, length, config.epsilon)
                loss = self.inner.loss(kernel, batch)
        total = clean.sum + config.weight * loss.sum
        return Loss(total, clean.count, {**clean.metrics, **_metrics(clean, loss, shift)})

    def _free(self, kernel: Kernel, batch: Any) -> Loss:
        config = self.config
        losses: list[Loss] = []
        with shifted(kernel, config.epsilon) as shift:
            for step in range(config.steps):
                losses.append(self.inner.loss(kernel, batch))
                if step + 1 < config.steps:
                    shift.climb(losses[-1], config.alpha, config.epsilon)
        total = torch.stack([one.sum for one in losses]).mean()
        return Loss(total, losses[0].count, {**losses[0].metrics, **_metrics(losses[0], losses[-1], shift)})


def _metrics(clean: Loss, changed: Loss, shift: Shift) -> dict[str, tuple[Tensor, Tensor]]:
    shares = shift.shares()
    return {
        "clean_loss": told(clean.sum, clean.count),
        "adversarial_loss": told(changed.sum, changed.count),
        "attack_share": told(shares.sum(), torch.tensor(len(shares), device=shares.device)),
    }


class Shift:
    """A change (B, T, D) of the embeddings of one batch; zero, or random of norm up to `start`, until it climbs."""

    def __init__(self, start: float = 0.0) -> None:
        self.start = start
        self.value: Tensor | None = None
        self._norms: Tensor | None = None
        self._seen = 0

    def hook(self, module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        """Added to the first embedding of a forward pass; the answers of an encoder-decoder come second: left alone."""
        del module, inputs
        if self.value is None:
            self.value, self._norms = self._first(embedded), _norm(embedded.detach())
        self._seen += 1
        return embedded + self.value if self._seen == 1 else embedded

    def climb(self, loss: Loss, length: float, radius: float) -> None:
        """A step up the loss, put back into the ball of `radius`; each example by itself."""
        assert self.value is not None  # a forward pass came before
        (gradient,) = torch.autograd.grad(loss.sum, self.value, retain_graph=True)
        moved = self.value.detach() + length * gradient / _norm(gradient)
        self.value = (moved * (radius / _norm(moved)).clamp(max=1.0)).requires_grad_(True)
        self._seen = 0

    def shares(self) -> Tensor:
        """(B,) how large the change of each example is, beside its embeddings."""
        assert self.value is not None
        assert self._norms is not None
        return (_norm(self.value.detach()) / self._norms).flatten()

    def _first(self, embedded: Tensor) -> Tensor:
        """FreeLB draws uniformly from the cube whose corners have the norm `start` (Zhu et al. 2020, algorithm 1)."""
        if not self.start:
            return torch.zeros_like(embedded, requires_grad=True)
        side = self.start / (embedded.shape[1] * embedded.shape[2]) ** 0.5
        return torch.empty_like(embedded).uniform_(-side, side).requires_grad_(True)


@contextmanager
def shifted(kernel: Kernel, start: float = 0.0) -> Iterator[Shift]:
    """Inside the block the kernel reads embeddings changed by the Shift."""
    assert kernel.embed.tokens is not None  # `check` refuses images
    shift = Shift(start)
    handle = kernel.embed.tokens.register_forward_hook(shift.hook)
    try:
        yield shift
    finally:
        handle.remove()


def _norm(values: Tensor) -> Tensor:
    """(B, 1, 1) L2 norm of each example; 0 becomes the smallest number, so that 0 / 0 is 0."""
    lengths: Tensor = values.flatten(1).norm(dim=1)
    return lengths.clamp_min(torch.finfo(values.dtype).tiny)[:, None, None]
