"""Reinforcement's outer loop: prompts, rollouts, rewards, advantages, updates, again.

An iteration is a pure function of the state before it and (seed, iteration): a run that was killed goes on from its
last checkpoint to the same result. Dropout is off throughout: the ratio of probabilities begins at 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.errors import CheckpointError, TrainingError
from nacre.kernel.model import Kernel
from nacre.progress import Progress
from nacre.tiers.tune.reinforce import critic
from nacre.tiers.tune.reinforce.advantages import by_critic, by_group
from nacre.tiers.tune.reinforce.config import GrpoConfig, Settings
from nacre.tiers.tune.reinforce.formulas import adapted
from nacre.tiers.tune.reinforce.health import Health
from nacre.tiers.tune.reinforce.logbook import Logbook
from nacre.tiers.tune.reinforce.mismatch import mismatch
from nacre.tiers.tune.reinforce.policy import Experience, Floats, Measured, Policy
from nacre.tiers.tune.reinforce.prompts import Prompt
from nacre.tiers.tune.reinforce.rollouts import Roller, Rollout
from nacre.train.checkpoint import Checkpoints
from nacre.train.distributed import World
from nacre.train.interrupt import StopRequest
from nacre.train.learner import Learner
from nacre.train.loader import Part, collate_part
from nacre.train.memory import out_of_memory_explained
from nacre.train.meter import Meter
from nacre.train.order import Order, generator_of
from nacre.train.precision import autocast
from nacre.train.resolve import resolve
from nacre.train.result import Interrupted
from nacre.train.schedule import rate_factor, share_done

Row = dict[str, float]
Reference = Callable[[], AbstractContextManager[Kernel]]


@dataclass(frozen=True)
class Task:
    """The policy's kernel, the prompts it is trained and looked at on, and who answers and rewards. `reference` lends
    the kernel that the run started from."""

    kernel: Kernel
    policy: Policy
    roller: Roller
    prompts: Sequence[Prompt]
    valid: Sequence[Prompt]
    reference: Reference


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `stopped` is `done` or `rewards no longer vary`; `history` has a row per iteration and look."""

    iterations: int
    steps: int
    tokens: int
    stopped: str
    history: list[Row]
    seconds: float


def reinforce(
    task: Task, config: Settings, *, folder: Path, seed: int, progress: Progress, device: torch.device | str = "cpu"
) -> Outcome:
    """Trains the policy's kernel in place. Goes on from the newest checkpoint under `folder`, bit for bit the same run
    on CPU. Raises Interrupted after Ctrl-C or SIGTERM, TrainingError with the reason when a run gets nowhere."""
    with out_of_memory_explained(config.update.micro_batch or config.update.batch_size, False), StopRequest() as stop:
        return Reinforcer(task, config, _Run(folder, seed, progress, torch.device(device), stop)).run()


@dataclass(frozen=True)
class _Run:
    folder: Path
    seed: int
    progress: Progress
    device: torch.device
    stop: StopRequest


class Reinforcer:
    """One run: its state, and the iterations from here to its end."""

    def __init__(self, task: Task, config: Settings, run: _Run) -> None:
        self.task, self.config, self.where, self.progress = task, config, run, run.progress
        update, rollouts = config.update, config.rollouts
        self.order = Order(len(task.prompts), rollouts.prompts, rollouts.prompts, run.seed)
        self.per_epoch = -(-rollouts.prompts * rollouts.samples // update.batch_size)
        self.train = update.train(run.seed, config.loop.iterations * update.epochs * self.per_epoch)
        resolved = resolve(self.train, rollouts.prompts * rollouts.samples, 0, World(), run.device)
        self.total, self.micro_batch, self.precision = resolved.total_steps, resolved.micro_batch, resolved.precision
        self.learner = Learner(task.kernel, task.policy, self.train, resolved, run.progress)
        self.checkpoints, self.book = Checkpoints(run.folder), Logbook(run.folder)
        self.health = Health(config.loop.patience, config.kl.max_per_token)
        self.coefficient = config.kl.coefficient
        self.meter = Meter()
        self.history: list[Row] = []
        self.iteration = self.steps = self.tokens = 0
        self.stopped = ""
        self._seconds = 0.0

    def run(self) -> Outcome:
        """Trains from where the run stands to its end, and leaves the weights in the kernel, without a value head."""
        began = time.monotonic()
        self._resume()
        n_trained = sum(weight.numel() for weight in self.learner.trained)
        self.progress.note("reinforcing", prompts=len(self.task.prompts), trained_parameters=n_trained)
        self.task.kernel.eval()
        while not self._finished():
            if self.where.stop.asked:
                raise Interrupted(self.iteration, self._save())
            if self.iteration == 0:
                self._look()
            self._iterate()
            self._seconds += time.monotonic() - began
            began = time.monotonic()
            if self.iteration % self.config.loop.checkpoint_every == 0 or self._finished():
                self._save()
        self.learner.finish(None)
        critic.detach(self.task.kernel)
        return Outcome(self.iteration, self.steps, self.tokens, self.stopped, self.history, self._seconds)

    def _finished(self) -> bool:
        if not self.stopped and self.iteration >= self.config.loop.iterations:
            self.stopped = "done"
        return bool(self.stopped)

    # ---- one iteration

    def _iterate(self) -> None:
        [indexes] = self.order.step(self.iteration)
        rollouts = self.task.roller.draw(self.task.kernel, [self.task.prompts[i] for i in indexes], self.iteration)
        drawn, reference = self._measured(rollouts)
        experiences = self._experiences(rollouts, drawn, reference)
        row, masked = self._told(rollouts, drawn, reference), self.config.loop.mask_cut
        try:
            ended = self._judge(rollouts, row)
            self._learn([one for one, said in zip(experiences, rollouts, strict=True) if not (masked and said.cut)])
        except TrainingError as error:
            # The newest checkpoint has the weights that drew these answers: the one before it drew sound ones.
            good = self.checkpoints.good(self.iteration)
            raise TrainingError(error.message, remedy=f"{error.remedy}; {good}") from error
        row |= self._read()
        if self.config.kl.target is not None:
            self.coefficient = adapted(self.coefficient, row["kl"], self.config.kl.target)
        self._write(rollouts, experiences)
        self.iteration += 1
        self.history.append({"iteration": self.iteration, **row})
        self.progress.update(self.iteration, self.config.loop.iterations, **row)
        self.stopped = "rewards no longer vary" if ended else ""
        if self._finished() or self.iteration % self.config.loop.eval_every == 0:
            self._look()

    def _measured(self, rollouts: Sequence[Rollout]) -> tuple[list[Measured], list[Floats]]:
        """What the trainer's kernel and the reference say of each answer."""
        sides = [one.side for one in rollouts]
        drawn: list[Measured] = []
        base: list[Floats] = []
        parts = [slice(at, at + self.micro_batch) for at in range(0, len(sides), self.micro_batch)]
        with autocast(self.precision, self.where.device):
            for part in parts:
                drawn += self.task.policy.measure(self.task.kernel, sides[part])
            with self.task.reference() as reference:
                for part in parts:
                    kept = [one.kept for one in drawn[part]]
                    base += [one.logps for one in self.task.policy.measure(reference, sides[part], kept)]
        return drawn, base

    def _experiences(
        self, rollouts: Sequence[Rollout], drawn: Sequence[Measured], reference: Sequence[Floats]
    ) -> list[Experience]:
        if isinstance(self.config, GrpoConfig):
            return by_group(rollouts, drawn, reference, self.config)
        return by_critic(rollouts, drawn, reference, self.config, self.coefficient)

    def _told(self, rollouts: Sequence[Rollout], drawn: Sequence[Measured], reference: Sequence[Floats]) -> Row:
        rewards = np.array([one.reward for one in rollouts])
        groups = rewards.reshape(-1, self.config.rollouts.samples)
        apart = [said.logps.astype(np.float64) - base for said, base in zip(drawn, reference, strict=True)]
        off = mismatch([np.array(one.logprobs) for one in rollouts], [one.logps for one in drawn])
        parts = [one.parts or {} for one in rollouts]
        return {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std()),
            **{f"reward_{name}": float(np.mean([one[name] for one in parts])) for name in parts[0]},
            "groups_without_signal": float((groups.max(1) == groups.min(1)).mean()),
            "kl": float(np.mean([one.sum() for one in apart])),
            "kl_per_token": float(np.concatenate(apart).mean()),
            "kl_coefficient": self.coefficient,
            "answer_tokens": float(np.mean([len(one.ids) for one in rollouts])),
            "cut": float(np.mean([one.cut for one in rollouts])),
            "mismatch_largest": off.largest,
            "mismatch_outside": off.outside,
        }

    def _judge(self, rollouts: Sequence[Rollout], row: Row) -> bool:
        rewards = np.array([one.reward for one in rollouts])
        compared = (
            rewards.reshape(-1, self.config.rollouts.samples) if isinstance(self.config, GrpoConfig) else rewards[None]
        )
        cut = np.array([one.cut for one in rollouts])
        return self.health.see(self.iteration + 1, compared, cut, row["kl_per_token"])

    def _learn(self, experiences: Sequence[Experience]) -> None:
        """Passes over the answers in an order of their own."""
        self.task.policy.coefficient = self.coefficient
        update, seed = self.config.update, self.where.seed
        for epoch in range(update.epochs):
            rng = generator_of("minibatches", seed, self.iteration, epoch)
            order = torch.randperm(len(experiences), generator=rng).tolist()
            first = (self.iteration * update.epochs + epoch) * self.per_epoch
            for number, start in enumerate(range(0, len(order), update.batch_size)):
                self._step(first + number, [experiences[i] for i in order[start : start + update.batch_size]])

    def _step(self, step: int, examples: Sequence[Experience]) -> None:
        rng = generator_of("collate", self.where.seed, step)
        parts: list[Part] = []
        for start in range(0, len(examples), self.micro_batch):
            parts.append(
                collate_part(self.task.policy, list(examples[start : start + self.micro_batch]), rng, len(parts))
            )
        count = sum(part.count for part in parts)
        factor = rate_factor(share_done(step, self.total, 0.0, self.train), self.train)
        loss, norm = self.learner.update(step, parts, count, factor)
        self.meter.add(step, loss, count, norm, self.learner.told)
        self.meter.check()
        self.steps += 1
        self.tokens += sum(part.tokens for part in parts)

    def _read(self) -> Row:
        """What the updates told; nothing where there was no answer to learn from."""
        return self.meter.read() if self.meter.steps else {}

    def _write(self, rollouts: Sequence[Rollout], experiences: Sequence[Experience]) -> None:
        kept = self.config.loop.rollouts_kept
        pairs = list(zip(rollouts, experiences, strict=True))[:kept]
        self.book.write(one.line(self.iteration + 1, float(said.advantages.mean())) for one, said in pairs)

    def _look(self) -> None:
        """Answers validation prompts greedily."""
        prompts = self.task.valid[: self.config.loop.eval_limit]
        if not prompts:
            return
        answered = self.task.roller.greedy(self.task.kernel, prompts)
        parts = [one.parts or {} for one in answered]
        row = {"valid_reward": float(np.mean([one.reward for one in answered]))}
        row |= {f"valid_{name}": float(np.mean([one[name] for one in parts])) for name in parts[0]}
        row["valid_cut"] = float(np.mean([one.cut for one in answered]))
        self.history.append({"iteration": self.iteration, **row})
        self.progress.update(self.iteration, self.config.loop.iterations, **row)

    # ---- state

    def _save(self) -> Path:
        return self.checkpoints.save(self.iteration, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "run": self._identity(),
            "counters": [self.iteration, self.steps, self.tokens],
            "seconds": self._seconds,
            "stopped": self.stopped,
            "learner": self.learner.state_dict(),
            "coefficient": self.coefficient,
            "health": self.health.state_dict(),
            "history": self.history,
            "rollouts": self.book.position(),
        }

    def _identity(self) -> dict[str, Any]:
        """What must not change between a kill and a resume."""
        return {**asdict(self.config), "prompts": len(self.task.prompts), "seed": self.where.seed}

    def _resume(self) -> None:
        state = self.checkpoints.latest(self.progress, self.where.device)
        if state is None:
            self.book.cut(0)
            return
        now = self._identity()
        changed = [name for name, value in state["run"].items() if now.get(name) != value]
        if changed:
            raise CheckpointError(
                f"the checkpoints under {self.checkpoints.folder} are of another run: {changed[0]} was "
                f"{state['run'][changed[0]]!r}, and is {now.get(changed[0])!r}",
                remedy=f"restore the setting, or start anew: rm -r {self.checkpoints.folder}",
            )
        self.learner.load_state_dict(state["learner"])
        self.iteration, self.steps, self.tokens = state["counters"]
        self._seconds, self.stopped, self.coefficient = state["seconds"], state["stopped"], state["coefficient"]
        self.health.load_state_dict(state["health"])
        self.history = state["history"]
        self.book.cut(state["rollouts"])
        self.progress.note("resumed", iteration=self.iteration)
