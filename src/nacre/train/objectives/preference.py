"""Preferences: answers that are better become likelier than those that are worse, without a reward model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nacre.data.chat.formats import Judged, Pair, judged, kind_of, pairs
from nacre.data.chat.template import ChatTemplate
from nacre.errors import ConfigError, DataError
from nacre.train.objective import Batch, Loss, Row, Tallied, check_kernel
from nacre.train.objectives import preference_losses as losses
from nacre.train.objectives.answers import Layout, Reader, Room, Side, Sides, answer_logps, collate
from nacre.train.objectives.config_align import WITH_REFERENCE, PreferenceConfig
from nacre.train.objectives.health import Health
from nacre.train.objectives.reference import Reference

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class Compared:
    """Two answers, and how likely the reference finds each (nats).

    Of a pair: the chosen and the rejected one. Of KTO: an answer that is `good` or not, and another prompt's answer to
    its prompt.
    """

    sides: tuple[Side, Side]
    good: bool = True
    reference: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class ComparedBatch(Batch):
    """B examples: rows [0, B) of everything are the first sides, [B, 2B) the second. `reference` (2B,) float32, `good`
    (B,) bool."""

    ids: Tensor
    mask: Tensor | None
    decoder_ids: Tensor | None
    targets: Tensor
    reference: Tensor
    good: Tensor
    n_tokens: int

    @property
    def sides(self) -> Sides:
        return Sides(self.ids, self.mask, self.decoder_ids, self.targets)


class Preference(Tallied):
    """Rows are preference pairs of any format that `nacre.data.chat.formats` reads; kinds dpo, ipo, orpo and simpo.

    Where a kind compares with a reference, `reference` scores every example once, in `arrange`. Metrics: `accuracy`
    (pairs whose chosen answer has the higher reward), `margin`, `reward_chosen`, `reward_rejected`, and the
    log-probabilities `logp_chosen`, `logp_rejected` of whole answers.
    """

    name = "preference"

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None = None,
        config: PreferenceConfig | None = None,
        *,
        layout: Layout = "decoder",
        reference: Reference | None = None,
    ) -> None:
        super().__init__()
        self.config = config or PreferenceConfig()
        self.tokenizer, self.layout, self.reference = tokenizer, layout, reference
        self._check_kind()
        decoder = layout == "decoder"
        # A decoder reads every token but the last.
        room = Room(self.config.context + 1) if decoder else Room(self.config.context, self.config.target_context)
        self.reader = Reader(tokenizer, template, room, layout, self)
        self._start = None if decoder else self._start_token()
        self.health = Health(self.config.patience, self.config.max_fall)

    def __getstate__(self) -> dict[str, Any]:
        """What makes batches, for the workers that do."""
        return self.__dict__ | {"reference": None}

    def _check_kind(self) -> None:
        if self.config.kind == "kto":
            raise ConfigError("kto judges single answers", remedy="use the objective Kto")

    def _start_token(self) -> int:
        start = self.tokenizer.pad_id if self.config.start_id is None else self.config.start_id
        if start is None:
            raise ConfigError("the decoder needs a token to start from", remedy="set start_id")
        return start

    def check(self, kernel: Kernel) -> None:
        positions = self.config.context if self._start is None else max(self.config.context, self.config.target_context)
        check_kernel(kernel, self.tokenizer, self.name, heads=("lm",), layouts=(self.layout,), positions=positions)
        start = kernel.config.decoder_start_id
        if self._start is not None and start not in (None, self._start):
            raise ConfigError(
                f"the kernel's decoder starts from token {start}, this objective from {self._start}",
                remedy=f"set start_id: {start}",
            )

    # --- rows to batches

    def encode(self, row: Row) -> tuple[Compared, ...] | None:
        found: list[Pair] = list(pairs([dict(row)], self.dropped))
        sides = self._read(found[0], (found[0].chosen, found[0].rejected)) if found else None
        if sides is None:
            return None
        if np.array_equal(sides[0].target, sides[1].target):
            self.dropped["pairs whose answers are the same as far as the context reaches"] += 1
            return None
        return (Compared((sides[0], sides[1])),)

    def arrange(self, examples: Sequence[tuple[Compared, ...]]) -> list[Compared]:
        return self._referred([one for group in examples for one in group])

    def _read(self, found: Pair | Judged, answers: Sequence[str]) -> list[Side] | None:
        return self.reader.read(found.messages, found.tools, answers)

    def _referred(self, examples: list[Compared]) -> list[Compared]:
        """With how likely the reference finds both sides, where the kind asks for that."""
        if self.config.kind not in WITH_REFERENCE:
            return examples
        if self.reference is None:
            raise ConfigError(
                f"{self.config.kind} compares with a reference model, and there is none",
                remedy="give one, or choose a kind without: orpo, simpo",
            )
        flat = [side for one in examples for side in one.sides]
        found = self.reference.logps(flat, self._sides).reshape(-1, 2).tolist()
        return [replace(one, reference=(a, b)) for one, (a, b) in zip(examples, found, strict=True)]

    def _sides(self, sides: Sequence[Side]) -> Sides:
        return collate(sides, self.tokenizer.pad_id or 0, self._start)

    def length(self, example: Compared) -> int:
        return max(map(len, example.sides))

    def collate(self, examples: Sequence[Compared], rng: torch.Generator) -> ComparedBatch:
        del rng
        sides = [one.sides[place] for place in (0, 1) for one in examples]
        both = self._sides(sides)
        return ComparedBatch(
            ids=both.ids,
            mask=both.mask,
            decoder_ids=both.decoder_ids,
            targets=both.targets,
            reference=torch.tensor([one.reference[place] for place in (0, 1) for one in examples]),
            good=torch.tensor([one.good for one in examples]),
            n_tokens=sum(map(len, sides)) - (len(sides) if self._start is None else 0),
        )

    def count(self, batch: ComparedBatch) -> int:
        return len(batch.good)

    def tokens(self, batch: ComparedBatch) -> int:
        return batch.n_tokens

    # --- loss

    def loss(self, kernel: Kernel, batch: ComparedBatch) -> Loss:
        config = self.config
        logps, counts = answer_logps(kernel, batch.sides, config.chunk)
        chosen, rejected = self._measured(logps, counts, batch).chunk(2)
        if config.kind == "dpo":
            each = losses.dpo(config.strength * (chosen - rejected), config.label_smoothing)
        elif config.kind == "ipo":
            each = losses.ipo(chosen - rejected, config.strength)
        elif config.kind == "orpo":
            each = losses.orpo(chosen, rejected, config.strength)
        else:
            each = losses.dpo(config.strength * (chosen - rejected) - config.gamma, config.label_smoothing)
        rewards = config.strength * torch.stack([chosen, rejected]).detach()
        self._seen(kernel, rewards[0] - rewards[1], logps, counts, batch)
        return Loss(each.sum(), _count(batch), self._told(rewards, logps.detach().chunk(2), batch))

    def _measured(self, logps: Tensor, counts: Tensor, batch: ComparedBatch) -> Tensor:
        """What the kind compares, (2B,): log-ratios to the reference or log-probabilities; per token, or in all."""
        if self.config.kind in WITH_REFERENCE:
            logps = logps - batch.reference.to(logps.dtype)
        return logps / counts if self.config.per_token else logps

    def _told(self, rewards: Tensor, logps: tuple[Tensor, ...], batch: ComparedBatch) -> dict[str, Any]:
        count = _count(batch)
        named = {"reward_chosen": rewards[0], "reward_rejected": rewards[1], "margin": rewards[0] - rewards[1]}
        named |= {"accuracy": (rewards[0] > rewards[1]).float(), "logp_chosen": logps[0], "logp_rejected": logps[1]}
        return {name: (values.sum(), count) for name, values in named.items()}

    def _seen(self, kernel: Kernel, margins: Tensor, logps: Tensor, counts: Tensor, batch: ComparedBatch) -> None:
        """Hands the first sides that are good to what watches the run; only those of training."""
        if not kernel.training:
            return
        size = len(batch.good)
        per_token = logps.detach()[:size] / counts[:size]
        with_reference = self.config.kind in WITH_REFERENCE
        # Without a reference the yardstick is a guess: every token as likely as the other.
        before = batch.reference[:size] / counts[:size] if with_reference else -math.log(kernel.config.vocab_size)
        good = batch.good.to(per_token.dtype)
        fall = ((before - per_token) * good).sum() / good.sum().clamp_min(1)
        self.health.see(margins, self.config.strength * logps, fall)

    def watch(self, step: int) -> None:
        self.health.check(step)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: ComparedBatch) -> Tensor:
        """(B, 2) float32: the rewards of both sides, beta times what the kind compares."""
        logps, counts = answer_logps(kernel, batch.sides)
        return (self.config.strength * self._measured(logps, counts, batch)).float().view(2, -1).T.cpu()


class Kto(Preference):
    """Rows are judged answers (`good` or not), or pairs, of which each answer counts on its own; the kind kto.

    z, the divergence from the reference, is estimated in each micro batch on answers to other prompts; which answer
    meets which prompt is settled once, in `arrange`, so that the reference need not be asked again.
    """

    name = "preference (kto)"

    def _check_kind(self) -> None:
        if self.config.kind != "kto":
            raise ConfigError(f"{self.config.kind} compares pairs", remedy="use the objective Preference")

    def encode(self, row: Row) -> tuple[Compared, ...] | None:
        of_pairs = kind_of(dict(row))[0] == "preference pairs"
        found: Sequence[Any] = list((pairs if of_pairs else judged)([dict(row)], self.dropped))
        if not found:
            return None
        answers = (found[0].chosen, found[0].rejected) if of_pairs else (found[0].answer,)
        sides = self._read(found[0], answers)
        if sides is None:
            return None
        goods = (True, False) if of_pairs else (found[0].good,)
        return tuple(Compared((side, side), good) for side, good in zip(sides, goods, strict=True))

    def arrange(self, examples: Sequence[tuple[Compared, ...]]) -> list[Compared]:
        flat = [one for group in examples for one in group]
        others = _others([one.sides[0] for one in flat])
        crossed = [
            self.reader.fitted([Side(one.sides[0].source, flat[other].sides[0].target)])[0]
            for one, other in zip(flat, others, strict=True)
        ]
        return self._referred(
            [replace(one, sides=(one.sides[0], cross)) for one, cross in zip(flat, crossed, strict=True)]
        )

    def fit(self, examples: Sequence[Compared]) -> list[Compared]:
        """DataError when all answers are good, or all bad: nothing then holds the policy."""
        good = sum(one.good for one in examples)
        if good in (0, len(examples)):
            raise DataError(
                f"all {len(examples):,} answers are {'good' if good else 'bad'}", remedy="add answers of the other sort"
            )
        self.note("good answers", good)
        self.note("bad answers", len(examples) - good)
        return list(examples)

    def loss(self, kernel: Kernel, batch: ComparedBatch) -> Loss:
        config, size = self.config, len(batch.good)
        logps, counts = answer_logps(kernel, batch.sides.part(slice(0, size)), config.chunk)
        with torch.no_grad():
            crossed, _ = answer_logps(kernel, batch.sides.part(slice(size, None)), config.chunk)
        ratios = logps - batch.reference[:size].to(logps.dtype)
        baseline = losses.kto_baseline(crossed - batch.reference[size:].to(crossed.dtype))
        weights = torch.where(batch.good, config.good_weight, config.bad_weight).to(ratios.dtype)
        each = weights * losses.kto(ratios, batch.good, baseline, config.strength)
        rewards = config.strength * ratios.detach()
        self._seen(kernel, rewards, logps, counts, batch)
        count, n_good = _count(batch), batch.good.sum()
        told = {"kl": (baseline * size, count)}
        for name, values in (("reward", rewards), ("logp", logps.detach())):
            told[f"{name}_chosen"] = ((values * batch.good).sum(), n_good)
            told[f"{name}_rejected"] = ((values * ~batch.good).sum(), count - n_good)
        return Loss(each.sum(), count, told)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: ComparedBatch) -> Tensor:
        """(B, 1) float32: the reward of each answer."""
        return super().predict(kernel, batch)[:, :1]


def _count(batch: ComparedBatch) -> Tensor:
    return torch.tensor(len(batch.good), device=batch.good.device)


def _others(sides: Sequence[Side]) -> list[int]:
    """For each example the next one that has another prompt. DataError when all have the same."""
    prompts = [side.source.tobytes() for side in sides]
    if len(set(prompts)) < 2:
        raise DataError(
            "all answers are to the same prompt, and KTO compares with answers to other prompts",
            remedy="give two prompts or more, or choose kind: dpo",
        )
    # From the end, twice around: the next other prompt is the neighbour's, or what the neighbour found.
    n, found = len(prompts), [0] * len(prompts)
    for index in range(2 * n - 1, -1, -1):
        here, after = index % n, (index + 1) % n
        found[here] = after if prompts[after] != prompts[here] else found[after]
    return found
