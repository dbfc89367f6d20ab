"""From logits to the next token: penalties, truncations and the draw. Each rule is one function over (B, V) logits.

The rules act in the order of `transformers`: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.errors import ConfigError


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen. `temperature` 0 is greedy: the likeliest token, and the truncations do nothing.

    `top_k` keeps the k likeliest tokens (Fan et al. 2018), `top_p` the smallest set with at least that probability
    (Holtzman et al. 2020), `min_p` those with at least that share of the likeliest one's probability (Nguyen et al.
    2024). `repetition_penalty` divides positive and multiplies negative logits of tokens that the text holds already
    (Keskar et al. 2019, section 4.1).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _require(self.temperature >= 0, "temperature", self.temperature, "0 (greedy) or more")
        _require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "1 or more")
        _require(self.top_p is None or 0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _require(self.min_p is None or 0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1")
        _require(self.repetition_penalty > 0, "repetition_penalty", self.repetition_penalty, "above 0; 1 is none")


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"generation: {name} is {value!r}", remedy=f"{name} must be {wanted}")


def choose(logits: Tensor, seen: Sequence[Sequence[int]], config: SamplingConfig, draws: Tensor) -> Tensor:
    """The next token of each text, (B,) int64: `draw` without the log-probabilities."""
    return draw(logits, seen, config, draws)[0]


def draw(logits: Tensor, seen: Sequence[Sequence[int]], config: SamplingConfig, draws: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of each text, (B,) int64, and its log-probability (B,) float64 in the distribution it was drawn
    from: after penalty, temperature and truncations; 0 where the choice was greedy.

    `logits` (B, V) of any precision; `seen` the ids of each text so far; `draws` (B,) float64 uniform in [0, 1), one
    per text, so that a text's tokens do not depend on its neighbours in the batch.
    """
    logits = penalise(logits.double(), seen, config.repetition_penalty)
    if config.temperature == 0:
        chosen = logits.argmax(dim=-1)
        return chosen, torch.zeros_like(chosen, dtype=torch.float64)
    probabilities = truncated(logits, config).softmax(dim=-1)
    chosen = _draw(probabilities, draws)
    return chosen, probabilities.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).log()


def truncated(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Logits (B, V) over the temperature, which is above 0, and minus infinity for what the truncations exclude."""
    logits = logits / config.temperature
    logits = keep_top_k(logits, config.top_k)
    logits = keep_top_p(logits, config.top_p)
    return keep_min_p(logits, config.min_p)


def penalise(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Makes tokens that a text holds already less likely."""
    if penalty == 1.0:
        return logits
    penalised = logits.clone()
    for row, ids in enumerate(seen):
        held = torch.tensor(sorted(set(ids)), dtype=torch.long, device=logits.device)
        values = logits[row, held]
        penalised[row, held] = torch.where(values > 0, values / penalty, values * penalty)
    return penalised


def keep_top_k(logits: Tensor, k: int | None) -> Tensor:
    """Minus infinity for all but the k largest logits; ties with the k-th stay."""
    if k is None or k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float | None) -> Tensor:
    """Minus infinity outside the smallest set of likeliest tokens whose probabilities sum to at least p."""
    if p is None or p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return logits.masked_fill((before >= p).scatter(-1, order, before >= p), -torch.inf)


def keep_min_p(logits: Tensor, share: float | None) -> Tensor:
    """Minus infinity for tokens less likely than `share` of the likeliest."""
    if not share:
        return logits
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(dim=-1, keepdim=True), -torch.inf)


def _draw(probabilities: Tensor, draws: Tensor) -> Tensor:
    """Inverse transform sampling: the first token at which the cumulated probability exceeds the draw."""
    cumulated = probabilities.cumsum(dim=-1)
    target = draws.to(cumulated).unsqueeze(-1) * cumulated[:, -1:]
    # A draw next to the end may fall past the last possible token by rounding: take the last one that is possible.
    last = (probabilities > 0).long().cumsum(dim=-1).argmax(dim=-1)
    return torch.minimum(torch.searchsorted(cumulated, target, right=True).squeeze(-1), last)
