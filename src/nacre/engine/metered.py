"""What a room puts around every engine: the budget before each request, the ledger after it, and the exact cache.

A batch is cut into requests (`Portions`). Each is checked, sent, paid and kept by itself, so that what was answered
before an error or the end of the budget is there the next time. Requests under way when the budget ends are finished.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from nacre.engine.base import BaseEngine, spread
from nacre.engine.cached import AnswerCache, Kept, key_of
from nacre.engine.protocol import (
    Embedded,
    EngineError,
    Generation,
    OnToken,
    Prompt,
    Sampling,
    Score,
    Timing,
    Usage,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nacre.engine.room import EngineRoom


class Metered(BaseEngine):
    """An engine within a room's budget, paid into its ledger, and answered from `cache` where it can be."""

    def __init__(self, inner: BaseEngine, room: EngineRoom, cache: AnswerCache | None = None) -> None:
        super().__init__(inner.name, inner.identity, inner.capabilities)
        self.inner, self.room, self.cache = inner, room, cache
        self.portions, self.priced_by_time = inner.portions, inner.priced_by_time
        self.remarks, self.noted = inner.remarks, inner.noted

    def close(self) -> None:
        """Closes the engine and the cache."""
        self.inner.close()
        if self.cache is not None:
            self.cache.close()

    # --- generate

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        """Answers from the cache where the temperature is 0 or a seed fixes the draws, else from the engine.

        The same prompt twice in such a batch is asked once.
        """
        self.inner.require_prompts(prompts, on_token)
        fixed = how.temperature == 0 or how.seed is not None
        keys = [key_of(self.identity, "generate", [_plain(prompt), asdict(how)]) for prompt in prompts]
        found = {key: _generation(kept) for key, kept in self._kept(keys if fixed else []).items()}
        places = self._places(keys, found, distinct=fixed)
        size = self.portions.generate

        def ask(rows: list[int]) -> None:
            heard = None if on_token is None else lambda i, piece: on_token(rows[i], piece)
            answers = self._paid(lambda: self.inner.generate([prompts[row] for row in rows], how, on_token=heard))
            for row, answer in zip(rows, answers, strict=True):
                fresh[row] = answer
            if fixed:
                self._keep([(keys[row], asdict(fresh[row]), None) for row in rows])

        fresh: dict[int, Generation] = {}
        spread(ask, _cut(places, size), self.portions.workers)
        asked = {keys[row]: replace(fresh[row], usage=replace(fresh[row].usage, cached=True)) for row in fresh}
        out = [fresh[row] if row in fresh else (found | asked)[key] for row, key in enumerate(keys)]
        for row, answer in enumerate(out):
            if on_token is not None and row not in fresh and answer.text:
                on_token(row, answer.text)
        return out

    # --- score

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Scores from the cache, else from the engine."""
        self.inner.require("score")
        keys = [key_of(self.identity, "score", [_plain(prompt), text]) for prompt, text in pairs]
        found = {key: _score(kept) for key, kept in self._kept(keys).items()}
        fresh: dict[int, Score] = {}

        def ask(rows: list[int]) -> None:
            for row, one in zip(rows, self._paid(lambda: self.inner.score([pairs[row] for row in rows])), strict=True):
                fresh[row] = one
            self._keep([(keys[row], asdict(fresh[row]), None) for row in rows])

        spread(ask, _cut(self._places(keys, found), self.portions.score), self.portions.workers)
        asked = {keys[row]: replace(fresh[row], usage=replace(fresh[row].usage, cached=True)) for row in fresh}
        return [fresh[row] if row in fresh else (found | asked)[key] for row, key in enumerate(keys)]

    # --- embed

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors from the cache, else from the engine. A request's tokens are shared out by the texts' lengths."""
        self.inner.require("embed")
        import numpy as np

        began = time.perf_counter()
        if not texts:
            return Embedded(np.zeros((0, self.capabilities.dimensions or 0), np.float32), self.name)
        keys = [key_of(self.identity, "embed", text) for text in texts]
        found = {key: kept for key, kept in self._kept(keys).items() if kept[1]}
        rows_of = {key: _vector(kept) for key, kept in found.items()}
        used = [_usage(found[key][0]["usage"], cached=True) for key in dict.fromkeys(keys) if key in found]
        cut = {key for key, (body, _) in found.items() if body["cut"]}
        models = [found[key][0]["model"] for key in keys if key in found]
        retries = 0

        def ask(rows: list[int]) -> tuple[list[int], Embedded]:
            part = [texts[row] for row in rows]
            answer = self._paid(lambda: [self.inner.embed(part)], embedding=True)[0]
            self._keep(list(_kept_vectors([keys[row] for row in rows], part, answer)))
            return rows, answer

        for rows, answer in spread(ask, _cut(self._places(keys, rows_of), self.portions.embed), self.portions.workers):
            rows_of |= {keys[row]: answer.vectors[i] for i, row in enumerate(rows)}
            cut |= {keys[rows[i]] for i in answer.cut}
            used.append(answer.usage)
            models.append(answer.model)
            retries += answer.timing.retries
        return Embedded(
            np.stack([rows_of[key] for key in keys]),
            models[-1],
            sum(used[1:], used[0]),
            Timing(time.perf_counter() - began, None, retries),
            sum(key in cut for key in keys),
            tuple(row for row, key in enumerate(keys) if key in cut),
        )

    # --- inside

    def _kept(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        return {} if self.cache is None else self.cache.get(keys)

    def _keep(self, answers: list[tuple[bytes, dict[str, Any], bytes | None]]) -> None:
        if self.cache is not None:
            self.cache.put(answers)
            for one in self.cache.remarks:
                if one not in self.remarks:
                    self.remarks.append(one)

    def _places(self, keys: Sequence[bytes], found: Any, *, distinct: bool = True) -> list[int]:
        """The rows to ask: those not found; with a cache each distinct request once."""
        missing = [row for row, key in enumerate(keys) if key not in found]
        if self.cache is None or not distinct:
            return missing
        return sorted({keys[row]: row for row in reversed(missing)}.values())

    def _paid(self, call: Any, *, embedding: bool = False) -> Any:
        """One request: within the budget, and entered into the ledger, also where it failed."""
        with self.room.sending():
            began = time.perf_counter()
            try:
                answers = call()
            except EngineError as error:
                if error.sent:
                    self._enter(Usage(requests=error.sent), embedding, began)
                raise
            total = Usage()
            for one in answers:
                total = total + one.usage
            self._enter(total, embedding, began)
            return answers

    def _enter(self, usage: Usage, embedding: bool, began: float) -> None:
        seconds = time.perf_counter() - began if self.priced_by_time else None
        self.room.pay(usage, embedding=embedding, seconds=seconds)


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _plain(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [[message.role, message.content] for message in prompt]


def _usage(plain: dict[str, Any], *, cached: bool) -> Usage:
    return Usage(**{**plain, "cached": cached})


def _generation(kept: Kept) -> Generation:
    body = kept[0]
    return Generation(body["text"], body["stopped"], body["model"], _usage(body["usage"], cached=True))


def _score(kept: Kept) -> Score:
    body = kept[0]
    return Score(body["log_probability"], body["tokens"], body["model"], _usage(body["usage"], cached=True))


def _vector(kept: Kept) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(kept[1] or b"", dtype="<f4")


def _kept_vectors(keys: list[bytes], texts: list[str], answer: Embedded) -> Any:
    """What is kept of a request for vectors: each with its share of the tokens, which add up to the whole."""
    lengths = [max(len(text), 1) for text in texts]
    total, tokens, before, given = sum(lengths), answer.usage.prompt_tokens, 0, 0
    for i, (key, length) in enumerate(zip(keys, lengths, strict=True)):
        before += length
        upto = None if tokens is None else tokens * before // total
        share = None if upto is None else upto - given
        given = upto or 0
        usage = Usage(share, 0, 1, answer.usage.counted_by)
        body = {"model": answer.model, "usage": asdict(usage), "cut": i in answer.cut}
        yield key, body, answer.vectors[i].astype("<f4").tobytes()
