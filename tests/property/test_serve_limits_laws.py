"""Laws of limits and ledger, under any interleaving of reserving and settling."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.lifecycle.serve.contract import Allowance, Caller, Entry, Refusal
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.limits import Held, MemoryLimits
from nacre.lifecycle.serve.state.usage import Spent

allowances = st.builds(
    Allowance,
    requests_per_minute=st.none() | st.integers(1, 4),
    tokens_per_minute=st.none() | st.integers(50, 300),
    concurrent=st.none() | st.integers(1, 4),
    money=st.none() | st.floats(0.05, 1.0),
    tokens=st.none() | st.integers(50, 1_000),
)
waits = (st.floats(0.0, 70.0) | st.sampled_from((0.5, 0.99, 1.0, 58.5, 59.0, 59.5, 60.0, 60.5, 61.0))).map(
    lambda s: ("wait", s, 0)
)
reserves = st.tuples(st.just("reserve"), st.integers(0, 120).map(float), st.integers(0, 200))
settles = st.tuples(st.just("settle"), st.integers(0, 3).map(float), st.just(0))
steps = st.lists(st.one_of(reserves, reserves, settles, waits), max_size=80)


async def nothing_spent(key: str, since: float | None) -> Spent:
    return Spent()


class Witness:
    """What really happened, kept without the code under test. One token costs a thousandth."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.now = 1_000.0
        self.running: list[tuple[Held, int, int, list[float]]] = []  # held, estimate, real, row
        self.rows: list[list[float]] = []  # when, tokens as known now
        self.spent = 0
        self.over = 0  # what settled calls used beyond their estimates

    def check(self) -> None:
        a, minute = self.allowance, [tokens for at, tokens in self.rows if at > self.now - 60]
        promised = self.spent + sum(estimate for _, estimate, _, _ in self.running)
        assert a.requests_per_minute is None or len(minute) <= a.requests_per_minute
        assert a.tokens_per_minute is None or sum(minute) <= a.tokens_per_minute + self.over
        assert a.concurrent is None or len(self.running) <= a.concurrent
        assert a.tokens is None or promised <= a.tokens + self.over
        assert a.money is None or promised / 1000 <= a.money + self.over / 1000 + 1e-6


@given(allowances, steps)
@settings(max_examples=250, deadline=None)
def test_no_interleaving_passes_a_limit_by_more_than_what_is_in_flight(
    allowance: Allowance, script: Sequence[tuple[str, float, int]]
) -> None:
    witness, bot = Witness(allowance), Caller("key_a", "bot", allowance=allowance)
    kept = MemoryLimits(nothing_spent, clock=lambda: witness.now, wall_clock=lambda: witness.now)

    async def run() -> None:
        for action, amount, real in script:
            if action == "wait":
                witness.now += amount
            elif action == "reserve":
                await reserve(int(amount), real)
            elif witness.running:
                await settle(int(amount) % len(witness.running))
            witness.check()
        while witness.running:
            await settle(0)
        account = kept._accounts.get(bot.id)
        if account is not None:
            assert (account.running, account.held_tokens, account.spent_tokens) == (0, 0, witness.spent)
            assert abs(account.held_money) < 1e-9

    async def reserve(estimate: int, real: int) -> None:
        try:
            held = await kept.reserve(bot, estimate, estimate / 1000)
        except Refusal:
            return
        row = [witness.now, float(estimate)]
        witness.rows.append(row)
        witness.running.append((held, estimate, real, row))

    async def settle(index: int) -> None:
        held, estimate, real, row = witness.running.pop(index)
        await held.settle(real, real / 1000)
        await held.settle(real, real / 1000)
        row[1] = float(real)
        witness.spent += real
        witness.over += max(0, real - estimate)

    asyncio.run(run())


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_many_tasks_at_once_keep_the_budget_and_the_ledger_sums_to_what_was_used(seed: int) -> None:
    rng = random.Random(seed)
    bot = Caller("key_a", "bot", allowance=Allowance(money=1.0, concurrent=6))
    used: list[float] = []
    in_flight: list[float] = []
    over = 0.0

    async def one(number: int, kept: MemoryLimits, ledger: StoredLedger) -> None:
        nonlocal over
        await asyncio.sleep(rng.random() * 0.01)
        estimate = rng.choice((0.01, 0.02, 0.05))
        try:
            held = await kept.reserve(bot, 10, estimate)
        except Refusal as refusal:
            ledger.enter(row(number, "refused", refusal.status, 0.0))
            return
        in_flight.append(estimate)
        assert len(in_flight) <= 6
        assert sum(used) + sum(in_flight) <= 1.0 + over + 1e-6
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        money = estimate * rng.choice((0.5, 1.0, 1.3))
        in_flight.remove(estimate)
        over += max(0.0, money - estimate)
        await held.settle(10, money)
        used.append(money)
        ledger.enter(row(number, "ok", 200, money))

    def row(number: int, outcome: str, status: int, money: float) -> Entry:
        return Entry(f"r{number}", 1.8e9, bot.id, "chat", "m", "m", outcome, status, 5, 5, "upstream", money=money)  # type: ignore[arg-type]

    async def run(folder: Path) -> None:
        ledger = StoredLedger(folder / "gateway.db", journal=folder)
        kept = MemoryLimits(ledger.spent)
        await asyncio.gather(*(one(number, kept, ledger) for number in range(120)))
        await ledger.flush()
        total = ledger.usage([])[0]
        await ledger.close()
        assert sum(used) <= 1.0 + over + 1e-6
        assert total["requests"] == 120
        assert abs(total["money"] - sum(used)) < 1e-9
        assert total["refused"] == 120 - len(used)

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
