"""Everything that watches the gateway behind one object: it is the gateway's `Meters`, and starts and ends the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nacre.lifecycle.serve.contract import Entry
from nacre.lifecycle.serve.watch.alerts import Alerter, Budgets
from nacre.lifecycle.serve.watch.config import WatchConfig
from nacre.lifecycle.serve.watch.families import Counter
from nacre.lifecycle.serve.watch.logs import RequestLog
from nacre.lifecycle.serve.watch.meters import Metrics
from nacre.lifecycle.serve.watch.sharing import Sharing
from nacre.lifecycle.serve.watch.traces import Traces
from nacre.lifecycle.serve.workers import Place


class Watch:
    """Metrics, log, alerts and traces. `models` are the configured names; `budgets` says what keys have used.

    `traces.wrap(application)` goes around the application, `traces.client()` into the upstreams' client sessions.
    Of several workers (`place`) the first one runs the alerter, for all of them.
    """

    def __init__(
        self, config: WatchConfig, models: Iterable[str], budgets: Budgets | None = None, place: Place | None = None
    ) -> None:
        self.meters = Metrics(models)
        self.log = RequestLog(config.log)
        self.alerter = Alerter(config.alerts, budgets)
        self.traces = Traces(config.traces)
        self._alerts = bool(config.alerts.webhooks)
        self._judges = self._alerts and (place is None or place.slot == 0)
        reads = self.meters.reads
        reads("nacre_alerts_firing", "Alerts that are open.", lambda: len(self.alerter.firing))
        reads("nacre_alert_messages_total", "Alert messages brought.", lambda: self.alerter.webhooks.sent, "counter")
        reads(
            "nacre_alert_messages_dropped_total", "Alert messages given up.",
            lambda: self.alerter.webhooks.dropped, "counter",
        )  # fmt: skip
        reads(
            "nacre_alert_failures_total", "Times the alerter could not look.", lambda: self.alerter.failures, "counter"
        )
        reads("nacre_log_lines_dropped_total", "Log lines that were lost.", lambda: self.log.dropped, "counter")
        reads("nacre_workers", "Processes that answer.", lambda: 1)
        self._restarts = Counter("nacre_worker_restarts_total", "Workers that died and were begun again.")
        self.meters.add(self._restarts)
        self._place = place
        self._sharing = None if place is None else Sharing(place, self.meters, self.alerter)

    def ended(self, entry: Entry) -> None:
        """Takes a request that is over."""
        asked = self.meters.label(entry.asked)
        self.meters.ended(entry)
        self.log.ended(entry, asked)
        if self._alerts and entry.outcome != "refused":
            self.alerter.ended(self.meters.label(entry.served or entry.asked), entry)
        self.traces.ended(entry, asked)

    def queued(self, model: str, waiting: int, running: int) -> None:
        """The queue of a local model as it is now."""
        self.meters.queued(model, waiting, running)

    def masked(self, kinds: Mapping[str, int]) -> None:
        """Pieces of personal data that one request had, by kind."""
        self.meters.masked(kinds)

    def upstream(self, model: str, why: str | None) -> None:
        """Whether a model can answer: None where it can, else why not."""
        self.meters.upstream(model, why)
        self.alerter.upstream(model, why)

    def render(self) -> str:
        """The text format of Prometheus."""
        return self.meters.render() if self._sharing is None else self._sharing.render()

    async def start(self) -> None:
        """Raises NacreError where the log cannot be written or a package is missing. The alerter runs with webhooks."""
        self.traces.start()
        await self.log.start()
        if self._sharing is not None and self._place is not None:
            await self._sharing.start()
            self._restarts.rows[()] = self._place.restarts  # the parent knows: one may die before it could tell
        if self._judges:
            await self.alerter.start()

    async def close(self) -> None:
        """Brings what waits, and ends."""
        await self.alerter.close()
        if self._sharing is not None:
            await self._sharing.close()
        await self.log.close()
        await self.traces.close()
