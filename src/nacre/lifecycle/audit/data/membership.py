"""Was a model trained on a data set? Only tests with an exact p decide: the logged order of training, the order of
publication, planted canaries. How likely a model finds rows says nothing by itself: easy rows are likely everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

from nacre.errors import NacreError, UsageError
from nacre.lifecycle.audit.data import canaries, exchange, order
from nacre.lifecycle.audit.data.scoring import Scorer, open_scorer
from nacre.lifecycle.audit.data.settings import DataSettings
from nacre.lifecycle.audit.data.texts import DataSet, View
from nacre.lifecycle.audit.said import clauses, say
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import Evidence, StageVerdict, holm, untestable

STAGE, KIND = "data", "trained-on"
NO_RECORD = (
    "the order of training: it needs the record of the run (its seed, config and number of steps), and none lies with "
    "the model"
)
NO_CANARIES = "canaries: none were given"
Found = Evidence | str  # a test's evidence, or why there is none


def compare(model: Subject, data: Subject, settings: DataSettings, side: str = "subject") -> StageVerdict:
    """The verdict on a model beside a data set; `side` is the model's in the audit."""
    if model.adapter is not None:
        return untestable(STAGE, "an adapter is not scored: merge it into its base first")
    assert data.data is not None
    scorer = open_scorer(model.path)
    rows = View(DataSet(data.data, settings.fields))
    tests: tuple[Callable[[], Found], ...] = (
        lambda: _logged(scorer, model, data, settings),
        lambda: exchange.exchange_test(
            scorer,
            rows,
            exchange.ExchangeTest(seed=settings.seed, max_flops=settings.max_flops, is_random=settings.shuffled),
        ),
        lambda: _canaries(scorer, rows, settings),
    )
    found = [_run(one) for one in tests]
    evidence = tuple(one for one in found if isinstance(one, Evidence))
    open_ones = [one for one in found if isinstance(one, str)]
    undecided = [one for one in evidence if one.value is None or one.tier != "exact"]
    open_ones += [say("{where}: {reason}", where=one.test, reason=one.text) for one in undecided]
    open_ones.append("rows that were trained on in another order and are no canaries: no exact test sees them")
    return replace(_verdict(evidence, tuple(open_ones), settings), detail={"model": side})


def _run(test: Callable[[], Found]) -> Found:
    """What stops one test leaves the others; a wrong option of the user's stops them all."""
    try:
        return test()
    except UsageError:
        raise
    except NacreError as error:
        return error.message


def _logged(scorer: Scorer, model: Subject, data: Subject, settings: DataSettings) -> Found:
    if model.record is None:
        return NO_RECORD
    assert data.data is not None
    return order.recorded_test(scorer, data.data, model.record, settings)


def _canaries(scorer: Scorer, rows: View, settings: DataSettings) -> Found:
    if settings.canaries is None:
        return NO_CANARIES
    try:
        texts, planted = canaries.planted_of(settings.canaries, rows)
    except NacreError as error:
        raise UsageError(error.message, remedy=error.remedy) from error
    return canaries.canary_test(scorer, texts, planted, seed=settings.seed)


def _verdict(evidence: tuple[Evidence, ...], not_tested: tuple[str, ...], settings: DataSettings) -> StageVerdict:
    able = [one for one in evidence if one.tier == "exact" and one.p_value is not None]
    p = min(holm([one.p_value or 0.0 for one in able]), default=None)
    if p is None:
        reason = clauses(("no test with an exact p could be run", *not_tested[:-1]))
        text = say("could not be tested: {reason}", reason=reason)
        return StageVerdict(STAGE, "UNTESTABLE", text, evidence=evidence, not_tested=not_tested, reason=reason)
    best = min(able, key=lambda one: one.p_value or 0.0)
    if p <= settings.alpha:
        text = say("the model was trained on these rows: {found}", found=best.text)
        return StageVerdict(
            STAGE, "DERIVED", text, kind=KIND, p_value=p, tier="exact", evidence=evidence, not_tested=not_tested
        )
    return StageVerdict(
        STAGE,
        "NO_EVIDENCE",
        "no exact test shows that the model was trained on these rows",
        p_value=p,
        tier="exact",
        evidence=evidence,
        not_tested=not_tested,
        power=clauses(_power(one, settings.alpha) for one in able),
    )


def _power(one: Evidence, alpha: float) -> str:
    """The weakest effect that a test would have seen nine times of ten, by the normal distribution."""
    normal = NormalDist()
    both = normal.inv_cdf(1 - alpha) + normal.inv_cdf(0.9)
    if one.test == order.NAME:
        rho = both / math.sqrt(max(1, one.detail["examples"] - 1))
        return say(
            "a rank correlation of {rho:.3f} with the logged order would have been seen nine times of ten", rho=rho
        )
    if one.test == exchange.NAME:
        lift = both / math.sqrt(one.detail["shards"])
        return say(
            "training in the order of publication would have been seen nine times of ten from {lift:.2f} standard "
            "deviations on", lift=lift,
        )  # fmt: skip
    return say("canaries: {found}", found=one.text)
