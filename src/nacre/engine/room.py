"""The room in which engines are opened: their cache of answers, the budget they share, and the ledger of their calls.

One room per command. Stages get it as `work.engines`; everything opened in it draws on the same budget.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from nacre.engine.prices import Prices
from nacre.engine.protocol import BudgetReached, Engine, Usage


@dataclass(frozen=True)
class Budget:
    """The most that may be spent on calls; None is no limit. Seconds are wall time since the room was opened."""

    money: float | None = None
    tokens: int | None = None
    requests: int | None = None
    seconds: float | None = None


@dataclass
class Spent:
    """What was really sent and paid so far; cached answers cost nothing. `unpriced` counts calls without a price."""

    money: float = 0.0
    tokens: int = 0
    embedded_tokens: int = 0  # of `tokens`
    written_tokens: int = 0  # of `tokens`
    requests: int = 0
    unpriced: int = 0
    uncounted: int = 0


@dataclass
class EngineRoom:
    """Opens engines. `cache` is the folder of exact answers (None: no cache); `through_http` puts local engines behind
    a loopback server, so that they are called as a stranger's would be."""

    cache: Path | None = None
    budget: Budget = field(default_factory=Budget)
    prices: Prices = field(default_factory=Prices)
    through_http: bool = True
    device: str = "cpu"
    spent: Spent = field(default_factory=Spent)
    _began: float = field(default_factory=time.monotonic)
    _under_way: int = 0
    _also_pays: EngineRoom | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def open(self, folder: Path, *, remote: bool = False) -> Iterator[Engine]:
        """The engine that a folder describes (a checkpoint, or an `engine.json`), metered and cached; then closed.

        With `remote` a local checkpoint is called over loopback HTTP where `through_http` is set.
        """
        from nacre.engine.opening import open_folder

        with open_folder(folder, self, remote=remote) as engine:
            yield engine

    def uncached(self) -> EngineRoom:
        """A room without a cache, for measuring: it draws on the same budget and keeps a ledger of its own."""
        apart = EngineRoom(None, self.budget, self.prices, self.through_http, self.device, Spent(), self._began)
        apart._also_pays = self
        return apart

    def within(self, budget: Budget) -> EngineRoom:
        """A room with the same cache and a budget of its own besides: what is spent there is spent here too."""
        apart = EngineRoom(self.cache, budget, self.prices, self.through_http, self.device)
        apart._also_pays = self
        return apart

    def check(self) -> None:
        """Raises BudgetReached, naming the limit, when nothing more may be sent."""
        if self._also_pays is not None:
            self._also_pays.check()
        with self._lock:
            self._refuse()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """One request, from before it is sent until it is paid. Raises BudgetReached as `check` does.

        Requests under way count against the budget of requests; their tokens and money are known when they end, so
        that those two may be passed by as many requests as run at once.
        """
        with self._also_pays.sending() if self._also_pays is not None else nullcontext():
            with self._lock:
                self._refuse()
                self._under_way += 1
            try:
                yield
            finally:
                with self._lock:
                    self._under_way -= 1

    def _refuse(self) -> None:
        used: dict[str, tuple[float, float | None]] = {
            "money": (self.spent.money, self.budget.money),
            "tokens": (self.spent.tokens, self.budget.tokens),
            "requests": (self.spent.requests + self._under_way, self.budget.requests),
            "seconds": (time.monotonic() - self._began, self.budget.seconds),
        }
        for name, (value, limit) in used.items():
            if limit is not None and value >= limit:
                raise BudgetReached(
                    f"the budget of {limit:g} {name} is used up ({value:.6g} spent)",
                    remedy=f"raise {name} and run again: what was answered is kept",
                )

    def pay(self, usage: Usage, *, embedding: bool = False, seconds: float | None = None) -> None:
        """Enters a call into the ledger. `seconds` says that it ran on this machine: priced by time, not by tokens."""
        if self._also_pays is not None:
            self._also_pays.pay(usage, embedding=embedding, seconds=seconds)
        if usage.cached:
            return
        here = seconds is not None
        money = self.prices.of_seconds(seconds or 0.0) if here else self.prices.of_calls(usage, embedding=embedding)
        counts = [one for one in (usage.prompt_tokens, usage.completion_tokens) if one is not None]
        with self._lock:
            self.spent.requests += usage.requests
            self.spent.tokens += sum(counts)
            self.spent.embedded_tokens += sum(counts) if embedding else 0
            self.spent.written_tokens += 0 if embedding else usage.completion_tokens or 0
            self.spent.money += money or 0.0
            self.spent.unpriced += usage.requests if money is None else 0
            self.spent.uncounted += 0 if counts else usage.requests
