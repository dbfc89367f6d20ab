"""When something is worth an alert, and when it is over: pure functions of what was seen, and the memory of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nacre.lifecycle.serve.watch.config import AlertsConfig
from nacre.lifecycle.serve.watch.windows import Tally, quantile

Rule = Literal["error_rate", "latency_p95", "first_token_p95", "budget_used", "upstream_down"]
Status = Literal["firing", "still_firing", "recovered"]


@dataclass(frozen=True)
class BudgetUse:
    """What a key has used of its budget. `unit` is `money` or `tokens`."""

    key: str
    name: str
    used: float
    limit: float
    unit: Literal["money", "tokens"] = "money"


@dataclass(frozen=True)
class Finding:
    """One rule judged for one model or key. `is_bad` is None where too few requests tell."""

    rule: Rule
    subject: str
    is_bad: bool | None
    value: float | None
    limit: float
    detail: str = ""

    @property
    def identity(self) -> tuple[str, str, float]:
        """What makes two findings the same alert."""
        return self.rule, self.subject, self.limit


@dataclass(frozen=True)
class Notice:
    """What is told. `since` and `at` are Unix times; `id` is the same for a firing, its reminders and its recovery."""

    id: str
    status: Status
    finding: Finding
    since: float
    at: float


def judge_models(config: AlertsConfig, tallies: Mapping[str, Tally]) -> Iterator[Finding]:
    """Error rate and latencies of each model that was asked for lately."""
    for model, tally in tallies.items():
        enough = tally.requests >= config.at_least
        if config.error_rate is not None:
            rate = tally.errors / tally.requests
            bad = rate > config.error_rate if enough else None
            yield Finding("error_rate", model, bad, rate, config.error_rate)
        for rule, limit, buckets in (
            ("latency_p95", config.latency_p95_s, tally.seconds),
            ("first_token_p95", config.first_token_p95_s, tally.first_token),
        ):
            if limit is None or (value := quantile(buckets, 0.95)) is None:
                continue
            bad = value > limit if buckets.total() >= config.at_least else None
            yield Finding("latency_p95" if rule == "latency_p95" else "first_token_p95", model, bad, value, limit)


def judge_budgets(config: AlertsConfig, budgets: Iterable[BudgetUse]) -> Iterator[Finding]:
    """Every configured share of every key's budget."""
    for one in budgets:
        used = one.used / one.limit if one.limit > 0 else 1.0
        for share in config.budget_used:
            yield Finding("budget_used", f"{one.name} ({one.key})", used >= share, used, share, one.unit)


def judge_upstreams(config: AlertsConfig, down: Mapping[str, tuple[float, str]], now: float) -> Iterator[Finding]:
    """Models that have not answered their health check for long enough; `down` holds since when and why."""
    if config.upstream_down_s is None:
        return
    for model, (since, why) in down.items():
        lasting = now - since
        yield Finding("upstream_down", model, lasting >= config.upstream_down_s, lasting, config.upstream_down_s, why)


@dataclass
class _Alert:
    id: str
    finding: Finding
    since: float
    told: float
    good_since: float | None = None


class Memory:
    """Which alerts are open. A finding is told once, again every `repeat_s`, and once when it is over."""

    def __init__(self, config: AlertsConfig) -> None:
        self._config = config
        self._open: dict[tuple[str, str, float], _Alert] = {}
        self._count = 0

    @property
    def firing(self) -> list[Finding]:
        """What is open now."""
        return [alert.finding for alert in self._open.values()]

    def take(self, findings: Iterable[Finding], now: float) -> list[Notice]:
        """The notices of this moment. What is open and was not judged any more (no requests, no such key) is good."""
        notices, judged = [], set()
        for finding in findings:
            judged.add(finding.identity)
            notices += self._one(finding, now)
        for identity in [one for one in self._open if one not in judged]:
            old = self._open[identity].finding
            notices += self._one(Finding(old.rule, old.subject, False, None, old.limit, old.detail), now)
        return notices

    def _one(self, finding: Finding, now: float) -> list[Notice]:
        alert = self._open.get(finding.identity)
        if alert is None:
            if not finding.is_bad:
                return []
            self._count += 1
            alert = _Alert(f"{int(now)}-{self._count}", finding, now, now)
            self._open[finding.identity] = alert
            return [Notice(alert.id, "firing", finding, now, now)]
        if finding.is_bad is None:  # too little to tell: as before
            return []
        if finding.is_bad:
            alert.finding, alert.good_since = finding, None
            if now - alert.told < self._config.repeat_s:
                return []
            alert.told = now
            return [Notice(alert.id, "still_firing", finding, alert.since, now)]
        if alert.good_since is None:
            alert.good_since = now
        if now - alert.good_since < self._config.recover_s:
            return []
        del self._open[finding.identity]
        return [Notice(alert.id, "recovered", finding, alert.since, now)]
