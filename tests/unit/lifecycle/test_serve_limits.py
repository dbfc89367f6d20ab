"""Limits of one process: rates, concurrency and budgets, at every border, and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nacre.lifecycle.serve.contract import Allowance, Caller, Entry, Refusal
from nacre.lifecycle.serve.state.database import Unavailable
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.limits import Held, MemoryLimits, period_start
from nacre.lifecycle.serve.state.usage import Spent


class Clock:
    """One clock for both: seconds since the epoch, moved by hand."""

    def __init__(self, now: float = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Book:
    """A ledger that says what it was told, and counts how often it was asked."""

    def __init__(self, spent: Spent | None = None) -> None:
        self.known, self.asked = spent or Spent(), list[float | None]()

    async def spent(self, key: str, since: float | None) -> Spent:
        self.asked.append(since)
        await asyncio.sleep(0)
        return self.known


def limits(clock: Clock, book: Book | None = None) -> MemoryLimits:
    return MemoryLimits((book or Book()).spent, clock=clock, wall_clock=clock)


def caller(**allowance: Any) -> Caller:
    return Caller("key_a", "bot", allowance=Allowance(**allowance))


async def refused(held: Coroutine[Any, Any, Held]) -> Refusal:
    with pytest.raises(Refusal) as error:
        await held
    return error.value


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test(Clock()))

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


@in_loop
async def test_a_key_without_limits_is_not_counted(clock: Clock) -> None:
    kept = limits(clock)
    held = await kept.reserve(caller(), 10**9, None)
    await held.settle(None, None)
    assert not kept._accounts
    await kept.close()


@in_loop
async def test_requests_of_a_minute(clock: Clock) -> None:
    kept, bot = limits(clock), caller(requests_per_minute=2)
    await kept.reserve(bot, 1, None)
    clock.now += 30.5
    await kept.reserve(bot, 1, None)
    refusal = await refused(kept.reserve(bot, 1, None))
    assert (refusal.status, refusal.code) == (429, "requests_per_minute")
    assert refusal.retry_after == pytest.approx(30.5)
    clock.now += 30.5
    await kept.reserve(bot, 1, None)
    assert (await refused(kept.reserve(bot, 1, None))).retry_after == pytest.approx(30.0)


@in_loop
async def test_no_sixty_seconds_hold_more_than_the_limit(clock: Clock) -> None:
    """Wherever in its second a request came: not before sixty seconds have gone by, and within sixty-one."""
    began = clock.now
    for place in (0.0, 0.5, 0.99):
        kept, bot = limits(clock), caller(requests_per_minute=1)
        clock.now = began + place
        await kept.reserve(bot, 1, None)
        for later in (58.0, 59.02, 59.6, 60.0 - 0.001):
            clock.now = began + place + later
            await refused(kept.reserve(bot, 1, None))
        clock.now = began + place + 61.0
        await kept.reserve(bot, 1, None)


@in_loop
async def test_tokens_of_a_minute_are_corrected_by_the_real_usage(clock: Clock) -> None:
    kept, bot = limits(clock), caller(tokens_per_minute=100)
    held = await kept.reserve(bot, 80, None)
    assert (await refused(kept.reserve(bot, 21, None))).code == "tokens_per_minute"
    await held.settle(30, None)
    await kept.reserve(bot, 70, None)
    assert (await refused(kept.reserve(bot, 1, None))).retry_after == pytest.approx(61.0)
    clock.now += 61
    late = await kept.reserve(bot, 100, None)
    clock.now += 61
    await late.settle(500, None)  # its minute is over: nothing is left to correct
    await kept.reserve(bot, 100, None)


@in_loop
async def test_a_request_over_the_whole_rate_is_not_told_to_wait(clock: Clock) -> None:
    refusal = await refused(limits(clock).reserve(caller(tokens_per_minute=100), 101, None))
    assert (refusal.status, refusal.code, refusal.retry_after) == (429, "request_too_large", None)


@in_loop
async def test_requests_at_once(clock: Clock) -> None:
    kept, bot = limits(clock), caller(concurrent=2)
    first, _ = await kept.reserve(bot, 1, None), await kept.reserve(bot, 1, None)
    refusal = await refused(kept.reserve(bot, 1, None))
    assert (refusal.status, refusal.code, refusal.retry_after) == (429, "concurrent", 1.0)
    await first.settle(1, None)
    await first.settle(1, None)  # twice gives one place back, not two
    await kept.reserve(bot, 1, None)
    await refused(kept.reserve(bot, 1, None))


@in_loop
async def test_a_budget_of_money_counts_what_is_held(clock: Clock) -> None:
    kept, bot = limits(clock), caller(money=1.0)
    held = await kept.reserve(bot, 10, 0.6)
    refusal = await refused(kept.reserve(bot, 10, 0.5))
    assert (refusal.status, refusal.kind, refusal.code) == (402, "insufficient_quota", "budget_money")
    await held.settle(10, 0.1)
    await held.settle(10, 0.1)
    last = await kept.reserve(bot, 10, 0.9)  # exactly what is left
    await last.settle(10, 1.4)  # an upstream may use more than was estimated
    await refused(kept.reserve(bot, 0, 0.0001))


@in_loop
async def test_a_budget_of_tokens(clock: Clock) -> None:
    kept, bot = limits(clock), caller(tokens=100)
    await (await kept.reserve(bot, 60, None)).settle(40, None)
    await kept.reserve(bot, 60, None)
    assert (await refused(kept.reserve(bot, 1, None))).code == "budget_tokens"


@in_loop
async def test_unknown_usage_is_charged_as_estimated(clock: Clock) -> None:
    kept, bot = limits(clock), caller(money=1.0, tokens=100)
    await (await kept.reserve(bot, 60, 0.6)).settle(None, None)
    account = kept._accounts["key_a"]
    assert (account.spent_tokens, account.spent_money, account.held_tokens, account.running) == (60, 0.6, 0, 0)


@in_loop
async def test_a_budget_of_money_refuses_a_model_without_a_price(clock: Clock) -> None:
    refusal = await refused(limits(clock).reserve(caller(money=1.0), 10, None))
    assert (refusal.status, refusal.code) == (402, "unpriced_model")


@in_loop
async def test_a_refused_call_takes_nothing(clock: Clock) -> None:
    kept, bot = limits(clock), caller(requests_per_minute=1, tokens=100, concurrent=9)
    await kept.reserve(bot, 10, None)
    for _ in range(50):
        await refused(kept.reserve(bot, 10, None))
    account = kept._accounts["key_a"]
    assert (account.running, account.held_tokens, account.window.requests) == (1, 10, 1)


@in_loop
async def test_a_restart_reads_what_was_spent_once(clock: Clock) -> None:
    book = Book(Spent(90, 0.9))
    kept, bot = limits(clock, book), caller(money=1.0, tokens=100)
    results = await asyncio.gather(*(kept.reserve(bot, 5, 0.01) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, Held) for one in results) == 2
    assert book.asked == [None]


@in_loop
async def test_budgets_of_a_day_and_a_month_begin_anew_in_utc(clock: Clock) -> None:
    for per, name in (("day", "day"), ("month", "month")):
        clock.now = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
        book = Book(Spent(50, 0.0))
        kept, bot = limits(clock, book), caller(tokens=100, per=per)
        running = await kept.reserve(bot, 50, None)
        assert name in (await refused(kept.reserve(bot, 1, None))).message
        clock.now += 1
        await running.settle(70, None)  # ended in the new period: charged to it
        await kept.reserve(bot, 30, None)
        assert (await refused(kept.reserve(bot, 1, None))).status == 402
        assert len(book.asked) == 1


def test_the_beginnings_of_periods() -> None:
    now = datetime(2026, 11, 22, 23, 30, tzinfo=UTC).timestamp()
    assert period_start(Allowance(), now) is None
    assert period_start(Allowance(per="day"), now) == datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    assert period_start(Allowance(per="month"), now) == datetime(2026, 11, 1, tzinfo=UTC).timestamp()


@in_loop
async def test_a_budget_that_cannot_be_read_is_not_guessed(clock: Clock) -> None:
    async def broken(key: str, since: float | None) -> Spent:
        raise Unavailable("the database is down", remedy="-")

    kept = MemoryLimits(broken, clock=clock, wall_clock=clock)
    assert (await refused(kept.reserve(caller(tokens=5), 1, None))).status == 503
    await kept.reserve(caller(concurrent=1), 1, None)  # what needs no ledger goes on


def test_a_budget_survives_a_restart_through_the_ledger(tmp_path: Path) -> None:
    bot = caller(money=1.0)

    async def life(number: int) -> int:
        ledger = StoredLedger(tmp_path / "gateway.db", journal=tmp_path)
        kept, answered = MemoryLimits(ledger.spent), 0
        for index in range(10):
            try:
                held = await kept.reserve(bot, 10, 0.15)
            except Refusal:
                break
            await held.settle(10, 0.15)
            identity = f"r{number}-{index}"
            ledger.enter(Entry(identity, 1.8e9, bot.id, "chat", "m", "m", "ok", 200, 5, 5, "upstream", money=0.15))
            answered += 1
            if number == 0 and index == 3:
                break
        await ledger.close()
        return answered

    assert asyncio.run(life(0)) == 4
    assert asyncio.run(life(1)) == 2
    assert asyncio.run(life(2)) == 0
