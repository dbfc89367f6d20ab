"""The semantic cache: an answer to a question that says nearly the same, for those who asked for that.

A hit needs the same model, caller, instructions, earlier turns and parameters, and a last question whose vector is near
enough. Nearness alone does not do: vectors hardly tell 30 from 31 or `is` from `is not`. So what decides must be equal
too, by rule and in English as in Chinese: numbers however they are written, negations, opposites, names in capitals and
codes, in the same order. The rules err towards asking again. What they cannot know (two products, two cities) rests on
the threshold: docs/serve-local.md says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacre.lifecycle.serve.contract import Call, Refusal
from nacre.lifecycle.serve.sameness import may_be_same

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
Embed = Callable[[str], Awaitable[Sequence[float]]]
_LONGEST = 2000  # characters of a question: longer ones differ in ways that one vector does not show
_PENDING = 4096


@dataclass(frozen=True)
class SemanticConfig:
    """`model` embeds the questions; `threshold` is the cosine from which two may be the same; `entries` are kept."""

    model: str
    threshold: float = 0.95
    entries: int = 10_000


@dataclass(frozen=True)
class Near:
    """A question that was asked before: where its answer lies, and how near it is."""

    key: bytes
    cosine: float


@dataclass
class _Asked:
    """A question with its vector (D,), of length 1."""

    text: str
    vector: NDArray[np.float32]
    key: bytes


class Semantic:
    """Questions asked before, by their frame: all of a request but its last question. The oldest make room."""

    def __init__(self, config: SemanticConfig, embed: Embed) -> None:
        self.config, self._embed = config, embed
        self._frames: OrderedDict[bytes, list[_Asked]] = OrderedDict()
        self._count = 0
        self._pending: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    async def find(self, call: Call, scope: str, identity: str) -> Near | None:
        """The nearest question that may be the same; None where there is none."""
        asked = framed(call, scope, identity)
        if asked is None:
            return None
        frame, text = asked
        vector = await self._vector(text)
        if vector is None:
            return None
        self._pending[call.id] = vector
        while len(self._pending) > _PENDING:
            self._pending.popitem(last=False)
        before = self._frames.get(frame)
        if not before:
            return None
        self._frames.move_to_end(frame)
        return await asyncio.to_thread(self._nearest, list(before), text, vector)

    async def add(self, call: Call, scope: str, identity: str, key: bytes) -> None:
        """Remembers the question of a call whose answer was kept under `key`."""
        asked = framed(call, scope, identity)
        vector = self._pending.pop(call.id, None)
        if asked is None:
            return
        if vector is None:
            vector = await self._vector(asked[1])
        if vector is None:
            return
        questions = self._frames.setdefault(asked[0], [])
        self._frames.move_to_end(asked[0])
        questions.append(_Asked(asked[1], vector, key))
        self._count += 1
        while self._count > self.config.entries:
            oldest = next(iter(self._frames))
            self._frames[oldest].pop(0)
            self._count -= 1
            if not self._frames[oldest]:
                del self._frames[oldest]

    def _nearest(self, before: list[_Asked], text: str, vector: NDArray[np.float32]) -> Near | None:
        import numpy as np

        cosines = np.stack([one.vector for one in before]) @ vector
        for place in np.argsort(-cosines, kind="stable"):
            cosine = float(cosines[place])
            if not cosine >= self.config.threshold:
                return None
            if may_be_same(before[place].text, text):
                return Near(before[place].key, min(cosine, 1.0))
        return None

    async def _vector(self, text: str) -> NDArray[np.float32] | None:
        """(D,), of length 1; None where the model that embeds fails, which is logged: the answer is then asked for."""
        import numpy as np

        try:
            found = np.asarray(await self._embed(text), dtype=np.float32)
        except Refusal as refusal:
            _log.warning("the semantic cache is passed by: its model answered %d (%s)", refusal.status, refusal.code)
            return None
        length = float(np.linalg.norm(found))
        if found.ndim != 1 or not np.isfinite(length) or not length:
            _log.warning("the semantic cache is passed by: its model gave no vector")
            return None
        return found / np.float32(length)


def framed(call: Call, scope: str, identity: str) -> tuple[bytes, str] | None:
    """What a request is besides its last question, as a digest, and that question; None where it has none to compare.

    Requests with tools, pictures or other parts have none: what they ask is not in one text.
    """
    from nacre.lifecycle.serve.cache import canonical, meaning

    messages = call.body.get("messages")
    if call.route != "chat" or not isinstance(messages, list) or not messages or call.body.get("tools"):
        return None
    last = messages[-1]
    text = last.get("content") if isinstance(last, dict) and last.get("role") == "user" else None
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        return None
    rest: dict[str, Any] = {**call.body, "messages": [*messages[:-1], {**last, "content": None}]}
    return hashlib.sha256(canonical([identity, scope, meaning(rest)])).digest(), text


def embedder_of(answer: Callable[[str], Awaitable[bytes]]) -> Embed:
    """An `Embed` from whatever gives the body of `/v1/embeddings` for a text."""

    async def embed(text: str) -> Sequence[float]:
        found = json.loads(await answer(text))["data"][0]["embedding"]
        return [float(one) for one in found]

    return embed
