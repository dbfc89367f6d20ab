"""From a budget to a kernel: how many parameters, how many tokens, and which limit decided. Pure, free of torch.

The rule, in three steps:
1. Compute: training costs C = 6 N D operations, and the loss is least where tokens D and parameters N grow alike, about
   20 tokens to a parameter (Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", section 3 and
   table 3). The ratio is a setting.
2. Data: text that is seen again teaches less each time. D tokens that are U unique ones seen again are worth
   U + U R (1 - exp(-(D / U - 1) / R)) with R = 15.39 (Muennighoff et al. 2023, "Scaling Data-Constrained Language
   Models", equation 5), nearly all of them up to four epochs: no more epochs than that are planned.
3. What is counted is real: operations come from `kernel/anatomy.py` (attention over the context and the output matrix
   included), and N is the parameters that compute, half a forward pass. Embedding rows are looked up, not multiplied:
   they are counted apart, since in tiny kernels they outweigh everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nacre.errors import ConfigError, UsageError
from nacre.kernel.anatomy import anatomy
from nacre.kernel.config import KernelConfig
from nacre.recipe.hardware import Hardware

Bound = Literal["compute", "data", "floor", "ceiling"]

BYTES_PER_TOKEN = 4.0  # UTF-8 bytes that a token of a trained vocabulary spells, Chinese and English alike, roughly
LEAST_VOCABULARY, MOST_VOCABULARY = 512, 32_000


@dataclass(frozen=True)
class Rule:
    """`ratio`: tokens per parameter at the optimum. `epochs`: the most passes over the data. `decay`: R above."""

    ratio: float = 20.0
    epochs: float = 4.0
    decay: float = 15.39

    def __post_init__(self) -> None:
        for name in ("ratio", "epochs", "decay"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}", remedy="give a number above 0")

    def effective(self, unique: float, trained: float) -> float:
        """How many fresh tokens `trained` tokens are worth that repeat `unique` ones."""
        if trained <= unique:
            return trained
        repeats = trained / unique - 1
        return unique * (1 + self.decay * -math.expm1(-repeats / self.decay))


@dataclass(frozen=True)
class Shape:
    """Width, depth and heads of one step of the table; every width is a multiple of 64."""

    hidden_size: int
    layers: int
    heads: int


# Wider and deeper together, as published families go; heads of 32 below a width of 256, of 64 up to 4096, then 128.
SHAPES: tuple[Shape, ...] = (
    Shape(64, 1, 2), Shape(64, 2, 2), Shape(128, 2, 4), Shape(192, 2, 6), Shape(256, 2, 4), Shape(256, 4, 4),
    Shape(320, 5, 5), Shape(384, 6, 6), Shape(512, 8, 8), Shape(640, 10, 10), Shape(768, 12, 12),
    Shape(1024, 16, 16), Shape(1280, 20, 20), Shape(1536, 24, 24), Shape(2048, 24, 32), Shape(2560, 32, 40),
    Shape(4096, 32, 64), Shape(5120, 40, 40), Shape(8192, 64, 64),
)  # fmt: skip

Designer = Callable[[Shape], KernelConfig]


@dataclass(frozen=True)
class Weight:
    """What one kernel weighs: `parameters` in all, `embedding` of them looked up, `computing` per token.

    `flops_per_token` is of training, forward and backward, in texts of `context` tokens.
    """

    parameters: int
    embedding: int
    computing: float
    flops_per_token: float

    @classmethod
    def of(cls, config: KernelConfig, context: int) -> Weight:
        found = anatomy(config, context)
        forward = float(sum(found.flops_per_token.values()))
        return cls(found.total_parameters, found.parameters["embedding"], forward / 2, 3 * forward)


@dataclass(frozen=True)
class Sized:
    """The answer. `tokens` are trained, `unique_tokens` are there; `spent_flops` is what training takes.

    `bound` names the limit that decided: `compute` (a larger budget gives a larger kernel), `data` (more text would),
    `floor` and `ceiling` (the smallest and the largest shape that was allowed).
    """

    shape: Shape
    weight: Weight
    context: int
    vocab_size: int
    tokens: float
    unique_tokens: float
    budget_flops: float
    bound: Bound
    rule: Rule

    @property
    def epochs(self) -> float:
        return self.tokens / self.unique_tokens

    @property
    def spent_flops(self) -> float:
        return self.tokens * self.weight.flops_per_token

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **asdict(self.shape),
            "parameters": self.weight.parameters,
            "embedding_parameters": self.weight.embedding,
            "vocab_size": self.vocab_size,
            "context": self.context,
            "tokens": round(self.tokens),
            "unique_tokens": round(self.unique_tokens),
            "epochs": round(self.epochs, 3),
            "effective_tokens": round(self.rule.effective(self.unique_tokens, self.tokens)),
            "budget_flops": self.budget_flops,
            "flops": self.spent_flops,
            "bound": self.bound,
            "why": why(self),
        }


def size(
    flops: float,
    unique_tokens: float,
    design: Designer,
    context: int,
    *,
    rule: Rule | None = None,
    shapes: Sequence[Shape] = SHAPES,
) -> Sized:
    """The kernel and the tokens that `flops` buy, with `unique_tokens` of text at hand.

    `design` makes the kernel of a shape, `shapes` are those allowed, smallest first. Raises ConfigError where there is
    no budget or no text.
    """
    rule = rule or Rule()
    if not 0 < flops < math.inf or not 0 < unique_tokens < math.inf:
        raise ConfigError(
            f"a budget of {flops:g} operations and {unique_tokens:g} tokens of text size no kernel",
            remedy="give both above 0",
        )
    configs = [design(shape) for shape in shapes]
    weights = [Weight.of(config, context) for config in configs]
    most_tokens = rule.epochs * unique_tokens
    # What the kernel may weigh so that its share of tokens can be paid, and can be found in the data.
    payable = [weight.computing * rule.ratio * weight.flops_per_token <= flops for weight in weights]
    worth = rule.effective(unique_tokens, most_tokens) / rule.ratio
    fed = [weight.computing <= worth for weight in weights]
    chosen = max((i for i in range(len(shapes)) if payable[i] and fed[i]), default=0)
    weight = weights[chosen]
    if not (payable[chosen] and fed[chosen]):
        bound: Bound = "floor"
    elif chosen + 1 == len(shapes):
        bound = "ceiling"
    else:
        bound = "compute" if not payable[chosen + 1] else "data"
    tokens = min(flops / weight.flops_per_token, most_tokens)
    return Sized(shapes[chosen], weight, context, configs[chosen].vocab_size, tokens, unique_tokens, flops, bound, rule)


def why(sized: Sized) -> str:
    """Which limit decided, in one sentence."""
    rule = sized.rule
    left = 1 - sized.spent_flops / sized.budget_flops
    unused = f"; {left:.0%} of the budget is left, since more passes would teach little" if left > 0.01 else ""
    if sized.bound == "compute":
        return f"the budget decides: the next larger kernel could not be paid for at {rule.ratio:g} tokens a parameter"
    if sized.bound == "data":
        return (
            f"the data decides: {sized.unique_tokens:,.0f} tokens, seen at most {rule.epochs:g} times, feed no larger "
            f"kernel at {rule.ratio:g} tokens a parameter{unused}"
        )
    if sized.bound == "floor":
        return (
            f"the floor decides: budget or data ({sized.unique_tokens:,.0f} tokens) would justify an even smaller "
            f"kernel than the smallest allowed{unused}"
        )
    return f"the ceiling decides: no larger shape is allowed{unused}"


def explain(sized: Sized, machine: Hardware | None = None) -> str:
    """The whole answer as text: parameters, tokens, operations, and on a machine hours and money."""
    shape, weight = sized.shape, sized.weight
    lines = [
        f"kernel      width {shape.hidden_size:,}, {shape.layers} layers, {shape.heads} heads, "
        f"context {sized.context:,}",
        f"parameters  {weight.parameters:,}, of them {weight.embedding:,} embedding ({sized.vocab_size:,} entries)",
        f"tokens      {sized.tokens:,.0f} trained, {sized.unique_tokens:,.0f} unique ({sized.epochs:.2g} passes)",
        f"FLOPs       {sized.spent_flops:.3g} of {sized.budget_flops:.3g}, {weight.flops_per_token:.3g} per token",
    ]
    if machine is not None:
        seconds = machine.seconds(sized.spent_flops)
        lines.append(f"hours       {seconds / 3600:.3g} on {machine.name or machine.title}")
        lines.append(f"money       {money_text(machine, seconds)}")
    return "\n".join([*lines, f"why         {why(sized)}"])


def money_text(machine: Hardware, seconds: float) -> str:
    """What the time costs, in words: unknown where the price is."""
    money = machine.money(seconds)
    if money is None:
        return "unknown"
    return f"under 0.01 {machine.currency}" if 0 < money < 0.01 else f"{money:,.2f} {machine.currency}"


def vocabulary(n_bytes: float, distinct_characters: int = 0) -> int:
    """How many entries a vocabulary should have for that much text: a multiple of 64.

    Twelve times the root of the tokens, a rule of thumb of ours: each entry is then met some dozens of times. Never
    fewer than twice the distinct characters, each of which needs an entry.
    """
    wanted = max(12 * math.sqrt(n_bytes / BYTES_PER_TOKEN), 2 * distinct_characters)
    return round(min(max(wanted, LEAST_VOCABULARY), MOST_VOCABULARY) / 64) * 64


_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def budget_flops(text: str, machine: Hardware) -> float:
    """The operations that a budget buys: `90min`, `2h`, `1e18flop`, or money on the machine (`50usd`).

    Raises UsageError for anything else, and for money where the machine's price is unknown.
    """
    digits = text.strip().lower()
    unit = digits.lstrip("0123456789.e+-") if not digits.endswith("e") else ""
    try:
        value = float(digits.removesuffix(unit))
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"{text!r} is no budget", remedy="write 2h, 90min, 1e18flop or 50usd")
    if unit in _UNITS:
        return value * _UNITS[unit] * machine.flops_per_second()
    if unit in ("flop", "flops"):
        return value
    if unit == machine.currency.lower():
        if not machine.price_per_hour:
            raise UsageError(
                f"the price of an hour on {machine.name or machine.title} is unknown, so {text} buys an unknown time",
                remedy="give its price_per_hour in a file: --hardware-file FILE",
            )
        return value / machine.price_per_hour * 3600 * machine.flops_per_second()
    raise UsageError(f"{text!r} has no unit that is known here", remedy="write 2h, 90min, 1e18flop or 50usd")
