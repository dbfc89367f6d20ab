"""The gateway as an ASGI application: paths to what answers them, one passage per request, errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from nacre.errors import NacreError
from nacre.lifecycle.serve import errors, wire
from nacre.lifecycle.serve.contract import ASGI, CALLER, ROUTES, Receive, Refusal, Reply, Scope, Send
from nacre.lifecycle.serve.health import trouble_of
from nacre.lifecycle.serve.openapi import document
from nacre.lifecycle.serve.origins import is_foreign
from nacre.lifecycle.serve.pipeline import Gateway, Passage
from nacre.lifecycle.serve.state.database import Unavailable
from nacre.lifecycle.serve.wire import ClientLeft

_log = logging.getLogger(__name__)
_READ = ("/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json")
_DONE = b"data: [DONE]"
_LOOKS_S = 0.2  # how often a stop looks whether it is to be hurried
Headers = dict[str, str]
Entered = Callable[["Passage", "_Exchange"], Awaitable[None]]


class Application:
    """`application(scope, receive, send)`. `mounts` are applications of others by path prefix, such as the page: they
    see every request under it, with or without a key."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.mounts: dict[str, ASGI] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    @property
    def n_under_way(self) -> int:
        """Requests that are not answered yet."""
        return len(self._under_way)

    async def drain(self, seconds: float, is_hurried: Callable[[], bool] = lambda: False) -> int:
        """Lets what is under way end, for so many seconds or until `is_hurried`; the rest get an error event.

        Gives the number of those.
        """
        self.stopping = True
        ends = asyncio.get_running_loop().time() + seconds
        while self._under_way and not is_hurried():
            left = ends - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await asyncio.wait(set(self._under_way), timeout=min(left, _LOOKS_S))
        late = set(self._under_way)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5)
        return len(late)

    # --- one request

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        for prefix, mounted in self.mounts.items():
            if path == prefix or path.startswith(f"{prefix.rstrip('/')}/"):
                await mounted(scope, receive, send)
                return
        headers = wire.headers_of(scope)
        passage = Passage(wire.new_id(), route=path if path in ROUTES else "")
        out = {"x-request-id": wire.shown_id(headers, passage.id), "x-nacre-id": passage.id}
        exchange = _Exchange(scope, receive, send, headers, out)
        if path in ROUTES:
            await self._tracked(passage, exchange)
            return
        try:
            await self._read_only(path, exchange)
        except Refusal as refusal:
            await wire.send_refusal(send, refusal, out)
        except Exception:  # noqa: BLE001 - the outermost frame of a request
            _log.exception("request %s failed", passage.id)
            await wire.send_refusal(send, errors.fault(passage.id), out)

    async def _tracked(self, passage: Passage, exchange: _Exchange) -> None:
        """A request for a model, which a stop of the server waits for."""
        task = asyncio.current_task()
        assert task is not None  # an ASGI application runs in a task
        busy = len(self._under_way) >= self.gateway.config.bounds.in_flight
        self._under_way.add(task)
        try:
            await self._answered(passage, exchange, busy)
        finally:
            self._under_way.discard(task)

    async def _answered(self, passage: Passage, exchange: _Exchange, busy: bool) -> None:
        """Answers a request for a model, whatever happens; then it is settled and entered."""
        try:
            if self.stopping:
                raise errors.stopping()
            if busy:
                raise errors.busy(self.gateway.config.bounds.in_flight)
            await self._pass(passage, exchange)
        except Refusal as refusal:
            await self._failed(passage, exchange, refusal)
        except ClientLeft:
            passage.outcome, passage.status = "client_left", 499
        except asyncio.CancelledError:  # the server stops
            passage.outcome, passage.status = "cut_short", 503
            await exchange.refuse(errors.stopping())
        except TimeoutError:
            await self._failed(passage, exchange, errors.out_of_time(time.monotonic() - passage.began))
        except NacreError as error:
            await self._failed(passage, exchange, _of_ours(error))
        except Exception:  # noqa: BLE001 - the outermost frame of a request
            _log.exception("request %s failed", passage.id)
            await self._failed(passage, exchange, errors.fault(passage.id))
        finally:
            await self._ended(passage)

    async def _failed(self, passage: Passage, exchange: _Exchange, refusal: Refusal) -> None:
        passage.refused(refusal)
        if exchange.begun:
            passage.outcome = "cut_short"
        await exchange.refuse(refusal)

    async def _ended(self, passage: Passage) -> None:
        try:
            await self.gateway.end(passage)
        except Exception:  # noqa: BLE001 - the answer is out: what is left is to say that its entry is lost
            _log.exception("request %s could not be entered", passage.id)

    async def _entered(self, passage: Passage, exchange: _Exchange) -> None:
        """Enters a request before the last byte of its answer goes out; with `durable`, returns when it is on disk.

        Raises Refusal (503) where the disk does not take it: the answer is then withheld, or ends without its mark.
        """
        await self._ended(passage)
        if self.gateway.config.state.durable:
            try:
                await self.gateway.parts.ledger.flush()
            except Unavailable:
                exchange.done = False
                raise errors.not_kept() from None

    async def _pass(self, passage: Passage, exchange: _Exchange) -> None:
        gateway, bounds, scope = self.gateway, self.gateway.config.bounds, exchange.scope
        if scope["method"] != "POST":
            raise errors.wrong_method(scope["path"], scope["method"], "POST")
        caller = scope.get(CALLER) or gateway.admit(exchange.headers)  # before a stranger's body is read
        passage.caller = caller
        raw = await wire.read_body(exchange.receive, exchange.headers, bounds.body_bytes, bounds.body_s)
        call = gateway.read(passage, ROUTES[scope["path"]], caller, raw, exchange.headers)
        async with _Attended(exchange, max(0.0, call.deadline - time.monotonic()) + 1.0):
            reply = await gateway.answer(passage)
            exchange.out |= {"x-nacre-model": reply.model, **({"x-nacre-cache": "hit"} if reply.cached else {})}
            exchange.out |= reply.headers
            await self._send(passage, exchange, reply)

    async def _send(self, passage: Passage, exchange: _Exchange, reply: Reply) -> None:
        passage.status = reply.status
        if reply.events is None:
            passage.outcome, exchange.done = "ok", True
            await self._entered(passage, exchange)  # before the client has it
            await wire.send_body(exchange.send, reply.status, reply.body or b"", exchange.out)
            return
        await exchange.stream(passage, reply, reply.events, self._entered)

    # --- what only reads

    async def _read_only(self, path: str, exchange: _Exchange) -> None:
        is_model = path.startswith("/v1/models/")
        if path == "/" and self.mounts and "text/html" in exchange.headers.get("accept", ""):  # a browser
            exchange.out["location"] = f"{next(iter(self.mounts))}/"
            await wire.send_body(exchange.send, 307, b"", exchange.out)
            return
        if path not in _READ and not is_model:
            raise errors.no_path(path, (*ROUTES, *_READ))
        method = exchange.scope["method"]
        if method not in ("GET", "HEAD"):
            raise errors.wrong_method(path if not is_model else "/v1/models/NAME", method, "GET")
        exchange.bare = method == "HEAD"
        if path == "/healthz":
            await exchange.json(200, {"status": "ok"})
        elif path == "/readyz":
            await self._readiness(exchange)
        elif path == "/openapi.json":
            await exchange.json(200, document())
        elif path == "/metrics":
            await self._metrics(exchange)
        else:
            await self._models(path.removeprefix("/v1/models").removeprefix("/"), exchange)

    async def _readiness(self, exchange: _Exchange) -> None:
        """200 where something can answer, or there is nothing that could; 503 also while the ledger takes nothing more.
        Where no keys are asked for, for this machine: which models cannot and why, and what ails the ledger."""
        gateway = self.gateway
        down = gateway.health.down
        some_can = not gateway.table.backends or len(down) < len(gateway.table.backends)
        trouble = trouble_of(gateway.parts.ledger)
        ready = gateway.started and not self.stopping and some_can and not (trouble and trouble.refuses)
        said: dict[str, Any] = {"status": "ready" if ready else "not ready"}
        if not gateway.wants_key and not is_foreign(exchange.headers):
            said |= {"down": down, "ledger": trouble.why if trouble else None}
        await exchange.json(200 if ready else 503, said)

    async def _metrics(self, exchange: _Exchange) -> None:
        if not self.gateway.admit(exchange.headers).is_admin and self.gateway.wants_key:
            raise errors.not_admin()
        body = self.gateway.parts.meters.render().encode()
        out = {**exchange.out, "content-type": "text/plain; version=0.0.4; charset=utf-8"}
        await wire.send_body(exchange.send, 200, body, out, bare=exchange.bare)

    async def _models(self, name: str, exchange: _Exchange) -> None:
        """The models that this key may ask for; or one of them."""
        gateway = self.gateway
        visible = gateway.table.visible(self.gateway.admit(exchange.headers))
        if name and name not in visible:
            raise errors.no_model(name, visible)
        listed = [
            {"id": one, "object": "model", "created": 0, "owned_by": "nacre", "served_by": gateway.table.owners(one)}
            for one in ([name] if name else visible)
        ]
        await exchange.json(200, listed[0] if name else {"object": "list", "data": listed})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """For servers other than ours: starts and closes the gateway with them."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    if not self.gateway.started:
                        await self.gateway.start()
                except NacreError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.drain(self.gateway.config.bounds.drain_s)
                await self.gateway.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


class _Exchange:
    """One request and its response: what came, what goes out, whether it has begun."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: Headers, out: Headers) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.headers, self.out = headers, out
        self.begun = self.done = self.bare = False

    async def json(self, status: int, value: Any) -> None:
        await wire.send_json(self.send, status, value, self.out, bare=self.bare)

    async def refuse(self, refusal: Refusal) -> None:
        """A refusal as a response, or as the last event of a stream that has begun."""
        if self.done:
            return
        self.done = True
        if self.begun:
            await self.send({"type": "http.response.body", "body": b"\n\n" + wire.error_event(refusal)})
        else:
            await wire.send_refusal(self.send, refusal, self.out)

    async def stream(self, passage: Passage, reply: Reply, events: AsyncIterator[bytes], entered: Entered) -> None:
        """Sends events on as they come; closes their source whatever happens. `entered` comes before the end."""
        try:
            async for chunk in events:
                if not self.begun:
                    self.begun = True
                    passage.first_token_s = time.monotonic() - passage.began
                    start = {"cache-control": "no-store", "x-accel-buffering": "no", **self.out}
                    raw = wire.raw_headers(start)
                    await self.send({"type": "http.response.start", "status": reply.status, "headers": raw})
                if _DONE in chunk and not reply.truncated:
                    passage.outcome, self.done = "ok", True
                    await entered(passage, self)
                await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()
        source = passage.reply or reply  # restoring copies a reply; its source says how the stream ended
        passage.outcome, self.done = "cut_short" if source.truncated else "ok", True
        await entered(passage, self)
        await self.send({"type": "http.response.body", "body": b""})


class _Attended:
    """Ends its block with ClientLeft as soon as the client is gone before its answer is whole, and with TimeoutError
    once so many seconds are over. One timer and one task for both: every request pays for it."""

    def __init__(self, exchange: _Exchange, seconds: float) -> None:
        self._exchange, self._seconds = exchange, seconds
        self._why: type[Exception] | None = None

    async def __aenter__(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # an ASGI application runs in a task
        self._task = task
        self._timer = loop.call_later(self._seconds, self._end, TimeoutError)
        self._watcher = loop.create_task(self._watch())

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        self._watcher.cancel()
        if self._why is not None and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._why from None

    async def _watch(self) -> None:
        while (await self._exchange.receive())["type"] != "http.disconnect":
            pass
        if not self._exchange.done:
            self._end(ClientLeft)

    def _end(self, why: type[Exception]) -> None:
        if self._why is None:
            self._why = why
            self._task.cancel()


def _of_ours(error: NacreError) -> Refusal:
    """A model that runs here refused its input, or its machine failed: in OpenAI's shape."""
    status = 400 if error.exit_code == 2 else 500
    kind = "invalid_request_error" if status == 400 else "server_error"
    return Refusal(status, f"{error.message}; {error.remedy}", kind=kind, code="model_error")
