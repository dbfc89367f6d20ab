"""Elastic weight consolidation: weights that mattered for earlier tasks are held where they were.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", equation 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nacre.errors import CheckpointError, ConfigError
from nacre.train.objective import IGNORE, Loss, Objective, Predictive
from nacre.train.objectives.wrapped import Wrapped, told
from nacre.train.order import generator_of

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class Anchor:
    """What one earlier task needs: `values` of the weights after it, and the `importance` of each, by name: the
    diagonal of the Fisher information, of the weights' shapes."""

    values: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]

    def save(self, file: Path) -> None:
        """One safetensors file."""
        told = {f"values.{name}": one.contiguous() for name, one in self.values.items()}
        save_file(told | {f"importance.{name}": one.contiguous() for name, one in self.importance.items()}, file)

    @classmethod
    def load(cls, file: Path) -> Anchor:
        """What `save` wrote; CheckpointError for another file."""
        stored: dict[str, dict[str, Tensor]] = {"values": {}, "importance": {}}
        for key, value in load_file(file).items():
            kind, _, name = key.partition(".")
            if kind not in stored:
                raise CheckpointError(f"{file} holds {key!r} and is no anchor", remedy="give one that a stage wrote")
            stored[kind][name] = value
        return cls(**stored)


class Anchored(Wrapped):
    """loss = inner + `strength` / 2 * sum of importance * (weight - value)^2, over all anchors. The penalty enters a
    step once, however its batch is cut. Weights of a new head have no anchor. Metric: `penalty`."""

    def __init__(self, inner: Objective[Any, Any], anchors: Sequence[Anchor], strength: float) -> None:
        super().__init__(inner)
        if not strength > 0:
            raise ConfigError(f"strength is {strength}", remedy="give a number above 0, or train without anchors")
        self.anchors, self.strength = tuple(anchors), strength

    def check(self, kernel: Kernel) -> None:
        """ConfigError where no weight, or one of another shape, is anchored."""
        shapes = {name: one.shape for name, one in kernel.named_parameters()}
        for anchor in self.anchors:
            common = anchor.values.keys() & shapes.keys()
            wrong = next((name for name in sorted(common) if anchor.values[name].shape != shapes[name]), None)
            if wrong is not None or not common:
                what = f"{wrong} has another shape" if wrong else "no weight has a name of it"
                raise ConfigError(f"an anchor is of another kernel: {what}", remedy="give the anchor of this model")
        super().check(kernel)

    def training_loss(self, kernel: Kernel, batch: Any) -> Loss:
        loss = self.inner.loss(kernel, batch)
        penalty = self.penalty(kernel).to(loss.sum.dtype) * loss.count
        return Loss(loss.sum + penalty, loss.count, {**loss.metrics, "penalty": told(penalty, loss.count)})

    def penalty(self, kernel: Kernel) -> Tensor:
        """The penalty of the weights as they are, a scalar with its gradient."""
        weights = {name: one for name, one in kernel.named_parameters() if one.requires_grad}
        total = torch.zeros((), device=next(kernel.parameters()).device)
        for anchor in self.anchors:
            for name, value in anchor.values.items():
                if name in weights:
                    importance = anchor.importance[name].to(total.device)
                    total = total + (importance * (weights[name] - value.to(total.device)).square()).sum()
        return self.strength / 2 * total


def anchor(kernel: Kernel, objective: Predictive[Any, Any], examples: Iterable[Any], *, seed: int = 0) -> Anchor:
    """The anchor of the task that `kernel` has learnt: its weights, and the mean over `examples` of the squared
    gradient of the log-likelihood, whose targets are drawn from the kernel itself (the Fisher information proper, not
    the empirical one: Kunstner et al. 2019). One backward pass per example, dropout off. Heads are left out.
    """
    weights = {name: one for name, one in kernel.named_parameters() if one.requires_grad and _is_shared(name)}
    importance = {name: torch.zeros_like(one) for name, one in weights.items()}
    generator, was_training, n_examples = generator_of("fisher", seed), kernel.training, 0
    kernel.eval()
    try:
        for example in examples:
            n_examples += 1
            batch = objective.collate([example], generator).to(next(kernel.parameters()).device)
            outputs = objective.outputs(kernel, batch)
            log_p = outputs.logits.float().log_softmax(-1)[outputs.targets != IGNORE]
            drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(log_p.device)
            found = torch.autograd.grad(log_p.gather(-1, drawn).sum(), list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, found, strict=True):
                if gradient is not None:
                    importance[name] += gradient.square()
    finally:
        kernel.train(was_training)
    values = {name: one.detach().clone().cpu() for name, one in weights.items()}
    return Anchor(values, {name: one.cpu() / max(n_examples, 1) for name, one in importance.items()})


def _is_shared(name: str) -> bool:
    """Whether tasks share a weight: those of the stacks, the embedding and the pooler, not of a head."""
    return name.partition(".")[0] in ("embed", "encoder", "decoder", "pooler")
