"""Brings notices to webhooks: a bounded queue and one worker each, retries with backoff, no redirects, no private
machines unless allowed. An address or a secret is in no log: webhooks are called by their name in the config."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from nacre.engine.retry_after import seconds_to_wait
from nacre.lifecycle.serve.addresses import GuardedResolver
from nacre.lifecycle.serve.tasks import stop
from nacre.lifecycle.serve.watch.config import AlertsConfig, WebhookConfig, address_of, secret_of
from nacre.lifecycle.serve.watch.notices import message, refused_by
from nacre.lifecycle.serve.watch.rules import Notice

_log = logging.getLogger(__name__)
_ANSWER_BYTES = 64 * 1024
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Failed(Exception):
    """A message that did not arrive. `again` says whether another try makes sense, `after` when, in seconds."""

    def __init__(self, why: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(why)
        self.again, self.after = again, after


class Webhook:
    """One receiver and its queue."""

    def __init__(self, name: str, config: WebhookConfig, alerts: AlertsConfig) -> None:
        self.name, self._config, self._alerts = name, config, alerts
        self._address, self._secret = address_of(config), secret_of(config)
        self._waiting: deque[Notice] = deque()
        self._wake = asyncio.Event()
        self.sent = self.dropped = 0
        self._busy = False

    def __repr__(self) -> str:
        return f"Webhook({self.name!r})"

    @property
    def host(self) -> str:
        """The machine it is on."""
        return (urlsplit(self._address).hostname or "").lower()

    @property
    def is_idle(self) -> bool:
        """Whether everything was brought or given up."""
        return not self._waiting and not self._busy

    def put(self, notice: Notice) -> None:
        """Queues a notice. Where the queue is full the oldest is dropped: the newest says how things are."""
        if len(self._waiting) >= self._alerts.queue:
            self._waiting.popleft()
            self._drop("its queue is full")
        self._waiting.append(notice)
        self._wake.set()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Brings notices until it is cancelled."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            self._busy = True
            try:
                await self._bring(session, self._waiting.popleft())
            finally:
                self._busy = False

    async def _bring(self, session: aiohttp.ClientSession, notice: Notice) -> None:
        for attempt in range(self._alerts.attempts):
            try:
                await self._post(session, notice)
            except _Failed as failure:
                if not failure.again or attempt + 1 == self._alerts.attempts:
                    self._drop(str(failure))
                    return
                await asyncio.sleep(self._pause(attempt, failure.after))
            else:
                self.sent += 1
                return

    async def _post(self, session: aiohttp.ClientSession, notice: Notice) -> None:
        one = message(notice, self._config.format, self._config.language, self._secret, time.time())
        joined = "&" if "?" in self._address else "?"
        url = URL(f"{self._address}{joined}{one.query}" if one.query else self._address, encoded=True)
        headers = {"Content-Type": "application/json", **one.headers}
        try:
            async with session.post(url, data=one.body, headers=headers, allow_redirects=False) as answer:
                body = await answer.content.read(_ANSWER_BYTES)
                status, after = answer.status, answer.headers.get("Retry-After")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _Failed(type(error).__name__, again=True) from None  # its text holds the address
        if status >= 300:
            raise _Failed(f"it answers {status}", again=status in _TRY_AGAIN, after=seconds_to_wait(after))
        if why := refused_by(self._config.format, body):
            raise _Failed(why, again=False)

    def _pause(self, attempt: int, after: float | None) -> float:
        longest = self._alerts.longest_backoff_s
        wait = self._alerts.backoff_s * 2**attempt * random.uniform(0.5, 1.0)
        return float(min(longest, max(wait, after or 0.0)))

    def _drop(self, why: str) -> None:
        self.dropped += 1
        _log.warning("alert webhook %r: a message was given up: %s", self.name, why)


class Webhooks:
    """All receivers. `start` before `put`; `close` gives what waits `drain_s` seconds."""

    def __init__(self, config: AlertsConfig) -> None:
        self._config = config
        self.hooks = [Webhook(name, one, config) for name, one in config.webhooks.items()]
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def dropped(self) -> int:
        """Messages that were given up."""
        return sum(hook.dropped for hook in self.hooks)

    @property
    def sent(self) -> int:
        """Messages that arrived."""
        return sum(hook.sent for hook in self.hooks)

    async def start(self) -> None:
        """Opens the client and one worker per receiver; nothing without receivers."""
        if not self.hooks:
            return
        private = {
            hook.host: one.allow_private for hook, one in zip(self.hooks, self._config.webhooks.values(), strict=True)
        }
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=GuardedResolver(private), limit=4 * len(self.hooks)),
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        self._tasks = [asyncio.create_task(hook.run(self._session), name=f"webhook {hook.name}") for hook in self.hooks]

    def put(self, notice: Notice) -> None:
        """Tells every receiver."""
        for hook in self.hooks:
            hook.put(notice)

    async def close(self, drain_s: float = 5.0) -> None:
        """Waits for what is under way, then ends the workers."""
        end = asyncio.get_running_loop().time() + drain_s
        while self._tasks and asyncio.get_running_loop().time() < end and not all(one.is_idle for one in self.hooks):
            await asyncio.sleep(0.02)
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*(stop(task) for task in tasks))
        if self._session is not None:
            await self._session.close()
            self._session = None
