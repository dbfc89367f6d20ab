"""One optimiser step: gradient of a whole batch, synchronised, clipped, applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nacre.progress import Progress
from nacre.train import optim
from nacre.train.config import TrainConfig
from nacre.train.ema import WeightAverage
from nacre.train.loader import Part
from nacre.train.objective import Loss, Objective
from nacre.train.order import seed_of
from nacre.train.precision import Weights, autocast
from nacre.train.resolve import Resolved
from nacre.train.scaler import LossScaler
from nacre.train.thaw import Thaw

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


class Learner:
    """A kernel with everything that changes its weights: optimisers, master weights, average, loss scaler."""

    def __init__(
        self,
        kernel: Kernel,
        objective: Objective[Any, Any],
        config: TrainConfig,
        resolved: Resolved,
        progress: Progress,
    ) -> None:
        self.kernel, self.config, self.progress = kernel.to(resolved.device), config, progress
        self.device, self.world, self.precision = resolved.device, resolved.world, resolved.precision
        self.micro_batch = resolved.micro_batch
        self._trainable_before = {name for name, p in kernel.named_parameters() if p.requires_grad}
        if config.freeze:
            frozen = optim.freeze(kernel, config.freeze)
            progress.note("frozen", parameters=len(frozen), patterns=list(config.freeze))
        self.weights = Weights(kernel, self.precision)
        self.trained: list[Tensor] = list(self.weights.trained.values())
        self.world.share_weights(list(self.weights.masters.values()))
        self.weights.publish()
        self.optimizers = optim.build(kernel, self.weights.trained, config)
        self.thaw = Thaw(kernel, self.weights.trained, config.unfreeze_every) if config.unfreeze_every else None
        self.average = WeightAverage(self.weights.trained, config.ema) if config.ema else None
        self.scaler = LossScaler() if self.precision == "fp16" else None
        if config.checkpoint_activations:
            kernel.set_checkpointing(True)
        self.told: dict[str, Tensor] = {}
        """What the objective told of the last update: float32 (sum, count) pairs over all parts and processes."""
        self._names: list[str] | None = None
        # The loss with the head in it is compiled, not the kernel: the kernel stays as it was given.
        self.loss: Callable[..., Loss] = torch.compile(objective.loss) if config.compile else objective.loss

    def update(self, step: int, parts: Sequence[Part], count: int, factor: float) -> tuple[Tensor, Tensor]:
        """Does step `step` (0-based) with every rate times `factor`; the summed loss and the norm of the gradient.

        `count` is what the losses of all parts, over all processes, sum over. On CPU a loss or gradient that is not
        finite leaves the weights as they were.
        """
        self.optimizers.set_rate(factor)
        if self.thaw is not None:
            self.thaw.at(step)
        parts = [replace(part, batch=part.batch.to(self.device, non_blocking=True)) for part in parts]
        while True:
            loss, norm = self._gradient(step, parts, max(1, count))
            if self.scaler is None or self.scaler.accepted(math.isfinite(float(norm)), step):
                break
            self.progress.note("overflow, the step is repeated", step=step + 1, scale=self.scaler.scale)
        # A GPU would have to be waited for; there the meter finds out before the next checkpoint.
        if self.device.type != "cpu" or math.isfinite(float(loss) + float(norm)):
            self._clip(norm)
            self.optimizers.step()
            self.weights.publish()
            if self.average:
                self.average.update(step + 1)
        self.optimizers.zero_grad()
        return loss, norm

    def _gradient(self, step: int, parts: Sequence[Part], count: int) -> tuple[Tensor, Tensor]:
        """Leaves the gradient of the whole batch in the weights."""
        self.optimizers.zero_grad()
        scale = self.scaler.scale if self.scaler else 1.0
        total = torch.zeros((), device=self.device)
        told: dict[str, Tensor] = {}
        for part in parts:
            torch.manual_seed(seed_of("dropout", self.config.seed, step, part.number))
            with autocast(self.precision, self.device), self._compiled_for(part.rows):
                loss = self.loss(self.kernel, part.batch)
            torch.autograd.backward(loss.sum * (scale / count))
            self.weights.collect_gradients()
            total += loss.sum.detach()
            for name, pair in loss.metrics.items():
                found = torch.stack([torch.as_tensor(value, device=self.device).float() for value in pair]).detach()
                told[name] = told[name] + found if name in told else found
        self.told = self._told_by_all(told)
        self.world.sum_gradients(self.trained)
        gradients = self._gradients()
        if self.scaler:
            torch._foreach_mul_(gradients, 1 / scale)
        return self.world.sum(total), torch.nn.utils.get_total_norm(gradients)

    def _told_by_all(self, told: dict[str, Tensor]) -> dict[str, Tensor]:
        """Added up over the processes, under the names that any of them knew at its first update."""
        if self.world.size == 1:
            return told
        if self._names is None:
            self._names = self.world.names(told)
        if not self._names:
            return {}
        nothing = torch.zeros(2, device=self.device)
        total = self.world.sum(torch.stack([told.get(name, nothing) for name in self._names]))
        return dict(zip(self._names, total, strict=True))

    def _compiled_for(self, rows: int) -> AbstractContextManager[object]:
        """Parts that are cut short run as they are: code compiled for one of them would be used once an epoch."""
        if self.config.compile and rows != self.micro_batch:
            eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
            return eager
        return nullcontext()

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self.trained if weight.grad is not None]

    def _clip(self, norm: Tensor) -> None:
        """Clips by the norm of the whole gradient, after it was added up over the processes."""
        limit = self.config.clip_norm
        if limit is None or (self.device.type == "cpu" and float(norm) <= limit):
            return
        torch._foreach_mul_(self._gradients(), (limit / (norm + 1e-6)).clamp(max=1.0))

    @contextmanager
    def weights_to_keep(self) -> Iterator[None]:
        """Inside the block the kernel computes with what the run would keep: the average, if there is one."""
        if self.average is None:
            yield
            return
        with self.average.applied():
            self.weights.publish()
            yield
        self.weights.publish()

    def finish(self, state: dict[str, Any] | None) -> None:
        """Leaves the final weights in the kernel: those of the checkpoint `state`, or the present ones."""
        if state is not None:
            self._load_weights(state["average"] or state["weights"], state["buffers"])
        elif self.average:
            self.average.copy_to_weights()
        self.weights.release()
        for name, parameter in self.kernel.named_parameters():
            parameter.requires_grad_(name in self._trainable_before)
        if self.config.checkpoint_activations:
            self.kernel.set_checkpointing(False)
        self.kernel.eval()

    def state_dict(self) -> dict[str, Any]:
        """Trained weights in the format of the masters, buffers, and the state of what changes them."""
        kept = self.kernel.state_dict().keys()
        return {
            "weights": {name: weight.detach() for name, weight in self.weights.trained.items()},
            "buffers": {name: buffer for name, buffer in self.kernel.named_buffers() if name in kept},
            "optimizers": self.optimizers.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "average": self.average.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_weights(state["weights"], state["buffers"])
        self.optimizers.load_state_dict(state["optimizers"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])

    @torch.no_grad()
    def _load_weights(self, weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        for name, weight in self.weights.trained.items():
            weight.copy_(weights[name])
        named = dict(self.kernel.named_buffers())
        for name, buffer in buffers.items():
            named[name].copy_(buffer)
        self.weights.publish()
