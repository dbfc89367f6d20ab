"""Laws of limits and ledger, under any interleaving of reserving and settling."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.lifecycle.serve.contract import Allowance, Caller, Entry, Refusal
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.limits import Held, MemoryLimits
from nacre.lifecycle.serve.state.usage import Spent

LIMITS = Allowance(requests_per_minute=8, tokens_per_minute=300, concurrent=4, money=3.0, tokens=2_000)
BOT = Caller("key_a", "bot", allowance=LIMITS)

waits = st.floats(0.0, 40.0).map(lambda s: ("wait", s, 0))
reserves = st.tuples(st.just("reserve"), st.integers(0, 120).map(float), st.integers(0, 200))
settles = st.tuples(st.just("settle"), st.integers(0, 3).map(float), st.just(0))
steps = st.lists(st.one_of(reserves, reserves, settles, waits), max_size=120)


async def nothing_spent(key: str, since: float | None) -> Spent:
    return Spent()


class Witness:
    """What really happened, kept without the code under test."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.running: list[tuple[Held, int, int]] = []  # held, estimate, real
        self.taken: deque[list[float]] = deque()  # [when, tokens as known now]
        self.rows: dict[int, list[float]] = {}
        self.spent_tokens = 0
        self.over = 0  # what settled calls used beyond their estimates

    def check(self) -> None:
        while self.taken and self.taken[0][0] <= self.now - 60:
            self.taken.popleft()
        assert len(self.taken) <= 8
        assert len(self.running) <= 4
        assert self.spent_tokens + sum(estimate for _, estimate, _ in self.running) <= 2_000 + self.over
        assert sum(tokens for _, tokens in self.taken) <= 300 + self.over


@given(steps)
@settings(max_examples=150, deadline=None)
def test_no_interleaving_passes_a_limit_by_more_than_what_is_in_flight(
    script: Sequence[tuple[str, float, int]],
) -> None:
    witness = Witness()
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
        account = kept._accounts.get(BOT.id)
        while witness.running:
            await settle(0)
        if account is not None:
            assert (account.running, account.held_tokens, account.spent_tokens) == (0, 0, witness.spent_tokens)
            assert abs(account.held_money) < 1e-9

    async def reserve(estimate: int, real: int) -> None:
        try:
            held = await kept.reserve(BOT, estimate, estimate / 1000)
        except Refusal:
            return
        row = [witness.now, float(estimate)]
        witness.taken.append(row)
        witness.rows[id(held)] = row
        witness.running.append((held, estimate, real))

    async def settle(index: int) -> None:
        held, estimate, real = witness.running.pop(index)
        await held.settle(real, real / 1000)
        await held.settle(real, real / 1000)
        witness.rows[id(held)][1] = float(real)
        witness.spent_tokens += real
        witness.over += max(0, real - estimate)

    asyncio.run(run())


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_many_tasks_at_once_keep_the_budget_and_the_ledger_sums_to_what_was_used(seed: int) -> None:
    rng = random.Random(seed)
    bot = Caller("key_a", "bot", allowance=Allowance(money=1.0, concurrent=6))
    used: list[float] = []
    in_flight = 0

    async def one(number: int, kept: MemoryLimits, ledger: StoredLedger) -> None:
        nonlocal in_flight
        await asyncio.sleep(rng.random() * 0.01)
        estimate = rng.choice((0.01, 0.02, 0.05))
        try:
            held = await kept.reserve(bot, 10, estimate)
        except Refusal as refusal:
            ledger.enter(row(number, "refused", refusal.status, 0.0))
            return
        in_flight += 1
        assert in_flight <= 6
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        money = estimate * rng.choice((0.5, 1.0, 1.3))
        in_flight -= 1
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
        assert sum(used) <= 1.0 + 6 * 0.05 * 0.3 + 1e-9  # six in flight, each at most 30 % over its estimate
        assert total["requests"] == 120
        assert abs(total["money"] - sum(used)) < 1e-9
        assert total["refused"] == 120 - len(used)

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
