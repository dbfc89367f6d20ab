"""A mock upstream on loopback: a raw asyncio protocol that answers chat completions, whole or streamed, and counts.

    python -m gateway_parts.mock PORT [--faults SEED]

A body with `"stream":true` is answered with server-sent events, the usage in the last but one. GET /stats tells what
was billed: requests and tokens of answers that were sent whole, GET /billed the same by request id, with the most
requests of each key that were under way at once. With faults, the number after `#` in the prompt decides
what happens (see `faults.py`), so that a run can be repeated. A whole answer is billed when its last byte is handed to
the kernel; a slow one and one that trickles when they begin, whether the gateway waits for their end or not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable

import uvloop

from gateway_parts.faults import Fault, fault_of, key_in, number_in, tokens_of

WORDS = ("Yes", ", the", " first", " answer", " is", " the", " right", " one", ".")
_JSON = b"content-type: application/json\r\n"


def whole(prompt: int, completion: int) -> bytes:
    """A chat completion as JSON."""
    return json.dumps({
        "id": "chatcmpl-mock", "object": "chat.completion", "created": 0, "model": "mock",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }).encode()  # fmt: skip


def events(prompt: int, completion: int) -> list[bytes]:
    """The same as server-sent events: one per word, the end, the usage, the mark."""

    def chunk(choices: list[dict[str, object]], **more: object) -> bytes:
        body = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 0, "model": "mock"}
        return b"data: " + json.dumps({**body, "choices": choices, **more}).encode() + b"\n\n"

    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    words = [chunk([{"index": 0, "delta": {"content": word}, "finish_reason": None}]) for word in WORDS]
    return [*words, chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]), chunk([], usage=usage),
            b"data: [DONE]\n\n"]  # fmt: skip


def response(status: str, body: bytes, headers: bytes = _JSON) -> bytes:
    """A whole HTTP response."""
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status.encode(), headers, len(body), body)


def chunked(event: bytes) -> bytes:
    """One chunk of a chunked response."""
    return b"%x\r\n%s\r\n" % (len(event), event)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PLAIN_ANSWER = response("200 OK", whole(20, len(WORDS)))
_STREAM_ANSWER = [chunked(event) for event in events(20, len(WORDS))]


class Billed:
    """What was answered whole, and what else was done."""

    def __init__(self) -> None:
        self.requests = self.prompt = self.completion = 0
        self.done: Counter[str] = Counter()
        self.tries: Counter[int] = Counter()
        self.by_id: dict[str, tuple[int, int]] = {}
        self.twice: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def add(self, prompt: int, completion: int) -> None:
        """One answer that was sent whole."""
        self.requests, self.prompt, self.completion = (
            self.requests + 1, self.prompt + prompt, self.completion + completion,
        )  # fmt: skip

    def note(self, request: str, prompt: int, completion: int) -> None:
        """The same, by the id of the request."""
        if request in self.by_id:
            self.twice.append(request)
        self.by_id[request] = (prompt, completion)
        self.add(prompt, completion)

    def count(self, key: str) -> None:
        """One more request of a key is under way."""
        self.under_way[key] += 1
        self.most[key] = max(self.most[key], self.under_way[key])

    def in_full(self) -> bytes:
        """Every id, as JSON."""
        return json.dumps({"by_id": self.by_id, "twice": self.twice, "most": self.most, "done": self.done}).encode()

    def body(self) -> bytes:
        """As JSON."""
        return json.dumps(
            {"requests": self.requests, "prompt": self.prompt, "completion": self.completion, "done": self.done}
        ).encode()


class Mock(asyncio.Protocol):
    """One connection. Requests on it are answered in turn; pipelined ones too."""

    def __init__(self, billed: Billed, seed: int | None) -> None:
        self._billed, self._seed = billed, seed
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._timers: set[TimerHandle] = set()
        self._key: str | None = None  # of the request under way
        self._is_counted = False
        self._serial = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()
        self._ended()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._rest) < end + 4 + length:
                return
            body, self._rest = self._rest[end + 4 : end + 4 + length], self._rest[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get /stats"):
            self._transport.write(response("200 OK", self._billed.body()))
        elif head.startswith(b"get /billed"):
            self._transport.write(response("200 OK", self._billed.in_full()))
        elif head.startswith(b"get"):
            self._transport.write(response("200 OK", b'{"object":"list","data":[{"id":"mock","object":"model"}]}'))
        elif self._seed is None:
            self._plainly(body)
        else:
            self._at_random(head, body, self._seed)

    def _plainly(self, body: bytes) -> None:
        self._billed.add(20, len(WORDS))
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(_PLAIN_ANSWER)
            return
        self._transport.write(STREAM_HEAD + _STREAM_ANSWER[0])
        for event in _STREAM_ANSWER[1:-1]:
            self._transport.write(event)
        self._transport.write(_STREAM_ANSWER[-1] + b"0\r\n\r\n")

    # --- with faults

    def _at_random(self, head: bytes, body: bytes, seed: int) -> None:
        number, request = number_in(body), head.partition(b"x-request-id:")[2].partition(b"\r\n")[0].strip().decode()
        self._began(key_in(body))
        stream = b'"stream":true' in body or b'"stream": true' in body
        self._billed.tries[number] += 1  # a declared route asks again: another fate
        fault = fault_of(number, seed + self._billed.tries[number], stream)
        self._billed.done[fault] += 1
        prompt, completion = tokens_of(number)
        if fault == "none":
            self._billed.note(request, prompt, completion)
            self._give(stream, prompt, completion)
        elif fault == "slow":
            self._billed.note(request, prompt, completion)
            self._later(0.7, lambda: self._give(stream, prompt, completion))
        elif fault == "reset":
            self._transport.abort()
        elif fault == "stall":
            pass  # says nothing: the gateway's patience ends it
        elif fault == "429":
            self._say(response("429 Too Many Requests", b'{"error":{"message":"slow down"}}',
                               _JSON + b"retry-after: 1\r\n"))  # fmt: skip
        elif fault == "500":
            self._say(response("500 Internal Server Error", b"oops", b"content-type: text/plain\r\n"))
        elif fault == "garbage":
            self._say(response("200 OK", b"\x00\xff<html>{not json"))
        elif fault == "no_http":
            self._transport.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            self._transport.close()
        elif fault == "trickle":
            self._billed.note(request, prompt, completion)
            self._trickle([chunked(one) for one in events(prompt, completion)])
        else:
            self._halfway(fault, prompt, completion)

    def _halfway(self, fault: Fault, prompt: int, completion: int) -> None:
        """A stream that begins well."""
        begun = events(prompt, completion)[:4]
        self._transport.write(STREAM_HEAD + b"".join(chunked(event) for event in begun))
        if fault == "cut":
            self._later(0.02, self._transport.abort)
        elif fault == "early_end":  # a proper end of the response, without the mark
            self._say(b"0\r\n\r\n")
        # "hang": says nothing more

    def _trickle(self, left: list[bytes], head: bytes = STREAM_HEAD) -> None:
        """A good stream whose events come one by one: time to leave in its middle."""
        if len(left) == 1:
            self._say(left[0] + b"0\r\n\r\n")
        elif not self._transport.is_closing():
            self._transport.write(head + left[0])
            self._later(0.08, lambda: self._trickle(left[1:], b""))

    def _give(self, stream: bool, prompt: int, completion: int) -> None:
        """A whole answer."""
        if stream:
            sent = b"".join(chunked(event) for event in events(prompt, completion))
            self._say(STREAM_HEAD + sent + b"0\r\n\r\n")
        else:
            self._say(response("200 OK", whole(prompt, completion)))

    def _began(self, key: str) -> None:
        """A request of a key is under way. It is counted a moment later: a connection that the gateway gives up is
        closed when its event loop comes round, which may be after its next request."""
        self._key, self._serial, serial = key, self._serial + 1, self._serial + 1
        self._later(0.25, lambda: self._count(serial, 2))

    def _count(self, serial: int, rounds: int) -> None:
        """Counts the request, if it is still under way after some rounds of the loop: they hear what was closed."""
        if self._key is None or self._serial != serial:
            return
        if rounds:
            self._later(0.001, lambda: self._count(serial, rounds - 1))
        else:
            self._is_counted = True
            self._billed.count(self._key)

    def _say(self, data: bytes) -> None:
        """The last of an answer."""
        self._ended()
        self._transport.write(data)

    def _ended(self) -> None:
        if self._key is not None and self._is_counted:
            self._billed.under_way[self._key] -= 1
        self._key, self._is_counted = None, False

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._timers = {timer for timer in self._timers if timer.when() > self._loop.time()}
        self._timers.add(self._loop.call_later(seconds, work))


async def serve(port: int, seed: int | None) -> None:
    """Answers until SIGTERM."""
    billed, loop, stop = Billed(), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Mock(billed, seed), "127.0.0.1", port, backlog=1024)
    async with server:
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--faults", type=int)
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.port, chosen.faults))
