"""The training loop.

The gradient of a step is the sum of losses over the sum of counts, of the whole batch over all processes. The order of
the examples, the masks and the dropout of a step are pure functions of (seed, step, micro batch), so that a run that
was killed and resumed, or spread over another number of processes, is the same run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.progress import Progress, Silent
from nacre.train import optim
from nacre.train.checkpoint import Checkpoints
from nacre.train.config import NEUTRAL, TrainConfig
from nacre.train.distributed import World
from nacre.train.ema import WeightAverage
from nacre.train.evaluation import Setting, evaluate
from nacre.train.interrupt import StopRequest
from nacre.train.loader import Part, Steps, steps_from
from nacre.train.memory import out_of_memory_explained, peak_memory_mib
from nacre.train.meter import Meter
from nacre.train.objective import Loss, Objective
from nacre.train.order import Order, seed_of
from nacre.train.precision import Weights, autocast
from nacre.train.resolve import Resolved, resolve
from nacre.train.result import Evaluated, Interrupted, TrainResult
from nacre.train.scaler import LossScaler
from nacre.train.schedule import rate_factor, share_done
from nacre.train.stopping import Best

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


def train(
    kernel: Kernel,
    objective: Objective[Any, Any],
    examples: Sequence[Any],
    config: TrainConfig,
    *,
    valid: Sequence[Any] = (),
    folder: Path,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> TrainResult:
    """Trains `kernel` in place on `examples` (of `objective`) and leaves the final weights in it, in eval mode.

    Goes on from the newest checkpoint under `folder` if there is one: bit for bit the same run on CPU. Raises
    Interrupted after Ctrl-C or SIGTERM (a checkpoint is written), TrainingError when a loss is not finite,
    ResourceError when memory or disk run out, CheckpointError when the checkpoints are of another run.
    """
    if not len(examples):
        raise DataError("there are no training examples", remedy="check the rows and what the objective dropped")
    place = torch.device(device)
    resolved = resolve(config, len(examples), len(valid), World.join(place), place)
    with out_of_memory_explained(resolved.micro_batch, config.checkpoint_activations), StopRequest() as stop:
        trainer = Trainer(kernel, objective, examples, valid, config, resolved, folder, progress or Silent(), stop)
        return trainer.run()


@dataclass(frozen=True)
class _Agreed:
    """What all processes know of a step before its forward pass."""

    count: int
    tokens: int
    slots: int
    seconds: float
    stop: bool


class Trainer:
    """One run: its state, and the steps from here to its end."""

    def __init__(
        self,
        kernel: Kernel,
        objective: Objective[Any, Any],
        examples: Sequence[Any],
        valid: Sequence[Any],
        config: TrainConfig,
        resolved: Resolved,
        folder: Path,
        progress: Progress,
        stop: StopRequest,
    ) -> None:
        self.kernel, self.objective, self.valid, self.config, self.resolved = kernel, objective, valid, config, resolved
        self.device, self.world, self.stop = resolved.device, resolved.world, stop
        self.progress: Progress = progress if self.world.leads else Silent()
        self.checkpoints = Checkpoints(folder, config.keep_checkpoints)
        self._prepare_weights()
        lengths = torch.tensor([objective.length(example) for example in examples]) if config.bucket else None
        order = Order(len(examples), config.batch_size, resolved.micro_batch, config.seed, config.shuffle, lengths)
        self.steps = Steps(objective, examples, order, self.world.rank, self.world.size)
        self.meter, self.best = Meter(), Best(config.mode, config.min_delta)
        self.history: list[dict[str, Any]] = []
        self.step = self.tokens = self.slots = self.empty_steps = 0
        self.evaluated_at = self.saved_at = -1
        self.stopped_because = ""
        self._seconds_before = self.agreed_seconds = 0.0
        self._began = time.monotonic()
        self._saved_time = self._logged_time = self._began
        self._logged_tokens = 0

    def _prepare_weights(self) -> None:
        config = self.config
        self.kernel.to(self.device)
        self.frozen = [name for name, p in self.kernel.named_parameters() if p.requires_grad]
        if config.freeze:
            names = optim.freeze(self.kernel, config.freeze)
            self.progress.note("frozen", parameters=len(names), patterns=list(config.freeze))
        self.weights = Weights(self.kernel, self.resolved.precision)
        self.trained: list[Tensor] = list(self.weights.trained.values())
        self.world.share_weights(list(self.weights.masters.values()))
        self.weights.publish()
        self.optimizers = optim.build(self.kernel, self.weights.trained, config)
        self.average = WeightAverage(self.weights.trained, config.ema) if config.ema else None
        self.scaler = LossScaler() if self.resolved.precision == "fp16" else None
        if config.checkpoint_activations:
            self.kernel.set_checkpointing(True)
        self.loss: Callable[..., Loss] = self.objective.loss
        if config.compile:
            self.loss = torch.compile(self.objective.loss)

    # ---- the run

    def run(self) -> TrainResult:
        """Trains from where the run stands to its end."""
        self._resume()
        self.progress.note("training", **self.resolved.table(), parameters=sum(w.numel() for w in self.trained))
        self.kernel.train()
        if self.step and self._evaluation_is_due():
            self._evaluate()
        windows = steps_from(self.step, self.steps, self.config.workers)
        while not self._finished():
            parts = next(windows)
            agreed = self._agree(parts)
            if agreed.stop:
                raise Interrupted(self.step, self._save())
            self._train_step(parts, agreed)
            self._after_step()
        return self._close()

    def _finished(self) -> bool:
        total = self.resolved.total_steps
        clock = self.seconds if self.world.size == 1 else self.agreed_seconds
        if self.config.max_seconds is not None and clock >= self.config.max_seconds:
            self.stopped_because = "time"
        elif total is not None and self.step >= total:
            self.stopped_because = "done"
        return bool(self.stopped_because)

    @property
    def seconds(self) -> float:
        """Wall time inside the loop, over all resumes."""
        return self._seconds_before + time.monotonic() - self._began

    def _agree(self, parts: list[Part]) -> _Agreed:
        """Adds up what the processes must know of each other: trained counts above all; the clock is the first's."""
        count, tokens = sum(part.count for part in parts), sum(part.tokens for part in parts)
        slots, seconds, stop = sum(part.slots for part in parts), self.seconds, self.stop.asked
        if self.world.size > 1:
            clock = seconds if self.world.leads else 0.0
            values = torch.tensor([count, tokens, slots, clock, stop], dtype=torch.float64, device=self.device)
            count, tokens, slots, seconds, stop = self.world.sum(values).tolist()
        self.agreed_seconds = seconds
        return _Agreed(int(count), int(tokens), int(slots), seconds, bool(stop))

    # ---- one step

    def _train_step(self, parts: list[Part], agreed: _Agreed) -> None:
        """One update of the weights."""
        factor = rate_factor(share_done(self.step, self.resolved.total_steps, agreed.seconds, self.config), self.config)
        self.optimizers.set_rate(factor)
        self.rate = factor * self.config.lr
        batches = [(part.number, part.batch.to(self.device, non_blocking=True)) for part in parts]
        while True:
            loss, norm = self._gradient(batches, max(1, agreed.count))
            if self.scaler is None or self.scaler.accepted(math.isfinite(float(norm)), self.step):
                break
            self.progress.note("overflow, the step is repeated", step=self.step + 1, scale=self.scaler.scale)
        self.meter.add(self.step, loss, agreed.count, norm)
        if self.device.type == "cpu":
            self.meter.check()
        self._clip(norm)
        self.optimizers.step()
        self.optimizers.zero_grad()
        self.weights.publish()
        self.tokens += agreed.tokens
        self.slots += agreed.slots
        self.empty_steps += agreed.count == 0

    def _gradient(self, batches: list[tuple[int, Any]], count: int) -> tuple[Tensor, Tensor]:
        """Leaves the gradient of the whole batch in the weights; its summed loss and the norm of the gradient."""
        self.optimizers.zero_grad()
        scale = self.scaler.scale if self.scaler else 1.0
        total = torch.zeros((), device=self.device)
        for number, batch in batches:
            torch.manual_seed(seed_of("dropout", self.config.seed, self.step, number))
            with autocast(self.resolved.precision, self.device):
                loss = self.loss(self.kernel, batch)
            (loss.sum * (scale / count)).backward()
            self.weights.collect_gradients()
            total = total + loss.sum.detach()
        self.world.sum_gradients(self.trained)
        gradients = self._gradients()
        if self.scaler:
            torch._foreach_mul_(gradients, 1 / scale)
        return self.world.sum(total), torch.nn.utils.get_total_norm(gradients)

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self.trained if weight.grad is not None]

    def _clip(self, norm: Tensor) -> None:
        """Clips by the norm of the whole gradient, after it was added up over the processes."""
        limit = self.config.clip_norm
        if limit is None or (self.device.type == "cpu" and float(norm) <= limit):
            return
        torch._foreach_mul_(self._gradients(), (limit / (norm + 1e-6)).clamp(max=1.0))

    def _after_step(self) -> None:
        self.step += 1
        if self.average:
            self.average.update(self.step)
        if self.step % self.config.log_every == 0 or self.step == self.resolved.total_steps:
            self._log()
        if self._evaluation_is_due():
            self._save()
            self._evaluate()
        elif self._checkpoint_is_due():
            self._save()

    def _evaluation_is_due(self) -> bool:
        every = self.resolved.eval_every
        return every is not None and (self.step % every == 0 or self.step == self.resolved.total_steps)

    def _checkpoint_is_due(self) -> bool:
        every = self.config.checkpoint_every
        by_clock = time.monotonic() - self._saved_time >= self.config.checkpoint_seconds
        return by_clock or (every is not None and self.step % every == 0)

    # ---- reports

    def _log(self) -> None:
        """Adds a row to the history and reports it, with speed and memory, which are no part of the history."""
        row = {"step": self.step, **self.meter.read(), "lr": self.rate, "tokens": self.tokens}
        self.history.append(row)
        now = time.monotonic()
        speed = (self.tokens - self._logged_tokens) / max(1e-9, now - self._logged_time)
        self._logged_time, self._logged_tokens = now, self.tokens
        self.progress.update(
            self.step,
            self.resolved.total_steps,
            **{name: value for name, value in row.items() if name != "step"},
            tokens_per_s=round(speed, 1),
            padding=round(1 - self.tokens / max(1, self.slots), 4),
            memory_mib=round(peak_memory_mib(self.device), 1),
        )

    def _evaluate(self) -> None:
        """Evaluates the weights that the run would keep now, and stops it when waiting longer is of no use."""
        config = self.config
        setting = Setting(
            self.device, self.resolved.precision, self.resolved.micro_batch, config.seed, self.resolved.world
        )

        def between() -> None:
            # The checkpoint was written before the evaluation: nothing is lost by leaving now.
            if self.stop.asked and self.world.size == 1:
                raise Interrupted(self.step, self.checkpoints.path(self.step))

        if self.average:
            with self.average.applied():
                self.weights.publish()
                found = evaluate(self.kernel, self.objective, self.valid, setting, between)
            self.weights.publish()
        else:
            found = evaluate(self.kernel, self.objective, self.valid, setting, between)
        self.evaluated_at = self.step
        if config.metric not in found:
            raise ConfigError(
                f"the evaluation has no metric {config.metric!r}", remedy=f"set metric to one of {', '.join(found)}"
            )
        row = {"step": self.step, **{f"valid_{name}": value for name, value in found.items()}}
        self.history.append(row)
        self.progress.update(**{**row, "total": self.resolved.total_steps})
        better = self.best.observe(self.step, found[config.metric])
        if better and self.world.leads:
            self.checkpoints.mark_best(self.step, config.metric, found[config.metric])
        if config.patience is not None and self.best.waited >= config.patience:
            self.stopped_because = "early"

    # ---- state

    def _save(self) -> Path:
        """Writes a checkpoint of everything that the rest of the run depends on."""
        if self.saved_at != self.step and self.world.leads:
            self.checkpoints.save(self.step, self._state())
        self.world.wait()
        self.saved_at, self._saved_time = self.step, time.monotonic()
        return self.checkpoints.path(self.step)

    def _state(self) -> dict[str, Any]:
        buffers = {name: b for name, b in self.kernel.named_buffers() if name in self.kernel.state_dict()}
        return {
            "run": self._identity(),
            "step": self.step,
            "counters": [self.tokens, self.slots, self.empty_steps],
            "seconds": self.seconds,
            "weights": {name: weight.detach() for name, weight in self.weights.trained.items()},
            "buffers": buffers,
            "optimizers": self.optimizers.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "average": self.average.state_dict() if self.average else None,
            "meter": self.meter.state_dict(),
            "best": self.best.state_dict(),
            "history": self.history,
        }

    def _identity(self) -> dict[str, Any]:
        """What must not change between a kill and a resume."""
        config = {name: value for name, value in asdict(self.config).items() if name not in NEUTRAL}
        return {**config, "examples": self.steps.order.n_examples, "precision": self.resolved.precision}

    def _resume(self) -> None:
        state = self.checkpoints.latest(self.progress, self.device)
        if state is None:
            return
        changed = {k: (v, self._identity()[k]) for k, v in state["run"].items() if self._identity().get(k) != v}
        if changed:
            name, (before, now) = next(iter(changed.items()))
            raise CheckpointError(
                f"the checkpoints under {self.checkpoints.folder} are of another run: "
                f"{name} was {before!r}, and is {now!r}",
                remedy=f"restore the setting, or start anew: rm -r {self.checkpoints.folder}",
            )
        self._load_weights(state["weights"], state["buffers"])
        self.optimizers.load_state_dict(state["optimizers"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.meter.load_state_dict(state["meter"])
        self.best.load_state_dict(state["best"])
        self.history = state["history"]
        self.step = self.saved_at = state["step"]
        self.tokens, self.slots, self.empty_steps = state["counters"]
        self._seconds_before = self.agreed_seconds = state["seconds"]
        self._logged_tokens = self.tokens
        self.progress.note("resumed", step=self.step, tokens=self.tokens)

    @torch.no_grad()
    def _load_weights(self, weights: dict[str, Tensor], buffers: dict[str, Tensor] | None = None) -> None:
        for name, weight in self.weights.trained.items():
            weight.copy_(weights[name])
        named = dict(self.kernel.named_buffers())
        for name, buffer in (buffers or {}).items():
            named[name].copy_(buffer)
        self.weights.publish()

    def _close(self) -> TrainResult:
        """The last evaluation, and the weights that were asked for left in the kernel."""
        self._save()
        if self.resolved.eval_every is not None and self.evaluated_at != self.step:
            self._evaluate()
        if self.meter.steps:
            self._log()
        best = None
        if self.best.step is not None and self.best.value is not None:
            best = Evaluated(self.best.step, self.config.metric, self.best.value)
        if self.resolved.final == "best" and best is not None and best.step != self.step:
            state = self.checkpoints.load(best.step, self.device)
            self._load_weights(state["average"] or state["weights"], state["buffers"])
        elif self.average:
            self.average.copy_to_weights()
        self.weights.release()
        for name, parameter in self.kernel.named_parameters():
            parameter.requires_grad_(name in self.frozen)
        self.kernel.eval()
        if self.empty_steps:
            self.progress.note("steps without a single trained position", steps=self.empty_steps)
        flops = self.resolved.flops(self.kernel, self.tokens)
        memory = peak_memory_mib(self.device)
        return TrainResult(
            self.step, self.history, best, self.tokens, self.seconds, flops, memory, self.stopped_because
        )
