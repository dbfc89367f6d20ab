"""Callers held to their allowances, in the memory of one process.

Rates: a sliding window of sixty seconds, kept in buckets of one second. A bucket counts until all of it is older than
sixty seconds, so no sixty seconds ever hold more than the limit (a token bucket of that size would let through nearly
twice as much), and what was used comes back up to a second late.

Budgets: spent + held + estimate must fit. What a call holds counts at once, with its estimate, and is replaced by the
real usage when it is settled; so a budget is passed by no more than the calls in flight use beyond their estimates.
What was spent before is read from the ledger when a key is first seen.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from nacre.errors import NacreError
from nacre.lifecycle.serve.contract import Allowance, Caller, Refusal
from nacre.lifecycle.serve.state.usage import Spent

WINDOW_S = 60
BUCKET_LIFE_S = WINDOW_S + 1  # from the beginning of its second until all of it has left the window
_BUSY_RETRY_S = 1.0
_ROUNDING = 1e-9  # of a budget: sums of floats are not exact

SpentSince = Callable[[str, float | None], Awaitable[Spent]]


def period_start(allowance: Allowance, now: float) -> float | None:
    """When the budget's day or month (UTC) began; None for a budget over the key's life."""
    if allowance.per == "life":
        return None
    moment = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (moment.replace(day=1) if allowance.per == "month" else moment).timestamp()


def is_unlimited(allowance: Allowance) -> bool:
    """Whether nothing of it has to be counted."""
    a = allowance
    return a.requests_per_minute is a.tokens_per_minute is a.concurrent is a.money is a.tokens is None


def has_budget(allowance: Allowance) -> bool:
    """Whether money or tokens are budgeted."""
    return allowance.money is not None or allowance.tokens is not None


def check_estimate(caller: Caller, tokens: int, money: float | None) -> None:
    """Refuses a call that no waiting would let through: over the whole rate, or unpriced under a budget of money."""
    limit = caller.allowance.tokens_per_minute
    if limit is not None and tokens > limit:
        raise Refusal(
            429,
            f"this request may use {tokens:,} tokens, the key {limit:,} a minute: shorten it, or lower max_tokens",
            kind="rate_limit_error", code="request_too_large",
        )  # fmt: skip
    if caller.allowance.money is not None and money is None:
        raise Refusal(
            402,
            "this model has no known price, and the key's budget is in money: "
            "ask for a model with a price, or use a key with a budget in tokens",
            kind="insufficient_quota", code="unpriced_model",
        )  # fmt: skip


def refusal(limit: str, caller: Caller, retry_after: float | None = None) -> Refusal:
    """The refusal for the limit that was reached: a field of Allowance."""
    allowance = caller.allowance
    value = getattr(allowance, limit)
    if limit in ("money", "tokens"):
        over = {"life": "of the key", "day": "of the day (UTC)", "month": "of the month (UTC)"}[allowance.per]
        return Refusal(
            402, f"the budget {over} leaves too little: {limit} {value:,}; raise it, or ask for fewer tokens",
            kind="insufficient_quota", code=f"budget_{limit}",
        )  # fmt: skip
    what = {
        "requests_per_minute": f"{value:,} requests a minute",
        "tokens_per_minute": f"{value:,} tokens a minute",
        "concurrent": f"{value:,} requests at once",
    }[limit]
    message = f"the key may make {what}: send fewer, or wait"
    return Refusal(429, message, kind="rate_limit_error", code=limit, retry_after=retry_after)


@dataclass
class Bucket:
    """What was reserved in one second."""

    second: int
    requests: int = 0
    tokens: int = 0
    left: bool = False


@dataclass
class Window:
    """Requests and tokens of the last sixty seconds."""

    requests: int = 0
    tokens: int = 0
    buckets: deque[Bucket] = field(default_factory=deque)

    def advance(self, now: float) -> None:
        """Lets go of what is older than the window."""
        while self.buckets and self.buckets[0].second + BUCKET_LIFE_S <= now:
            bucket = self.buckets.popleft()
            bucket.left = True
            self.requests -= bucket.requests
            self.tokens -= bucket.tokens

    def add(self, now: float, tokens: int) -> Bucket:
        """One more request of so many tokens; gives the bucket that counts it."""
        second = math.floor(now)
        if not self.buckets or self.buckets[-1].second < second:
            self.buckets.append(Bucket(second))
        bucket = self.buckets[-1]
        bucket.requests += 1
        bucket.tokens += tokens
        self.requests += 1
        self.tokens += tokens
        return bucket

    def correct(self, bucket: Bucket, difference: int) -> None:
        """The tokens of a bucket were more or fewer than estimated."""
        if not bucket.left:
            bucket.tokens += difference
            self.tokens += difference

    def wait_s(self, now: float, *, requests: int = 0, tokens: int = 0) -> float:
        """Seconds until so many requests or tokens have left the window."""
        for bucket in self.buckets:
            requests, tokens = requests - bucket.requests, tokens - bucket.tokens
            if requests <= 0 and tokens <= 0:
                return max(0.0, bucket.second + BUCKET_LIFE_S - now)
        return float(BUCKET_LIFE_S)


@dataclass
class Account:
    """What one key uses now and has spent in its period. `period` is the budget's kind and beginning."""

    window: Window = field(default_factory=Window)
    running: int = 0
    held_tokens: int = 0
    held_money: float = 0.0
    spent_tokens: int = 0
    spent_money: float = 0.0
    period: tuple[str, float | None] | None = None
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def reached(self, allowance: Allowance, tokens: int, money: float | None) -> str | None:
        """The budget or the number of running calls that leaves no place for one more, as a field of Allowance."""
        budget = allowance.money
        if budget is not None and self.spent_money + self.held_money + (money or 0.0) > budget * (1 + _ROUNDING):
            return "money"
        if allowance.tokens is not None and self.spent_tokens + self.held_tokens + tokens > allowance.tokens:
            return "tokens"
        if allowance.concurrent is not None and self.running >= allowance.concurrent:
            return "concurrent"
        return None


class MemoryLimits:
    """Limits of one process; implements the contract's `Limits`. Lives in one event loop.

    `spent` gives what a key has used since a moment (the ledger's method), for budgets after a restart.
    """

    def __init__(
        self,
        spent: SpentSince,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._spent, self._clock, self._wall_clock = spent, clock, wall_clock
        self._accounts: dict[str, Account] = {}

    async def reserve(self, caller: Caller, tokens: int, money: float | None) -> Held:
        """Takes a place for a call; raises Refusal. Nothing is taken by a call that is refused."""
        allowance = caller.allowance
        if is_unlimited(allowance):
            return Held(None, None, 0, 0.0, Allowance(), self._wall_clock)
        check_estimate(caller, tokens, money)
        account = self._accounts.setdefault(caller.id, Account())
        if has_budget(allowance) and (account.period is None or account.period[0] != allowance.per):
            await self._read_spent(account, caller)
        # From here to the end nothing waits: another call sees all of this or nothing.
        roll(account, allowance, self._wall_clock())
        reached = account.reached(allowance, tokens, money)
        if reached is not None:
            raise refusal(reached, caller, _BUSY_RETRY_S if reached == "concurrent" else None)
        bucket = self._take_rate(account, caller, tokens)
        account.running += 1
        account.held_tokens += tokens
        account.held_money += money or 0.0
        return Held(account, bucket, tokens, money or 0.0, allowance, self._wall_clock)

    async def close(self) -> None:
        """Nothing to close: budgets are in the ledger."""

    def _take_rate(self, account: Account, caller: Caller, tokens: int) -> Bucket:
        window, now, allowance = account.window, self._clock(), caller.allowance
        window.advance(now)
        most_requests, most_tokens = allowance.requests_per_minute, allowance.tokens_per_minute
        if most_requests is not None and window.requests + 1 > most_requests:
            wait = window.wait_s(now, requests=window.requests + 1 - most_requests)
            raise refusal("requests_per_minute", caller, wait)
        if most_tokens is not None and window.tokens + tokens > most_tokens:
            wait = window.wait_s(now, tokens=window.tokens + tokens - most_tokens)
            raise refusal("tokens_per_minute", caller, wait)
        return window.add(now, tokens)

    async def _read_spent(self, account: Account, caller: Caller) -> None:
        async with account.reading:
            allowance = caller.allowance
            if account.period is not None and account.period[0] == allowance.per:
                return  # another call of this key has read it meanwhile
            since = period_start(allowance, self._wall_clock())
            spent = await read_spent(self._spent, caller, since)
            account.spent_tokens, account.spent_money = spent.tokens, spent.money
            account.period = (allowance.per, since)


class Held:
    """What a call holds. Settling moves it from held to spent, once."""

    def __init__(
        self, account: Account | None, bucket: Bucket | None, tokens: int, money: float, allowance: Allowance,
        wall_clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._account, self._bucket, self._allowance = account, bucket, allowance
        self._tokens, self._money, self._wall_clock = tokens, money, wall_clock

    async def settle(self, tokens: int | None, money: float | None) -> None:
        """The real usage; what is unknown (None) is charged as it was estimated."""
        account, self._account = self._account, None
        if account is None or self._bucket is None:
            return
        roll(account, self._allowance, self._wall_clock())
        used = self._tokens if tokens is None else tokens
        account.running -= 1
        account.held_tokens -= self._tokens
        account.held_money -= self._money
        account.spent_tokens += used
        account.spent_money += self._money if money is None else money
        account.window.correct(self._bucket, used - self._tokens)


def roll(account: Account, allowance: Allowance, now: float) -> None:
    """Begins a new day or month with nothing spent; what is held stays, and is charged to the new one."""
    if account.period is None or account.period[0] != allowance.per:
        return
    start = period_start(allowance, now)
    if start is not None and account.period[1] is not None and start > account.period[1]:
        account.period = (allowance.per, start)
        account.spent_tokens, account.spent_money = 0, 0.0


async def read_spent(spent: SpentSince, caller: Caller, since: float | None) -> Spent:
    """What the ledger knows of a key; raises Refusal (503) where it cannot be read: a budget is not guessed."""
    try:
        return await spent(caller.id, since)
    except NacreError as error:
        raise Refusal(
            503, "the budget cannot be read now: try again later", kind="server_error", code="no_budget",
            retry_after=_BUSY_RETRY_S,
        ) from error  # fmt: skip
