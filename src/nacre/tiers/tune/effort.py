"""What an effort means in numbers: the methods that are tried, how long, and how much goes into the search. Light.

Operations rather than seconds, so that a run is the same on a busy machine and on an idle one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nacre.metrics.quality import Kind

Method = Literal["frozen", "bias", "bottleneck", "lora", "full"]

# In order of cost: of equal scores the first wins.
METHODS: Mapping[Kind, tuple[Method, ...]] = {
    "classify": ("frozen", "bias", "bottleneck", "lora", "full"),
    "tag": ("bias", "bottleneck", "lora", "full"),
    "generate": ("bias", "bottleneck", "lora", "full"),
    "rank": ("frozen", "bias", "bottleneck", "lora", "full"),
}
# Operations of training per operation of a forward pass: adapters need no gradients of the matrices that they leave
# alone.
COST: Mapping[Method, float] = {"frozen": 1.0, "bias": 2.0, "bottleneck": 2.1, "lora": 2.2, "full": 3.0}
# Rates of what no effort tries unasked.
_ASKED: Mapping[Method, tuple[float, ...]] = {"bias": (3e-3,), "bottleneck": (1e-3,)}
_FEWEST_BATCHES = 10  # of a trial that is to say something


@dataclass(frozen=True)
class Effort:
    """`flops` of the whole solution; `epochs`: the most of a run; `search`: share of the operations for choosing
    between the learning rates `rates`, of which the first is taken where there is no search."""

    flops: float
    epochs: float
    search: float
    rates: Mapping[Method, tuple[float, ...]]


# One core without bfloat16 trains at some 40 GFLOP/s: about 80 seconds, 13 minutes, 100 minutes.
EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(3.2e12, 2, 0.0, {"full": (2e-4,)}),
    "normal": Effort(3.2e13, 3, 0.2, {"full": (2e-4, 4e-4), "lora": (1e-3,)}),
    "thorough": Effort(2.5e14, 6, 0.3, {"full": (1e-4, 2e-4, 4e-4, 8e-4), "lora": (5e-4, 1e-3, 2e-3, 4e-3)}),
}


@dataclass(frozen=True)
class Candidate:
    """One way to train: a method at a learning rate."""

    method: Method
    rate: float

    @property
    def name(self) -> str:
        return f"{self.method}-{self.rate:g}"


@dataclass(frozen=True)
class Round:
    """A round of the search: this many candidates train on this many rows; the better half goes on."""

    candidates: int
    rows: int


@dataclass(frozen=True)
class Wishes:
    """What the config says outright; None and empty leave it to the effort."""

    methods: tuple[Method, ...] = ()
    learning_rates: Mapping[Method, tuple[float, ...]] = field(default_factory=dict)
    epochs: float | None = None
    search: float | None = None
    max_steps: int | None = None


@dataclass(frozen=True)
class Plan:
    """The search in numbers. `epochs` of a whole run by method; `left_out` says of each method why it is not tried."""

    frozen: bool
    candidates: tuple[Candidate, ...]
    rounds: tuple[Round, ...]
    epochs: Mapping[Method, float]
    left_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def resolve(kind: Kind, rows: int, batch: int, epoch_flops: float, effort: Effort, wishes: Wishes) -> Plan:
    """What is tried. `epoch_flops`: one forward pass over all `rows`.

    A method whose single pass over the rows is beyond the effort is left out, unless nothing else is there: then the
    first candidate trains as long as the effort allows. `wishes.epochs` overrules the effort.
    """
    asked = wishes.methods or tuple(one for one in METHODS[kind] if one == "frozen" or one in effort.rates)
    frozen = "frozen" in asked
    left = effort.flops - (epoch_flops if frozen else 0.0)
    search = effort.search if wishes.search is None else wishes.search
    trained = [one for one in METHODS[kind] if one in asked and one != "frozen"]
    epochs: dict[Method, float] = {}
    left_out: dict[str, str] = {}
    for method in trained:
        affordable = left * (1 - search) / (COST[method] * epoch_flops)
        epochs[method] = min(effort.epochs, affordable) if wishes.epochs is None else wishes.epochs
        if wishes.epochs is None and affordable < 1:
            left_out[method] = (
                f"one pass over the rows takes {COST[method] * epoch_flops:.2g} operations, "
                f"the effort leaves {max(0.0, left * (1 - search)):.2g}"
            )
    kept = [one for one in trained if one not in left_out]
    if not kept and not frozen and trained:
        kept = [trained[-1]]
        left_out.pop(trained[-1], None)
        epochs[trained[-1]] = max(epochs[trained[-1]], batch / rows)
    candidates = tuple(Candidate(method, rate) for method in kept for rate in _rates(method, effort, wishes))
    rounds = _rounds(candidates, rows, batch, search * max(0.0, left), epoch_flops)
    if len(candidates) > 1 and not rounds:
        # Nothing can be compared: the last method, which trains most, at its first rate.
        candidates = (next(one for one in candidates if one.method == kept[-1]),)
    return Plan(frozen, candidates, rounds, {one: epochs[one] for one in kept}, left_out)


def _rates(method: Method, effort: Effort, wishes: Wishes) -> tuple[float, ...]:
    given = wishes.learning_rates.get(method) or effort.rates.get(method) or _ASKED.get(method)
    return tuple(given or EFFORTS["thorough"].rates[method][1:2])


def _rounds(
    candidates: tuple[Candidate, ...], rows: int, batch: int, flops: float, epoch_flops: float
) -> tuple[Round, ...]:
    """Successive halving (Jamieson and Talwalkar 2016, algorithm 1): every round costs the same."""
    sizes: list[int] = []
    while (size := len(candidates) if not sizes else -(-sizes[-1] // 2)) > 1:
        sizes.append(size)
    dearest = max((COST[one.method] for one in candidates), default=1.0)
    found = []
    for size in sizes:
        affordable = int(flops / len(sizes) / (size * dearest * epoch_flops) * rows)
        found.append(Round(size, min(rows, affordable)))
    return tuple(found) if found and found[0].rows >= _FEWEST_BATCHES * batch else ()
