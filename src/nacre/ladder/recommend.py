"""Which tier is enough, in words, and what would change that.

The rule. A tier is good enough when the paired interval of its difference from the best reaches 0, or, with a margin,
when its shortfall is no larger. Tiers of which the budget left more than half unmeasured are not chosen. Of those good
enough the first in order of cost is recommended:

- tiers of known cost come cheapest first; costs within 10 % of the cheapest of their group are equal, and the thinner
  tier comes first;
- a tier of unknown cost comes right after all the tiers of known cost that are thinner than it; where no cost is
  known, thinner comes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nacre.errors import ConfigError
from nacre.ladder.compare import CONTENDER
from nacre.ladder.result import Recommendation, Row
from nacre.ladder.words import Words, money, p_value, points
from nacre.lifecycle.evaluate.markup import percent

SAME_COST = 1.1
# Beyond this many times the present test rows no test set would decide.
_FAR = 50
_LITTLE = 0.1  # a shortfall, in 0..1, that somebody may accept
_WIDE = 0.05  # what the interval leaves open, in 0..1, from which it is worth a sentence
_TRAINED = ("tune", "pretrain")


@dataclass(frozen=True)
class Asked:
    """How to choose and to say it. `margin` is the shortfall that is accepted, in 0..1; `language` is `en` or `zh`."""

    metric: str
    language: str = "en"
    currency: str = "USD"
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise ConfigError(f"the margin {self.margin} is no share", remedy="give 0.01 for one point, say")


def recommend(rows: Sequence[Row], asked: Asked) -> Recommendation:
    """The recommendation for rows that `compare` filled."""
    words = Words(asked.language)
    known = [row for row in rows if row.ok]
    if not known:
        said = (words("head_nothing"), words("why_nothing"))
        return _recommendation(None, said, tuple(_unmeasured(rows, words)), words)
    order = by_cost(known)
    best = _best(known)
    chosen = next(row for row in order if good_enough(row, best, asked.margin))
    scene = _Scene(tuple(rows), tuple(order), best, chosen, asked, words)
    return _recommendation(chosen, _why(scene), tuple(_would_change(scene)), words)


def _recommendation(row: Row | None, said: tuple[str, str], changes: tuple[str, ...], words: Words) -> Recommendation:
    tier, name = (None, None) if row is None else (row.tier, row.name)
    return Recommendation(tier, name, words("gap").join(said), changes, said[0])


def by_cost(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order in which they are preferred (see the module)."""
    groups: list[list[Row]] = []
    for row in sorted((one for one in rows if one.cost_per_1k is not None), key=_cost):
        if groups and _cost(row) <= SAME_COST * _cost(groups[-1][0]):
            groups[-1].append(row)
        else:
            groups.append([row])
    order = [row for group in groups for row in sorted(group, key=lambda one: one.tier)]
    for row in sorted((one for one in rows if one.cost_per_1k is None), key=lambda one: one.tier):
        thinner = [place for place, one in enumerate(order) if one.tier <= row.tier]
        order.insert(thinner[-1] + 1 if thinner else 0, row)
    return order


def good_enough(row: Row, best: Row, margin: float = 0.0) -> bool:
    """Whether nothing shows that `row` is worse than the best by more than the margin."""
    gap = row.vs_best
    if row is best or gap is None:
        return row is best
    if gap.examples < CONTENDER * best.examples:
        return False
    return gap.high >= 0 or (margin > 0 and gap.difference >= -margin)


@dataclass(frozen=True)
class _Scene:
    rows: tuple[Row, ...]
    order: tuple[Row, ...]
    best: Row
    chosen: Row
    asked: Asked
    words: Words

    @property
    def enough(self) -> list[Row]:
        return [row for row in self.order if good_enough(row, self.best, self.asked.margin)]

    def tier(self, row: Row) -> str:
        return self.words.tier(row.name)

    def begin(self, row: Row) -> str:
        """A tier at the head of a sentence."""
        name = self.tier(row)
        return name[:1].upper() + name[1:]

    def money(self, value: float) -> str:
        return money(value, self.asked.currency)


def _best(rows: Sequence[Row]) -> Row:
    """The row that the others were compared with; alone, the row itself."""
    name = next((row.vs_best.best for row in rows if row.vs_best), rows[0].name)
    return next((row for row in rows if row.name == name), rows[0])


def _cost(row: Row) -> float:
    return math.inf if row.cost_per_1k is None else row.cost_per_1k


def _why(scene: _Scene) -> tuple[str, str]:
    """The headline, and the sentences after it."""
    words, row, best = scene.words, scene.chosen, scene.best
    costs_known = any(one.cost_per_1k is not None for one in scene.order)
    values: dict[str, object] = {
        "tier": scene.begin(row),
        "metric": words.name(scene.asked.metric),
        "its_metric": _inside(words.name(scene.asked.metric)),
        "score": percent(row.score or 0.0),
        "interval": _interval(row),
        "n": f"{row.examples:,}",
        "tiers": len(scene.order),
        "cheaper": words("cheaper" if costs_known else "thinner"),
        "cheapest": words("cheapest" if costs_known else "thinnest"),
    }
    if len(scene.order) == 1:
        return words("head_alone", tier=scene.tier(row)), words("why_alone", **values)
    if row is best:
        if scene.order[0] is row:
            return words("head_enough", **values), words("why_best_and_first", **values)
        return words("head_best", tier=scene.tier(row)), words("why_best", **values)
    gap = row.vs_best
    assert gap is not None  # every row beside the best has one
    values |= {
        "best": scene.tier(best),
        "best_score": percent(best.score or 0.0),
        "difference": points(gap.difference),
        "low": points(gap.low),
        "high": points(gap.high),
        "p": p_value(gap.p),
        "n": f"{gap.examples:,}",
        "margin": f"{100 * scene.asked.margin:.3g}",
    }
    how = "enough" if gap.high >= 0 else "margin"
    said = words(f"why_{how}", **values)
    plain = words("gap") + words("why_baseline") if row.tier == 0 else ""
    return words(f"head_{how}", **values), said + plain


def _would_change(scene: _Scene) -> Iterator[str]:
    found = [
        *_undecided(scene),
        *_rivals(scene),
        *_accepting_less(scene),
        *_other_prices(scene),
        *_uncorrected(scene),
        *_partial(scene),
        *_unmeasured(scene.rows, scene.words),
        *_one_seed(scene),
    ]
    yield from found
    if not found and len(scene.order) > 1:
        yield scene.words("change_nothing")


def _undecided(scene: _Scene) -> Iterator[str]:
    """How large a test set would decide between the recommended tier and the best."""
    gap, words = scene.chosen.vs_best, scene.words
    if scene.chosen is scene.best or gap is None or gap.high < 0:
        return
    short = -gap.difference
    best = scene.begin(scene.best)
    needed = math.ceil(gap.examples * ((gap.high + short) / short) ** 2) if short > 0 else math.inf
    size = {"difference": points(short).lstrip("+"), "most": points(-gap.low).lstrip("+")}
    if needed <= gap.examples * _FAR:
        now, enough = f"{gap.examples:,}", f"{_rounded_up(int(needed)):,}"
        yield words("change_decide", best=best, n=enough, now=now, **size)
        return
    if points(short) != "0.0":
        yield words("change_undecidable", best=best, difference=size["difference"])
    if -gap.low >= _WIDE:
        yield words("change_wide", best=scene.tier(scene.best), most=size["most"], tier=scene.tier(scene.chosen))


def _rivals(scene: _Scene) -> Iterator[str]:
    """Where the best is recommended: tiers after it that the test could not tell from it."""
    if scene.chosen is not scene.best:
        return
    for row in scene.order[scene.order.index(scene.chosen) + 1 :]:
        gap = row.vs_best
        if gap is not None and gap.high > 0 and not row.unmeasured:
            ends = {"difference": points(gap.difference), "low": points(gap.low), "high": points(gap.high)}
            yield scene.words("change_rival", tier=scene.begin(row), **ends)


def _accepting_less(scene: _Scene) -> Iterator[str]:
    """Tiers before the chosen one that are little worse, for who can do with less; one that another tier before it
    beats is no choice, and one that the budget cut short has its own line."""
    least = -_LITTLE
    for row in scene.order[: scene.order.index(scene.chosen)]:
        gap = row.vs_best
        if gap is None or row.unmeasured or gap.difference <= least:
            continue
        least = gap.difference
        saving = ""
        if row.cost_per_1k is not None and scene.chosen.cost_per_1k is not None:
            cost, now = scene.money(row.cost_per_1k), scene.money(scene.chosen.cost_per_1k)
            saving = scene.words("saving", cost=cost, now=now)
        yield scene.words(
            "change_accept",
            tier=scene.tier(row),
            difference=points(-gap.difference).lstrip("+"),
            low=points(-gap.high).lstrip("+"),
            high=points(-gap.low).lstrip("+"),
            saving=saving,
        )


def _other_prices(scene: _Scene) -> Iterator[str]:
    chosen = scene.chosen
    for row in scene.enough:
        if row.tier < chosen.tier and row.cost_per_1k is not None and chosen.cost_per_1k:
            under = scene.money(SAME_COST * chosen.cost_per_1k)
            cost = scene.money(row.cost_per_1k)
            yield scene.words("change_price", tier=scene.begin(row), under=under, cost=cost)
    rivals = sorted(scene.enough, key=lambda row: row.tier)
    unknown = [scene.tier(row) for row in rivals if row.cost_per_1k is None]
    if len(unknown) == len(rivals) > 1:
        yield scene.words("change_no_cost")
    elif unknown and len(rivals) > 1:
        yield scene.words("change_unknown_cost", tiers=scene.words.listed(unknown))


def _uncorrected(scene: _Scene) -> Iterator[str]:
    for row in scene.order[: scene.order.index(scene.chosen)]:
        gap = row.vs_best
        if gap is not None and gap.high < 0 and gap.p_holm > 0.05:
            yield scene.words("change_holm", tier=scene.begin(row), p=p_value(gap.p_holm))


def _partial(scene: _Scene) -> Iterator[str]:
    best = scene.best
    if best.unmeasured:
        whole = f"{best.examples + best.unmeasured:,}"
        yield scene.words("change_best_partial", best=scene.begin(best), n=f"{best.examples:,}", all=whole)
    for row in scene.order:
        gap = row.vs_best
        if row.unmeasured and gap is not None:
            yield scene.words(
                "change_partial",
                tier=scene.begin(row),
                n=f"{row.examples:,}",
                all=f"{row.examples + row.unmeasured:,}",
                best=scene.tier(best),
                difference=points(gap.difference),
                low=points(gap.low),
                high=points(gap.high),
            )


def _unmeasured(rows: Sequence[Row], words: Words) -> Iterator[str]:
    for row in rows:
        if row.ok:
            continue
        name = words.tier(row.name)
        values = {"tier": name[:1].upper() + name[1:], "reason": _clause(row.reason or words("no_answers"))}
        if row.remedy:
            yield words("change_unmeasured_remedy", **values, remedy=_clause(row.remedy))
        else:
            yield words("change_unmeasured", **values)


def _one_seed(scene: _Scene) -> Iterator[str]:
    """Trained tiers that decide the recommendation and were trained once."""
    deciding = {row.name: row for row in (scene.chosen, scene.best)}
    once = [
        scene.tier(row) for row in deciding.values() if row.name.partition(":")[0] in _TRAINED and len(row.seeds) == 1
    ]
    if once:
        names = scene.words.listed(once)
        yield scene.words("change_seeds", tiers=names[:1].upper() + names[1:])


def _interval(row: Row) -> str:
    if row.ci_low is None or row.ci_high is None:
        return "?"
    return f"{100 * row.ci_low:.1f}–{100 * row.ci_high:.1f}"


def _inside(name: str) -> str:
    """A metric's name inside a sentence: `Macro F1` loses its capital, `BLEU` does not."""
    return name[:1].lower() + name[1:] if name[1:2].islower() else name


def _clause(text: str) -> str:
    """A sentence of somebody else's as a clause of ours."""
    return " ".join(text.split()).rstrip(".。")


def _rounded_up(n: int) -> int:
    """A number of examples as one plans with it: two significant digits, upwards."""
    step: int = 10 ** max(0, len(str(n)) - 2)
    return math.ceil(n / step) * step
