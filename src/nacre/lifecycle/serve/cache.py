"""The cache of answers: exact by default, semantic on request. Hits are marked, cost nothing, and are the caller's own.

What is kept: whole, successful answers to requests whose answer is fixed: embeddings, classes, and texts written at
temperature 0, or with a seed, for whoever gives one asks for the same answer again. OpenAI's default temperature is 1,
so a request that names none is not kept. Request headers: `cache-control: no-store` passes the cache by, `no-cache`
asks anew and keeps the new answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from nacre.lifecycle.serve.cache_store import Kept, MemoryStore, SqliteStore
from nacre.lifecycle.serve.contract import Call, Json, Reply, Usage
from nacre.lifecycle.serve.semantic import Semantic, SemanticConfig

_FORMAT = 1  # of what is hashed and kept
_LARGE = 16 * 1024  # bytes of a request beyond which hashing leaves the event loop
_PENDING = 4096  # calls whose vector is remembered until their answer is there
# Who asks and how it is accounted for; everything else, known or not, is part of the key.
_ABOUT = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier"})
# Requests that do something besides answering, or whose answer is of today.
_EFFECTS = ("store", "web_search_options", "background")
Identify = Callable[[str], str | None]
T = TypeVar("T")


@dataclass(frozen=True)
class CacheConfig:
    """The section `cache`. Sizes in bytes, times in seconds. `file` keeps answers over restarts: texts, readable to its
    owner alone. `shared` gives one caller's answers to the others. `semantic` None is none."""

    exact: bool = True
    memory_bytes: int = 64 * 2**20
    longest_bytes: int = 2**20  # of one answer
    keep_s: float = 24 * 3600.0
    file: str | None = None
    file_bytes: int = 2**30
    shared: bool = False
    semantic: SemanticConfig | None = None


@dataclass
class Counts:
    """What the cache did."""

    hits: int = 0
    near_hits: int = 0
    misses: int = 0
    kept: int = 0
    not_kept: dict[str, int] = field(default_factory=dict)  # by reason


class AnswerCache:
    """`contract.Answers`. `identify(model)` names what answers for a model, and changes whenever its answers may; where
    it gives None nothing is kept.

    `put` takes a whole reply, or one whose events were not read yet: they are recorded as they pass, and kept once
    they have ended well.
    """

    def __init__(self, config: CacheConfig, identify: Identify, semantic: Semantic | None = None) -> None:
        self.config, self.counts = config, Counts()
        self._identify, self._semantic = identify, semantic
        self._memory = MemoryStore(config.memory_bytes, config.keep_s)
        self._file = None if config.file is None else SqliteStore(Path(config.file), config.file_bytes, config.keep_s)
        self._keys: OrderedDict[str, bytes] = OrderedDict()  # by the id of the call

    async def get(self, call: Call) -> Reply | None:
        """The kept answer; None where there is none, or may be none."""
        if not self._may(call) or "no-cache" in _control(call):
            return None
        key = await self._key(call)
        if key is None:
            return None
        kept = await self._find(key)
        if kept is not None:
            self._keys.pop(call.id, None)
            self.counts.hits += 1
            return _replayed(kept, "hit")
        if self._semantic is not None:
            near = await self._semantic.find(call, self._scope(call), self._identify(call.model) or "")
            kept = None if near is None else await self._find(near.key)
            if near is not None and kept is not None:
                self.counts.near_hits += 1
                return _replayed(kept, f"semantic {near.cosine:.2f}")
        self.counts.misses += 1
        return None

    async def put(self, call: Call, reply: Reply) -> None:
        """Keeps an answer, if it may be kept and can be; counts why not."""
        if not self._may(call) or reply.cached:
            return
        if reply.events is not None:
            if reply.status == 200:
                reply.events = _Recorded(self, call, reply, reply.events)
            return
        await self._keep(call, reply, reply.body or b"", is_stream=False)

    async def close(self) -> None:
        """Writes what is to be written, and closes the file."""
        if self._file is not None:
            await self._file.close()

    async def recorded(self, call: Call, reply: Reply, data: bytes) -> None:
        """Keeps a stream that has passed whole."""
        await self._keep(call, reply, data, is_stream=True)

    @property
    def evicted(self) -> int:
        """Answers that made room for others, in memory or in the file."""
        return self._memory.evicted + (0 if self._file is None else self._file.evicted)

    @property
    def nbytes(self) -> int:
        """Bytes of the answers in memory."""
        return self._memory.nbytes

    @property
    def longest(self) -> int:
        """Bytes of the longest answer that is kept."""
        return self.config.longest_bytes

    def refuse(self, why: str) -> None:
        """Counts an answer that is not kept."""
        self.counts.not_kept[why] = self.counts.not_kept.get(why, 0) + 1

    async def _keep(self, call: Call, reply: Reply, data: bytes, *, is_stream: bool) -> None:
        why = await _off_loop(len(data), lambda: _unfit(reply, data, is_stream))
        if why is None and len(data) > self.longest:
            why = "too long"
        key = self._keys.pop(call.id, None) or await self._key(call)
        if why is not None or key is None:
            self.refuse(why or "no identity")
            return
        kept = Kept(data, is_stream, reply.model, _headers(reply), reply.usage)
        self._memory.put(key, kept)
        if self._file is not None:
            await self._file.put(key, kept)
        self.counts.kept += 1
        if self._semantic is not None:
            await self._semantic.add(call, self._scope(call), self._identify(call.model) or "", key)

    async def _find(self, key: bytes) -> Kept | None:
        kept = self._memory.get(key)
        if kept is None and self._file is not None:
            kept = await self._file.get(key)
            if kept is not None:
                self._memory.put(key, kept)
        return kept

    async def _key(self, call: Call) -> bytes | None:
        identity = self._identify(call.model)
        if identity is None:
            return None
        scope = self._scope(call)
        key = await _off_loop(len(call.raw), lambda: key_of(call.route, identity, scope, call.body))
        self._keys[call.id] = key
        while len(self._keys) > _PENDING:
            self._keys.popitem(last=False)
        return key

    def _scope(self, call: Call) -> str:
        return "" if self.config.shared else call.caller.id

    def _may(self, call: Call) -> bool:
        return self.config.exact and "no-store" not in _control(call) and is_fixed(call)


def is_fixed(call: Call) -> bool:
    """Whether the same request asks for the same answer: see the head of this file."""
    if any(call.body.get(name) for name in _EFFECTS):
        return False
    if call.route in ("embeddings", "classify"):
        return True
    if call.route not in ("chat", "completions"):
        return False
    temperature, seed = call.body.get("temperature"), call.body.get("seed")
    is_zero = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return is_zero or (isinstance(seed, int) and not isinstance(seed, bool))


def key_of(route: str, identity: str, scope: str, body: Mapping[str, Any]) -> bytes:
    """SHA-256 of everything that an answer may depend on. `scope` is the caller, or empty where answers are shared."""
    return hashlib.sha256(canonical([_FORMAT, route, identity, scope, meaning(body)])).digest()


def meaning(body: Mapping[str, Any]) -> Json:
    """A request without what does not change its answer. A null field is one that was left out.

    Only the top level is sorted later: the order within a schema or a tool may change an answer.
    """
    left = {key: value for key, value in body.items() if value is not None and key not in _ABOUT and key != "model"}
    return {key: _plain(left[key]) for key in sorted(left)}


def canonical(value: Any) -> bytes:
    """JSON with one spelling, in ASCII; lone surrogates are escaped like everything else."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _plain(value: Any) -> Any:
    """0.0 as 0, at any depth."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _control(call: Call) -> str:
    return call.headers.get("cache-control", "").lower()


async def _off_loop(size: int, work: Callable[[], T]) -> T:
    """The result of `work`, in a thread where it reads much."""
    return work() if size <= _LARGE else await asyncio.to_thread(work)


def _headers(reply: Reply) -> dict[str, str]:
    kept = ("content-type", "x-nacre-engine")
    return {name: value for name, value in reply.headers.items() if name.lower() in kept}


def _unfit(reply: Reply, data: bytes, is_stream: bool) -> str | None:
    """Why an answer is not kept; None where it may be."""
    if reply.status != 200 or reply.truncated:
        return "not successful"
    if any(name.lower() == "x-nacre-failover" for name in reply.headers):
        return "not by the first choice"
    try:
        parts = _events(data) if is_stream else [orjson.loads(data)]
    except (orjson.JSONDecodeError, ValueError):
        return "not whole"
    if parts is None or not parts:
        return "not whole"
    for part in parts:
        if not isinstance(part, dict) or part.get("error"):
            return "an error"
        for choice in part.get("choices") or ():
            if isinstance(choice, dict) and choice.get("finish_reason") == "content_filter":
                return "filtered"
    return None


def _events(data: bytes) -> list[Any] | None:
    """The events of a stream; None where its end mark is missing."""
    events: list[Any] = []
    done = False
    for event in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if not lines:
            continue
        if done:
            return None  # something after the end
        if lines == [b"[DONE]"]:
            done = True
        else:
            events.append(orjson.loads(b"\n".join(lines)))
    return events if done else None


def _replayed(kept: Kept, how: str) -> Reply:
    headers = {**kept.headers, "x-nacre-cache": how}
    usage = Usage(kept.usage.prompt, kept.usage.completion, kept.usage.counted_by)
    if kept.is_stream:
        return Reply(kept.model, events=_once(kept.data), usage=usage, headers=headers, cached=True)
    return Reply(kept.model, body=kept.data, usage=usage, headers=headers, cached=True)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


class _Recorded:
    """Events on their way to a client, kept once the last one has passed. A client that leaves keeps nothing."""

    def __init__(self, cache: AnswerCache, call: Call, reply: Reply, events: AsyncIterator[bytes]) -> None:
        self._cache, self._call, self._reply, self._inner = cache, call, reply, events
        self._parts: list[bytes] | None = []
        self._size = 0

    def __aiter__(self) -> _Recorded:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._inner)
        except StopAsyncIteration:
            parts, self._parts = self._parts, None
            if parts is not None:
                await self._cache.recorded(self._call, self._reply, b"".join(parts))
            raise
        if self._parts is not None:
            self._size += len(chunk)
            if self._size > self._cache.longest:
                self._parts = None
                self._cache.refuse("too long")
            else:
                self._parts.append(chunk)
        return chunk

    async def aclose(self) -> None:
        """Closes the source; what was recorded is dropped."""
        if self._parts is not None:
            self._parts = None
            self._cache.refuse("not whole")
        close = getattr(self._inner, "aclose", None)
        if close is not None:
            await close()
