"""The built-in alerter: looks at the last minutes every few seconds, tells webhooks what is wrong and when it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from nacre.lifecycle.serve.contract import Entry
from nacre.lifecycle.serve.tasks import stop
from nacre.lifecycle.serve.watch.config import AlertsConfig
from nacre.lifecycle.serve.watch.rules import (
    BudgetUse,
    Finding,
    Memory,
    judge_budgets,
    judge_models,
    judge_upstreams,
)
from nacre.lifecycle.serve.watch.webhooks import Webhooks
from nacre.lifecycle.serve.watch.windows import Tally, Window

_log = logging.getLogger(__name__)
Budgets = Callable[[], Awaitable[Sequence[BudgetUse]]]


@dataclass(frozen=True)
class Seen:
    """What one worker has seen lately: requests by model, and since when (monotonic) and why a model is down."""

    tallies: Mapping[str, Tally]
    down: Mapping[str, tuple[float, str]]


class Alerter:
    """Judges what happened. `budgets` says what keys have used; it is asked every `every_s`.

    `others` is what the other workers have seen, where there are any: one of them judges for all.
    """

    def __init__(
        self, config: AlertsConfig, budgets: Budgets | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._budgets, self._clock = config, budgets, clock
        self._window = Window(config.window_s)
        self._down: dict[str, tuple[float, str]] = {}
        self._memory = Memory(config)
        self._offset = time.time() - clock()
        self._task: asyncio.Task[None] | None = None
        self.webhooks = Webhooks(config)
        self.others: Sequence[Seen] = ()
        self.parts: dict[
            str, Callable[[], str | None]
        ] = {}  # of the gateway itself: None where it is well, else why not
        self.failures = 0  # looks at the budgets that did not succeed

    @property
    def firing(self) -> list[Finding]:
        """What is wrong now."""
        return self._memory.firing

    def ended(self, model: str, entry: Entry) -> None:
        """Takes a request that is over; `model` is its bounded label."""
        self._window.ended(model, entry, self._clock())

    def upstream(self, model: str, why: str | None) -> None:
        """Takes a health check: None where the model can answer."""
        if why is None:
            self._down.pop(model, None)
        else:
            since = self._down[model][0] if model in self._down else self._clock()
            self._down[model] = (since, why)

    async def start(self) -> None:
        """Begins to look; every `every_s` seconds until closed."""
        await self.webhooks.start()
        self._task = asyncio.create_task(self._run(), name="alerter")

    def seen(self) -> Seen:
        """What this worker has seen."""
        return Seen(self._window.tallies(self._clock()), dict(self._down))

    async def look(self) -> None:
        """One look: judges everything and queues what is to be told."""
        now = self._clock()
        for name, trouble in self.parts.items():
            self.upstream(name, trouble())
        seen = _together([self.seen(), *self.others])
        findings = [
            *judge_models(self._config, seen.tallies),
            *judge_upstreams(self._config, seen.down, now),
            *judge_budgets(self._config, await self._used()),
        ]
        for notice in self._memory.take(findings, now + self._offset):
            _log.warning("alert %s: %s %s", notice.status, notice.finding.rule, notice.finding.subject)
            self.webhooks.put(notice)

    async def close(self) -> None:
        """Ends the looking, brings what waits."""
        task, self._task = self._task, None
        await stop(task)
        await self.webhooks.close()

    async def _used(self) -> Sequence[BudgetUse]:
        if self._budgets is None or not self._config.budget_used:
            return ()
        return await asyncio.wait_for(self._budgets(), self._config.timeout_s)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._config.every_s)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  the outermost frame of this task: an alerter must not die
                self.failures += 1
                _log.error("the alerter could not look: %s", type(error).__name__)


def _together(several: Sequence[Seen]) -> Seen:
    """What all of them have seen: sums of requests, and a model is down from when the first said so."""
    tallies: dict[str, Tally] = {}
    down: dict[str, tuple[float, str]] = {}
    for seen in several:
        for model, tally in seen.tallies.items():
            tallies.setdefault(model, Tally()).merge(tally)
        for model, since in seen.down.items():
            down[model] = min(since, down.get(model, since))
    return Seen(tallies, down)
