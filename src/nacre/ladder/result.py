"""What `nacre ladder` returns: one row per tier, the comparison between them, and the recommendation.

`to_dict` is the object that `--json` prints. Unknown is None (null), never 0 and never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nacre.engine.prices import Prices
from nacre.errors import ConfigError, closest
from nacre.tiers.rung import TIERS

Status = Literal["ok", "skipped", "failed"]
State = Literal["own", "borrowed", "called", "none"]
CostBasis = Literal["tokens", "machine", "both", "unknown"]
STATUSES: tuple[Status, ...] = ("ok", "skipped", "failed")
PARTS = ("kernel", "weights", "data", "prompt", "index")


@dataclass(frozen=True)
class Holding:
    """Whose one part of a rung is: `state`, from whom (a ref or an address), and its licence; None is unknown.

    `notes` says what the reader must know: what an own thing was built on, or that manifest and lineage disagree.
    """

    state: State
    origin: str | None = None
    licence: str | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"state": self.state, "from": self.origin, "licence": self.licence, "notes": list(self.notes)}


@dataclass(frozen=True)
class Versus:
    """A row beside the best one: its score minus the best's on the same examples, in 0..1, with its interval.

    `p` is two-sided, by `test` (`mcnemar` exact, or `bootstrap`); `p_holm` is corrected for all the comparisons of the
    ladder (Holm 1979). `examples` is how many test rows both were measured on.
    """

    best: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    test: Literal["mcnemar", "bootstrap"]
    examples: int


@dataclass(frozen=True)
class Row:
    """One tier. Scores are in 0..1, `cost_per_1k` is money per 1,000 requests, in the result's currency.

    `name` is the tier's name, and unique in a ladder. `seeds` holds the score of every seed of a trained tier.
    `examples` are the test rows it was judged on, `unmeasured` those that the budget left out. `lineage` is the rung's
    ref. `reason` and `remedy` belong to `skipped` and `failed`. `truncated` counts test rows of which the solver read
    only the beginning; `latency_examples` are the rows that were timed, one at a time.
    """

    tier: int
    name: str
    solver: str = ""
    score: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    cost_per_1k: float | None = None
    build_seconds: float | None = None
    peak_memory_mib: float | None = None
    trained_parameters: int | None = None
    owns: Mapping[str, Holding] = field(default_factory=dict)
    lineage: str | None = None
    status: Status = "ok"
    reason: str | None = None
    remedy: str | None = None
    cost_basis: CostBasis = "unknown"
    examples: int = 0
    unmeasured: int = 0
    truncated: int | None = None
    latency_examples: int | None = None
    problems: Mapping[str, int] = field(default_factory=dict)
    served_by: tuple[str, ...] = ()
    seeds: tuple[float, ...] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    vs_best: Versus | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.tier < len(TIERS):
            raise ConfigError(f"no tier {self.tier}", remedy=f"0 to {len(TIERS) - 1}: {', '.join(TIERS)}")
        if self.status not in STATUSES:
            raise ConfigError(f"no status {self.status!r}", remedy=closest(self.status, STATUSES))
        if self.status != "ok" and not self.reason:
            raise ConfigError(f"the row {self.name} is {self.status} without a reason", remedy="give `reason`")

    @property
    def ok(self) -> bool:
        return self.status == "ok" and self.score is not None

    def to_dict(self) -> dict[str, Any]:
        """The row of the contract, in its order."""
        plain = asdict(self)
        return plain | {"owns": {part: self.owns[part].to_dict() for part in PARTS if part in self.owns}}


@dataclass(frozen=True)
class Recommendation:
    """The tier that is enough; `name` and `tier` are None where nothing could be measured.

    `why` is a few sentences, `headline` the first of them; `would_change` lists what would lead to another answer.
    """

    tier: int | None
    name: str | None
    why: str
    would_change: tuple[str, ...] = ()
    headline: str = ""


@dataclass(frozen=True)
class Example:
    """A test row on which two tiers differ: what was asked, the truth, and what each of them said, all as text."""

    index: int
    text: str
    truth: str
    thinner: str
    thicker: str


@dataclass(frozen=True)
class Between:
    """What the thicker of two tiers mends and spoils, on the `examples` rows both answered; `same` is the share of
    rows with the same answer. `fixed` and `broken` are counts; the examples are the first few of them."""

    thinner: str
    thicker: str
    examples: int
    fixed: int
    broken: int
    same: float
    fixes: tuple[Example, ...] = ()
    breaks: tuple[Example, ...] = ()


@dataclass(frozen=True)
class LadderResult:
    """One task at every tier.

    `language` is that of the words (`en`, `zh`). `test_examples` is the size of the test set, `level` that of every
    interval. `data` is the report of `task.prepare` (rows, leaks taken out); `prices` are those that costs were made
    with; `spent` is what the command itself sent and paid. `notes` are remarks for the reader; `report` is the path of
    the HTML page.
    """

    task: str
    metric: str
    kind: str
    language: str
    machine: Mapping[str, Any]
    rows: tuple[Row, ...]
    recommended: Recommendation
    test_examples: int = 0
    level: float = 0.95
    about: str = ""
    prices: Prices = field(default_factory=Prices)
    between: tuple[Between, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    spent: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    notes: tuple[str, ...] = ()
    report: str | None = None

    @property
    def currency(self) -> str:
        return self.prices.currency

    @property
    def best(self) -> Row | None:
        """The row with the highest score; of equal ones the thinnest."""
        return max((row for row in self.rows if row.ok), key=lambda row: (row.score or 0.0, -row.tier), default=None)

    def row(self, name: str | None) -> Row | None:
        """The row of that name; None where there is none."""
        return next((row for row in self.rows if row.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON: the contract's fields first; what is not finite is null."""
        first = {"task": self.task, "metric": self.metric, "machine": dict(self.machine)}
        rows = [row.to_dict() for row in self.rows]
        later = {
            "recommended": asdict(self.recommended),
            "kind": self.kind,
            "language": self.language,
            "about": self.about,
            "test_examples": self.test_examples,
            "level": self.level,
            "currency": self.currency,
            "prices": asdict(self.prices),
            "spent": dict(self.spent),
            "data": dict(self.data),
            "between": [asdict(one) for one in self.between],
            "notes": list(self.notes),
            "created": self.created,
            "report": self.report,
        }
        plain: dict[str, Any] = _plain(first | {"rows": rows} | later)
        return plain


def _plain(value: Any) -> Any:
    """JSON has no NaN and no tuple; a figure that is not finite is not known."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
