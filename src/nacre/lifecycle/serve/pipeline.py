"""One request through the gateway: key, scope, masking, limits, cache, route, answer, settlement, entry.

Each part stands behind its protocol. Whatever happens, a request that began is settled and entered exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from nacre.lifecycle.serve import errors
from nacre.lifecycle.serve.config import ServeConfig
from nacre.lifecycle.serve.contract import (
    ANYONE,
    ASGI,
    Answers,
    Backend,
    Call,
    Caller,
    Entry,
    Keys,
    Ledger,
    Limits,
    Meters,
    Outcome,
    Refusal,
    Reply,
    Reservation,
    Route,
    Usage,
)  # fmt: skip
from nacre.lifecycle.serve.health import Health
from nacre.lifecycle.serve.origins import refuse_foreign
from nacre.lifecycle.serve.routing import Table, ask_in_order, estimate, may_pass_on
from nacre.lifecycle.serve.state.pricing import PriceList
from nacre.lifecycle.serve.upstream_errors import UpstreamRefusal
from nacre.lifecycle.serve.wire import read_json

_UNBILLED: tuple[Outcome, ...] = ("refused", "upstream_error")


class Covered(Protocol):
    """What masking did to one call: how much it found, and the way back."""

    @property
    def found(self) -> int: ...

    def restore(self, reply: Reply) -> Reply: ...


class Cover(Protocol):
    """Masks calls. Raises Refusal where the policy blocks; None where nothing was to be done."""

    async def cover(self, call: Call) -> Covered | None: ...


class Service(Protocol):
    """What runs beside the requests, such as the alerter."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Parts:
    """What the gateway is made of, beside its models."""

    keys: Keys
    ledger: Ledger
    limits: Limits
    meters: Meters
    prices: PriceList
    answers: Answers | None = None
    cover: Cover | None = None
    services: tuple[Service, ...] = ()
    wrap: Callable[[ASGI], ASGI] = lambda application: application  # goes around the application: traces


@dataclass
class Passage:
    """One request under way, and what is known of it so far."""

    id: str
    began: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.time)
    route: str = ""
    caller: Caller | None = None
    call: Call | None = None
    asked: str = ""
    models: tuple[Backend, ...] = ()  # behind the name that was asked for, in their order
    reply: Reply | None = None
    reservation: Reservation | None = None
    estimate: tuple[int | None, float | None] = (None, None)  # what was reserved: tokens, money
    covered: Covered | None = None
    outcome: Outcome = "failed"
    status: int = 500
    first_token_s: float | None = None
    is_over: bool = False  # settled and entered

    def refused(self, refusal: Refusal) -> None:
        """Notes how it ended: an upstream that fails is told apart from a request that is bad, whoever says so."""
        self.status = refusal.status
        is_theirs = isinstance(refusal, UpstreamRefusal) or refusal.kind == "upstream_error"
        if is_theirs and may_pass_on(refusal):
            self.outcome = "upstream_error"
        else:
            self.outcome = "failed" if refusal.kind == "server_error" else "refused"


class Gateway:
    """The models and the parts, started and closed together."""

    def __init__(self, config: ServeConfig, table: Table, parts: Parts, closing: AsyncExitStack | None = None) -> None:
        self.config, self.table, self.parts = config, table, parts
        self._closing = closing or AsyncExitStack()
        self.health = Health(table.backends, parts.meters)
        self.started = False

    @property
    def wants_key(self) -> bool:
        """Whether a request without a key is refused: configured, keys are kept, or others can reach us."""
        required = self.config.keys.required
        return bool(self.parts.keys) or not self.config.listen.is_loopback if required is None else required

    def admit(self, headers: dict[str, str]) -> Caller:
        """Whoever asks; raises Refusal: 401 without a good key, 403 for another page where none is asked for."""
        if not self.wants_key:
            refuse_foreign(headers)
            return ANYONE
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
        if not secret:
            raise errors.no_key()
        caller = self.parts.keys.find(secret)
        if caller is None:
            raise errors.wrong_key()
        return caller

    def read(self, passage: Passage, route: Route, caller: Caller, raw: bytes, headers: dict[str, str]) -> Call:
        """The call in a body; raises Refusal for what is no request."""
        body = read_json(raw, self.config.bounds.nesting)
        model, stream = body.get("model"), body.get("stream")
        if not isinstance(model, str) or not model:
            raise errors.wrong_field("model", "model is missing: name one of GET /v1/models")
        if stream is not None and not isinstance(stream, bool):
            raise errors.wrong_field("stream", "stream is true or false")
        if not isinstance(body.get("stream_options"), dict | None):
            raise errors.wrong_field("stream_options", "stream_options is an object")
        check_fields(route, body)
        passage.models = self.table.find(caller, model)
        passage.asked = model
        total = max(self._total(one) for one in passage.models)
        passage.call = Call(
            passage.id, route, caller, model, body, raw, bool(stream), passage.began, passage.began + total, headers
        )
        return passage.call

    def _total(self, backend: Backend) -> float:
        model = self.config.models.get(backend.name)
        if model is not None and model.upstream is not None:
            return model.upstream.timeouts.total_s
        return model.local.total_s if model is not None and model.local is not None else 600.0

    async def answer(self, passage: Passage) -> Reply:
        """The reply to a call that was read: masked, limited, from the cache or from a model, restored."""
        call = passage.call
        assert call is not None  # `read` came before
        self.parts.ledger.room()
        able = self.table.able(call, passage.models)
        if self.parts.cover is not None:
            passage.covered = await self.parts.cover.cover(call)
        await self._reserve(passage, call, able[0])
        reply = await self.parts.answers.get(call) if self.parts.answers is not None else None
        if reply is None:
            reply = await ask_in_order(call, able, passage.models)
            if self.parts.answers is not None:
                await self.parts.answers.put(call, reply)  # a stream is kept once it has ended well
        else:
            reply.cached = True
        passage.reply = reply  # whose usage is settled: restoring changes the text only
        return passage.covered.restore(reply) if passage.covered is not None else reply

    async def _reserve(self, passage: Passage, call: Call, first: Backend) -> None:
        read, written = estimate(call.body, call.raw, self.config.state.estimate_tokens)
        if call.route not in ("chat", "completions"):
            written = 0
        money = self.parts.prices.estimate(first.name, read, written, embedding=call.route == "embeddings")
        passage.reservation = await self.parts.limits.reserve(call.caller, read + written, money)
        passage.estimate = read + written, money

    async def end(self, passage: Passage) -> None:
        """Settles and enters a request, however it ended; once. Entered even where settling fails."""
        if passage.is_over:
            return
        passage.is_over = True
        seconds = time.monotonic() - passage.began
        money, tokens = self._bill(passage, seconds)
        try:
            if passage.reservation is not None:
                await passage.reservation.settle(tokens, money)
        finally:
            entry = entry_of(passage, money, tokens, seconds)
            self.parts.ledger.enter(entry)
            self.parts.meters.ended(entry)

    def _bill(self, passage: Passage, seconds: float) -> tuple[float | None, int | None]:
        """Money and tokens of a passage: nothing where no answer was begun or the cache answered, else what it used.

        A client that leaves before the answer has begun leaves both unknown: the upstream may bill it all the same.
        """
        reply, call = passage.reply, passage.call
        if call is None or reply is None:
            unknown = call is not None and passage.reservation is not None and passage.outcome not in _UNBILLED
            return (None, None) if unknown else (0.0, 0)
        if reply.cached:
            return 0.0, 0
        counts = [one for one in (reply.usage.prompt, reply.usage.completion) if one is not None]
        money = self.parts.prices.money(
            reply.model, reply.usage, passage.outcome, seconds=seconds, embedding=call.route == "embeddings"
        )
        return money, sum(counts) if counts else None

    async def start(self) -> None:
        """Starts every model; raises NacreError where one can never answer, and closes what was started."""
        try:
            for service in self.parts.services:
                self._closing.push_async_callback(service.close)
                await service.start()
            for backend in self.table.backends.values():
                await backend.start()
            self._closing.push_async_callback(self.health.close)
            await self.health.start()
        except BaseException:
            await self.close()
            raise
        self.started = True

    async def close(self) -> None:
        """Closes every model and every part, in the opposite order of their making."""
        self.started = False
        await self._closing.aclose()


def entry_of(passage: Passage, money: float | None, tokens: int | None, seconds: float) -> Entry:
    """The line of the ledger for a request that has ended; None is a usage that stays unknown."""
    call, reply = passage.call, passage.reply
    usage = reply.usage if reply is not None else Usage()
    ours = [one for one in usage.ours or () if one is not None]
    return Entry(
        passage.id, passage.at, passage.caller.id if passage.caller else "", call.route if call else passage.route,
        passage.asked, reply.model if reply else None, passage.outcome, passage.status,
        usage.prompt, usage.completion, usage.counted_by, sum(ours) if ours else None, money, seconds,
        passage.first_token_s, reply.cached if reply else False,
        passage.covered.found if passage.covered is not None else 0,
        passage.estimate[0] if tokens is None else None, passage.estimate[1] if money is None else None,
    )  # fmt: skip


def check_fields(route: Route, body: dict[str, object]) -> None:
    """The one field that each route cannot do without; an upstream checks the rest itself."""
    if route == "chat" and not (isinstance(body.get("messages"), list) and body["messages"]):
        raise errors.wrong_field("messages", "messages is a list with at least one message")
    if route == "completions" and not isinstance(body.get("prompt"), str | list):
        raise errors.wrong_field("prompt", "prompt is a text or a list of texts")
    if route in ("embeddings", "classify") and not isinstance(body.get("input"), str | list):
        raise errors.wrong_field("input", "input is a text or a list of texts")
    if route == "search" and not isinstance(body.get("query"), str):
        raise errors.wrong_field("query", "query is a text")
