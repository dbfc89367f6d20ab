"""Limits in Redis, against a real server: a stand-in for it would prove nothing about its scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis_server import redis_server

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Allowance, Caller, Refusal
from nacre.lifecycle.serve.state.limits_redis import RedisHeld, RedisLimits
from nacre.lifecycle.serve.state.usage import Spent

redis = pytest.importorskip("redis")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own, on a socket."""
    with redis_server(tmp_path_factory.mktemp("redis")) as where:
        yield where


class Book:
    def __init__(self, spent: Spent | None = None) -> None:
        self.known, self.asked = spent or Spent(), 0

    async def spent(self, key: str, since: float | None) -> Spent:
        self.asked += 1
        return self.known


@asynccontextmanager
async def opened(address: str, book: Book | None = None, **options: Any) -> AsyncIterator[RedisLimits]:
    limits = await RedisLimits.connect(address, (book or Book()).spent, **options)
    try:
        yield limits
    finally:
        await limits.close()


def caller(name: str, **allowance: Any) -> Caller:
    return Caller(name, "bot", allowance=Allowance(**allowance))


async def refused(held: Awaitable[RedisHeld]) -> Refusal:
    with pytest.raises(Refusal) as error:
        await held
    return error.value


def test_rates_and_concurrency_are_shared_by_replicas(address: str) -> None:
    async def run() -> None:
        async with opened(address) as one, opened(address) as two:
            bot = caller("shared", requests_per_minute=3, concurrent=2)
            first, _ = await one.reserve(bot, 1, None), await two.reserve(bot, 1, None)
            assert (await refused(one.reserve(bot, 1, None))).code == "concurrent"
            await first.settle(1, None)
            await first.settle(1, None)
            third = await two.reserve(bot, 1, None)
            assert (await refused(one.reserve(bot, 1, None))).code == "concurrent"
            await third.settle(1, None)
            refusal = await refused(one.reserve(bot, 1, None))
            assert (refusal.status, refusal.code) == (429, "requests_per_minute")
            assert refusal.retry_after is not None
            assert 50 < refusal.retry_after <= 61

    asyncio.run(run())


def test_tokens_of_a_minute_are_corrected(address: str) -> None:
    async def run() -> None:
        async with opened(address) as limits:
            bot = caller("tokens", tokens_per_minute=100)
            held = await limits.reserve(bot, 80, None)
            assert (await refused(limits.reserve(bot, 21, None))).code == "tokens_per_minute"
            await held.settle(30, None)
            await limits.reserve(bot, 70, None)
            await refused(limits.reserve(bot, 1, None))
            assert (await refused(limits.reserve(bot, 101, None))).code == "request_too_large"

    asyncio.run(run())


def test_budgets_hold_under_many_tasks_of_two_replicas_and_are_read_from_the_ledger(address: str) -> None:
    async def run() -> None:
        book = Book(Spent(10, 0.4))
        bot = caller("budget", money=1.0, per="month")
        used: list[float] = []
        codes: set[str | None] = set()

        async def one(limits: RedisLimits, number: int) -> None:
            try:
                held = await limits.reserve(bot, 10, 0.02)
            except Refusal as refusal:
                codes.add(refusal.code)
                return
            await asyncio.sleep(0.001 * (number % 3))
            await held.settle(10, 0.02 if number % 2 else None)
            used.append(0.02)

        async with opened(address, book) as first, opened(address, book) as second:
            await asyncio.gather(*(one((first, second)[number % 2], number) for number in range(100)))
            assert (len(used), codes) == (30, {"budget_money"})
            assert (await refused(first.reserve(bot, 1, 0.001))).status == 402
        asked = book.asked
        async with opened(address, book) as restarted:
            await refused(restarted.reserve(bot, 1, 0.001))
            assert book.asked == asked  # Redis knows: the ledger is asked only where it does not

    asyncio.run(run())


def test_a_budget_of_tokens_and_a_model_without_a_price(address: str) -> None:
    async def run() -> None:
        async with opened(address, Book(Spent(50, 0.0))) as limits:
            bot = caller("token-budget", tokens=100, per="day")
            await (await limits.reserve(bot, 50, None)).settle(20, None)
            await limits.reserve(bot, 30, None)
            assert (await refused(limits.reserve(bot, 1, None))).code == "budget_tokens"
            assert (await refused(limits.reserve(caller("m", money=1.0), 1, None))).code == "unpriced_model"
            held = await limits.reserve(caller("free"), 10**9, None)
            await held.settle(None, None)

    asyncio.run(run())


def test_a_lease_whose_replica_died_ends_and_is_charged_as_estimated(address: str) -> None:
    async def run() -> None:
        async with opened(address, lease_s=0.2) as limits:
            bot = caller("dead", concurrent=1, money=1.0)
            lost = await limits.reserve(bot, 5, 0.7)
            assert (await refused(limits.reserve(bot, 5, 0.1))).code == "concurrent"
            await asyncio.sleep(0.4)
            assert (await refused(limits.reserve(bot, 5, 0.4))).code == "budget_money"
            await (await limits.reserve(bot, 5, 0.2)).settle(5, 0.2)
            await lost.settle(5, 0.0)  # too late: it was charged
            assert (await refused(limits.reserve(bot, 5, 0.2))).code == "budget_money"

    asyncio.run(run())


def test_a_redis_that_goes_away_is_not_guessed_over(address: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with opened(address) as limits:
            bot = caller("gone", concurrent=5)
            held = await limits.reserve(bot, 1, None)

            async def broken(**_: object) -> None:
                raise redis.exceptions.ConnectionError("gone")

            limits._reserve = limits._settle = broken
            assert (await refused(limits.reserve(bot, 1, None))).status == 503
            await held.settle(1, None)
            assert limits.unsettled == 1

    asyncio.run(run())


@pytest.mark.parametrize("where", ["redis://:hunter2@127.0.0.1:1/0", "http://127.0.0.1", "unix:///nowhere/r.sock"])
def test_an_address_that_cannot_be_used_is_told_at_the_start(where: str) -> None:
    with pytest.raises(ConfigError) as error:
        asyncio.run(RedisLimits.connect(where, Book().spent))
    assert "hunter2" not in str(error.value)
