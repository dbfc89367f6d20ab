"""The objective of PPO and GRPO: answers that were drawn, with what is known of each of their tokens.

R answers, N their tokens one after another, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nacre.errors import ConfigError, DataError
from nacre.kernel.sampling import SamplingConfig, truncated
from nacre.tiers.tune.reinforce.config import CriticConfig, LossKlConfig, PolicyConfig
from nacre.tiers.tune.reinforce.critic import values_of
from nacre.tiers.tune.reinforce.formulas import entropy, kl_estimate, policy_loss, value_loss
from nacre.train.objective import IGNORE, Loss, Row, Tallied
from nacre.train.objectives.answers import Side, Sides, collate

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint8]
Counts = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Measured:
    """What a kernel says of an answer of m tokens: log-probabilities (m,), and where it has a critic, values (m,).
    `kept` (m, V / 8): which tokens the truncation left to choose from, packed; None where nothing was truncated."""

    logps: Floats
    values: Floats | None
    kept: Bits | None


@dataclass(frozen=True)
class Experience:
    """An answer to learn from. All arrays are (m,), one value per token; the last two are for a critic."""

    side: Side
    old: Floats
    reference: Floats
    advantages: Floats
    kept: Bits | None = None
    returns: Floats | None = None
    values: Floats | None = None


@dataclass(frozen=True)
class PolicyBatch(Sides):
    """Answers of a part of a step. Beside the tokens, (N,) each: log-probabilities when drawn and of the reference,
    advantages, `weights` in the loss; `returns` and `values` for a critic; `kept` (N, V) bool where truncated."""

    old: Tensor
    reference: Tensor
    advantages: Tensor
    weights: Tensor
    returns: Tensor | None
    values: Tensor | None
    kept: Tensor | None
    n_counted: int
    n_tokens: int


class Policy(Tallied):
    """The clipped policy loss, with the divergence from the reference (`kl`, None: none in the loss) and the value loss
    (`critic`), of the distribution that `sampling` draws from.

    Metrics, per token: `clipped` (share), `entropy`, `step_kl` (of the weights from those that drew the answers) and,
    with a critic, `value_loss`.
    """

    def __init__(
        self,
        sampling: SamplingConfig,
        config: PolicyConfig,
        *,
        longest: int,
        kl: LossKlConfig | None = None,
        critic: CriticConfig | None = None,
    ) -> None:
        super().__init__()
        if sampling.temperature <= 0 or sampling.repetition_penalty != 1 or sampling.min_p:
            raise ConfigError(
                "a policy is drawn with a temperature, top_k and top_p only",
                remedy="temperature above 0, no repetition_penalty, no min_p",
            )
        self.sampling, self.config, self.longest, self.kl, self.critic = sampling, config, longest, kl, critic
        self.coefficient = kl.coefficient if kl else 0.0
        """What the divergence in the loss is multiplied by; an adaptive one is set between iterations."""
        self.pad = self.vocabulary = 0
        self.start: int | None = None

    def check(self, kernel: Kernel) -> None:
        config = kernel.config
        if config.head != "lm":
            raise ConfigError(
                f"a kernel with the head {config.head!r} writes no answers",
                remedy="give a decoder or encoder-decoder with its language-model head",
            )
        both = config.layout == "encoder-decoder"
        if both and self.critic is not None:
            raise ConfigError("the value head is for decoders", remedy="tune an encoder-decoder by tune.grpo")
        self.pad, self.vocabulary = config.pad_id or 0, config.vocab_size
        self.start = (config.decoder_start_id or 0) if both else None

    # --- examples to batches

    def encode(self, row: Row) -> NoReturn:
        raise DataError("answers are drawn, not read", remedy="give prompts to tune.grpo or tune.ppo")

    def length(self, example: Experience) -> int:
        return len(example.side)

    def sides(self, sides: Sequence[Side]) -> Sides:
        """Prompts and answers without anything else."""
        return collate(sides, self.pad, self.start)

    def collate(self, examples: Sequence[Experience], rng: torch.Generator) -> PolicyBatch:
        del rng
        sides = self.sides([one.side for one in examples])
        lengths = np.array([len(one.side.target) for one in examples])
        each = {"token": np.ones(len(lengths)), "sequence": 1 / lengths, "constant": np.full(len(lengths), 1.0)}
        weights = np.repeat(each[self.config.normalise], lengths)
        if self.config.normalise == "constant":
            weights = weights / self.longest
        return PolicyBatch(
            ids=sides.ids,
            mask=sides.mask,
            decoder_ids=sides.decoder_ids,
            targets=sides.targets,
            old=_joined([one.old for one in examples]),
            reference=_joined([one.reference for one in examples]),
            advantages=_joined([one.advantages for one in examples]),
            weights=torch.from_numpy(weights.astype(np.float32)),
            returns=_joined([one.returns for one in examples if one.returns is not None]) if self.critic else None,
            values=_joined([one.values for one in examples if one.values is not None]) if self.critic else None,
            kept=self._unpacked([one.kept for one in examples]),
            n_counted=int(lengths.sum()) if self.config.normalise == "token" else len(examples),
            n_tokens=sum(map(self.length, examples)),
        )

    def count(self, batch: PolicyBatch) -> int:
        return batch.n_counted

    def tokens(self, batch: PolicyBatch) -> int:
        return batch.n_tokens

    # --- loss

    def loss(self, kernel: Kernel, batch: PolicyBatch) -> Loss:
        states, targets = _states(kernel, batch)
        new, spread = self._scored(kernel, states, targets, batch.kept)
        policy, clipped = policy_loss(new, batch.old, batch.advantages, self.config.clip_low, self.config.clip_high)
        each = policy - self.config.entropy * spread
        if self.kl is not None and self.coefficient:
            each = each + self.coefficient * kl_estimate(new, batch.reference, self.kl.estimator)
        tokens = torch.tensor(len(targets), device=new.device)
        told = {"clipped": clipped.float(), "entropy": spread, "step_kl": kl_estimate(batch.old, new, "k3")}
        if self.critic is not None:
            assert batch.returns is not None
            assert batch.values is not None
            errors = value_loss(values_of(kernel, states), batch.values, batch.returns, self.critic.clip)
            each = each + self.critic.weight * errors
            told["value_loss"] = errors
        metrics: Counts = {name: (values.detach().sum(), tokens) for name, values in told.items()}
        weights = batch.weights.to(each.dtype)
        return Loss((each * weights).sum(), torch.tensor(batch.n_counted, device=new.device), metrics)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: PolicyBatch) -> Tensor:
        """(N,) log-probabilities of the tokens, float32 on the CPU."""
        states, targets = _states(kernel, batch)
        return self._scored(kernel, states, targets, batch.kept)[0].float().cpu()

    @torch.no_grad()
    def measure(
        self, kernel: Kernel, sides: Sequence[Side], kept: Sequence[Bits | None] | None = None
    ) -> list[Measured]:
        """What `kernel` says of answers now. `kept` is what their truncation left when they were drawn; None: what it
        leaves of this kernel's distribution, and the drawn token itself, which rounding could exclude."""
        device = next(kernel.parameters()).device
        states, targets = _states(kernel, self.sides(sides).to(device))
        if kept is None:
            held = self._kept(kernel, states, targets) if self._truncates else None
        else:
            held = self._unpacked(kept)
            held = None if held is None else held.to(device)
        logps = self._scored(kernel, states, targets, held)[0].float().cpu().numpy()
        values = values_of(kernel, states).float().cpu().numpy() if self.critic and kept is None else None
        packed = None if held is None else np.packbits(held.cpu().numpy(), axis=1)
        ends = np.cumsum([len(side.target) for side in sides])[:-1]
        found = [Measured(one, None, None) for one in np.split(logps, ends)]
        if values is not None:
            found = [replace(one, values=part) for one, part in zip(found, np.split(values, ends), strict=True)]
        if packed is not None:
            found = [replace(one, kept=part) for one, part in zip(found, np.split(packed, ends), strict=True)]
        return found

    @property
    def _truncates(self) -> bool:
        return self.sampling.top_k is not None or (self.sampling.top_p or 1) < 1

    def _scored(self, kernel: Kernel, states: Tensor, targets: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N,) log-probability of each target in the distribution that is drawn from, and its entropy, with a gradient
        where the loss has a share of it. `chunk` states at a time go through the head."""
        size = self.config.chunk
        if not size or size >= len(targets):
            return self._piece(kernel, states, targets, kept)
        found = []
        for start in range(0, len(targets), size):
            rows = slice(start, start + size)
            part = states[rows], targets[rows], None if kept is None else kept[rows]
            found.append(checkpoint(self._piece, kernel, *part, use_reentrant=False, preserve_rng_state=False))
        return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])

    def _piece(self, kernel: Kernel, states: Tensor, targets: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = self._logits(kernel, states)
        if kept is not None:
            logits = logits.masked_fill(~kept, -torch.inf)
        logps = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)
        return logps, entropy(logits if self.config.entropy else logits.detach())

    def _logits(self, kernel: Kernel, states: Tensor) -> Tensor:
        """Over the temperature, at least float32."""
        logits = kernel.lm_logits(states)
        return (
            logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        ) / self.sampling.temperature

    def _kept(self, kernel: Kernel, states: Tensor, targets: Tensor) -> Tensor:
        plain = replace(self.sampling, temperature=1.0)
        kept = truncated(self._logits(kernel, states).double(), plain).isfinite()
        return kept.scatter(-1, targets.unsqueeze(-1), True)

    def _unpacked(self, kept: Sequence[Bits | None]) -> Tensor | None:
        rows = [one for one in kept if one is not None]
        if not rows:
            return None
        return torch.from_numpy(np.unpackbits(np.concatenate(rows), axis=1, count=self.vocabulary).astype(np.bool_))


def _states(kernel: Kernel, batch: Sides) -> tuple[Tensor, Tensor]:
    """The states before tokens of answers (N, D), and these tokens (N,)."""
    given = {} if batch.decoder_ids is None else {"mask": batch.mask, "decoder_ids": batch.decoder_ids}
    answered = batch.targets != IGNORE
    hidden: Tensor = kernel(batch.ids, **given).hidden
    return hidden[answered], batch.targets[answered]


def _joined(parts: Sequence[Floats]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))
