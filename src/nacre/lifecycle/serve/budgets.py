"""What the keys with budgets have used of them, for the alerter."""

from __future__ import annotations

import asyncio
import time

from nacre.lifecycle.serve.contract import Caller
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.limits import has_budget, period_start
from nacre.lifecycle.serve.watch.rules import BudgetUse


async def budgets_used(keys: KeyStore, ledger: StoredLedger) -> list[BudgetUse]:
    """Used and allowed money and tokens of every active key that has a budget, in its present period."""
    now = time.time()
    found: list[BudgetUse] = []
    for key in await asyncio.to_thread(keys.list):
        if key.state(now) == "active" and has_budget(key.caller.allowance):
            found += await _of(key.caller, ledger, now)
    return found


async def _of(caller: Caller, ledger: StoredLedger, now: float) -> list[BudgetUse]:
    allowance = caller.allowance
    used = await ledger.spent(caller.id, period_start(allowance, now))
    both = []
    if allowance.money is not None:
        both.append(BudgetUse(caller.id, caller.name, used.money, allowance.money, "money"))
    if allowance.tokens is not None:
        both.append(BudgetUse(caller.id, caller.name, used.tokens, allowance.tokens, "tokens"))
    return both
