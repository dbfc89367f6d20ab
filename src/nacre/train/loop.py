"""The training loop: what happens when.

The gradient of a step is the sum of losses over the sum of counts, of the whole batch over all processes. The order of
the examples, the masks and the dropout of a step are pure functions of (seed, step, micro batch), so that a run that
was killed and resumed, or spread over another number of processes, is the same run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nacre.errors import CheckpointError, ConfigError, DataError, TrainingError
from nacre.progress import Progress, Silent
from nacre.train.checkpoint import Checkpoints
from nacre.train.config import NEUTRAL, TrainConfig
from nacre.train.distributed import World
from nacre.train.evaluation import Setting, evaluate
from nacre.train.interrupt import StopRequest
from nacre.train.learner import Learner
from nacre.train.loader import Part, Steps, steps_from
from nacre.train.memory import out_of_memory_explained, peak_memory_mib
from nacre.train.meter import Meter
from nacre.train.objective import Objective
from nacre.train.order import Order
from nacre.train.resolve import Resolved, resolve
from nacre.train.result import Evaluated, Interrupted, TrainResult, training_flops
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
    task = Task(kernel, objective, examples, valid)
    with out_of_memory_explained(resolved.micro_batch, config.checkpoint_activations), StopRequest() as stop:
        return Trainer(task, config, resolved, folder, progress or Silent(), stop).run()


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how that is judged."""

    kernel: Kernel
    objective: Objective[Any, Any]
    examples: Sequence[Any]
    valid: Sequence[Any] = ()


@dataclass(frozen=True)
class _Agreed:
    """What all processes know of a step before its forward pass."""

    count: int
    tokens: int
    slots: int
    stop: bool


class Trainer:
    """One run: its state, and the steps from here to its end."""

    def __init__(
        self, task: Task, config: TrainConfig, resolved: Resolved, folder: Path, progress: Progress, stop: StopRequest
    ) -> None:
        self.task, self.config, self.resolved, self.stop = task, config, resolved, stop
        self.device, self.world = resolved.device, resolved.world
        self.progress: Progress = progress if self.world.leads else Silent()
        self.checkpoints = Checkpoints(folder, config.keep_checkpoints)
        self.learner = Learner(task.kernel, task.objective, config, resolved, self.progress)
        lengths = torch.tensor([task.objective.length(example) for example in task.examples])
        self.mean_length = float(lengths.float().mean())
        grouped = lengths if config.bucket else None
        order = Order(len(task.examples), config.batch_size, resolved.micro_batch, config.seed, config.shuffle, grouped)
        self.steps = Steps(task.objective, task.examples, order, self.world.rank, self.world.size)
        self.meter, self.best = Meter(), Best(config.mode, config.min_delta)
        self.history: list[dict[str, Any]] = []
        self.step = self.tokens = self.slots = self.empty_steps = 0
        self.rate = 0.0
        self.evaluated_at = self.saved_at = -1
        self.stopped_because = ""
        self._began = self._logged_time = time.monotonic()
        self._seconds_before = self._clock = self._saved_clock = 0.0
        self._logged_tokens = 0

    def run(self) -> TrainResult:
        """Trains from where the run stands to its end."""
        self._resume()
        n_trained = sum(weight.numel() for weight in self.learner.trained)
        self.progress.note("training", **self.resolved.table(), trained_parameters=n_trained)
        self.task.kernel.train()
        if self.step and self._evaluation_is_due():
            self._evaluate()
        with closing(steps_from(self.step, self.steps, self.config.workers)) as windows:
            while not self._finished():
                parts = next(windows)
                agreed = self._agree(parts)
                if agreed.stop:
                    raise Interrupted(self.step, self._save())
                self._train_step(parts, agreed)
                self._after_step()
        return self._close()

    @property
    def seconds(self) -> float:
        """Wall time inside the loop, over all resumes."""
        return self._seconds_before + time.monotonic() - self._began

    def _finished(self) -> bool:
        total, limit = self.resolved.total_steps, self.config.max_seconds
        if not self.stopped_because and total is not None and self.step >= total:
            self.stopped_because = "done"
        if not self.stopped_because and limit is not None and self._clock >= limit:
            self.stopped_because = "time"
        return bool(self.stopped_because)

    # ---- one step

    def _agree(self, parts: Sequence[Part]) -> _Agreed:
        """Adds up what the processes must know of each other: trained counts above all; the clock is the first's."""
        count, tokens = sum(part.count for part in parts), sum(part.tokens for part in parts)
        slots, stop, self._clock = sum(part.slots for part in parts), self.stop.asked, self.seconds
        if self.world.size > 1:
            clock = self._clock if self.world.leads else 0.0
            values = torch.tensor([count, tokens, slots, stop, clock], dtype=torch.float64, device=self.device)
            count, tokens, slots, stop, self._clock = self.world.sum(values).tolist()
        return _Agreed(int(count), int(tokens), int(slots), bool(stop))

    def _train_step(self, parts: Sequence[Part], agreed: _Agreed) -> None:
        done = share_done(self.step, self.resolved.total_steps, self._clock, self.config)
        factor = rate_factor(done, self.config)
        self.rate = factor * self.config.lr
        loss, norm = self.learner.update(self.step, parts, agreed.count, factor)
        self.meter.add(self.step, loss, agreed.count, norm, self.learner.told)
        if self.device.type == "cpu":
            self._check(self.step + 1)
        self.tokens += agreed.tokens
        self.slots += agreed.slots
        self.empty_steps += agreed.count == 0

    def _check(self, step: int) -> None:
        """Raises TrainingError when the run cannot or should not go on; a GPU is waited for."""
        try:
            self.meter.check()
            self.task.objective.watch(step)
        except TrainingError as error:
            raise TrainingError(error.message, remedy=f"{error.remedy}; {self.checkpoints.good(self.step)}") from error

    def _after_step(self) -> None:
        self.step += 1
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
        if every is not None and self.step % every == 0:
            return True
        return self._clock - self._saved_clock >= self.config.checkpoint_seconds

    # ---- reports

    def _log(self) -> None:
        """Adds a row to the history and reports it, with speed and memory, which are no part of the history."""
        self._check(self.step)
        row = {**self.meter.read(), "lr": self.rate, "tokens": self.tokens}
        self.history.append({"step": self.step, **row})
        now = time.monotonic()
        speed = (self.tokens - self._logged_tokens) / max(1e-9, now - self._logged_time)
        self._logged_time, self._logged_tokens = now, self.tokens
        self.progress.update(
            self.step,
            self.resolved.total_steps,
            **row,
            tokens_per_s=round(speed, 1),
            padding=round(1 - self.tokens / max(1, self.slots), 4),
            memory_mib=round(peak_memory_mib(self.device), 1),
        )

    def _evaluate(self) -> None:
        """Evaluates the weights that the run would keep now, and stops it when waiting longer is of no use."""
        task, config, paused = self.task, self.config, time.monotonic()
        setting = Setting(self.device, self.resolved.precision, self.resolved.micro_batch, config.seed, self.world)
        with self.learner.weights_to_keep():
            found = evaluate(task.kernel, task.objective, task.valid, setting, self._between)
        self.evaluated_at = self.step
        if config.metric not in found:
            known = ", ".join(found)
            raise ConfigError(f"the evaluation has no metric {config.metric!r}", remedy=f"set metric to one of {known}")
        row = {f"valid_{name}": value for name, value in found.items()}
        self.history.append({"step": self.step, **row})
        self.progress.update(self.step, self.resolved.total_steps, **row)
        value = found[config.metric]
        if self.best.observe(self.step, value) and self.world.leads:
            self.checkpoints.mark_best(self.step, config.metric, value)
        if config.patience is not None and self.best.waited >= config.patience:
            self.stopped_because = "early"
        self._logged_time += time.monotonic() - paused

    def _between(self) -> None:
        """Between two batches of an evaluation. Its checkpoint was written before: nothing is lost by leaving now."""
        if self.stop.asked and self.world.size == 1:
            raise Interrupted(self.step, self.checkpoints.path(self.step))

    # ---- state

    def _save(self) -> Path:
        """Writes a checkpoint of everything that the rest of the run depends on."""
        self._check(self.step)
        if self.saved_at != self.step and self.world.leads:
            self.checkpoints.save(self.step, self._state())
        self.world.wait()
        self.saved_at, self._saved_clock = self.step, self._clock
        return self.checkpoints.path(self.step)

    def _state(self) -> dict[str, Any]:
        return {
            "run": self._identity(),
            "step": self.step,
            "counters": [self.tokens, self.slots, self.empty_steps],
            "seconds": self.seconds,
            "learner": self.learner.state_dict(),
            "meter": self.meter.state_dict(),
            "best": self.best.state_dict(),
            "history": self.history,
        }

    def _identity(self) -> dict[str, Any]:
        """What must not change between a kill and a resume."""
        config = {name: value for name, value in asdict(self.config).items() if name not in NEUTRAL}
        return {**config, "precision": self.resolved.precision, "examples": len(self.task.examples)}

    def _resume(self) -> None:
        state = self.checkpoints.latest(self.progress, self.device)
        if state is None:
            return
        now = self._identity()
        changed = [name for name, value in state["run"].items() if now.get(name) != value]
        if changed:
            name, folder = changed[0], self.checkpoints.folder
            raise CheckpointError(
                f"the checkpoints under {folder} are of another run: "
                f"{name} was {state['run'][name]!r}, and is {now.get(name)!r}",
                remedy=f"restore the setting, or start anew: rm -r {folder}",
            )
        self.learner.load_state_dict(state["learner"])
        self.meter.load_state_dict(state["meter"])
        self.best.load_state_dict(state["best"])
        self.history = state["history"]
        self.step = self.saved_at = state["step"]
        self.tokens, self.slots, self.empty_steps = state["counters"]
        self._seconds_before = self._clock = self._saved_clock = state["seconds"]
        self._logged_tokens = self.tokens
        self.progress.note("resumed", step=self.step, tokens=self.tokens)

    def _close(self) -> TrainResult:
        """The last records, and the weights that were asked for left in the kernel."""
        self._save()
        if self.resolved.eval_every is not None and self.evaluated_at != self.step:
            self._evaluate()
        if self.meter.steps:
            self._log()
        best = None
        if self.best.step is not None and self.best.value is not None:
            best = Evaluated(self.best.step, self.config.metric, self.best.value)
        state = None
        if self.resolved.final == "best" and best is not None and best.step != self.step:
            state = self.checkpoints.load(best.step, self.device)["learner"]
        self.learner.finish(state)
        if self.empty_steps:
            self.progress.note("steps without a single trained position", steps=self.empty_steps)
        return TrainResult(
            steps=self.step,
            history=self.history,
            best=best,
            tokens=self.tokens,
            seconds=self.seconds,
            flops=training_flops(self.task.kernel.config, self.tokens, self.mean_length),
            peak_memory_mib=peak_memory_mib(self.device),
            stopped_because=self.stopped_because,
        )
