"""A search's own allowance of requests, and what it has been told already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nacre.engine.base import BaseEngine
from nacre.engine.protocol import BudgetReached, Embedded, Engine, Generation, OnToken, Prompt, Sampling, Usage


class AllowanceUsed(BudgetReached):
    """The search has asked all that it may; the budget of the whole command is another matter."""


class Allowance(BaseEngine):
    """An engine that may be asked `requests` times; one prompt, or one batch of texts, is one request.

    Answers from the cache count as well: a search that is run again takes the same turns, and pays nothing for them.
    """

    def __init__(self, inner: Engine, requests: int) -> None:
        super().__init__(inner.name, inner.identity, inner.capabilities)
        self.inner, self.requests, self.asked = inner, requests, 0

    @property
    def left(self) -> int:
        """Requests that may still be asked."""
        return self.requests - self.asked

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        """The engine's answers; raises AllowanceUsed, before anything is sent, where they would be too many."""
        self._take(len(prompts))
        return self.inner.generate(prompts, how, on_token=on_token)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The engine's vectors, as one request."""
        self._take(1)
        return self.inner.embed(texts)

    def _take(self, n: int) -> None:
        if n > self.left:
            raise AllowanceUsed(
                f"the search may ask {self.requests} times and has asked {self.asked}",
                remedy="raise budget_requests: what was answered is kept",
            )
        self.asked += n


class Remembered(BaseEngine):
    """An engine whose vectors are asked for once per text, `batch` new texts at a time."""

    def __init__(self, inner: Engine, batch: int) -> None:
        super().__init__(inner.name, inner.identity, inner.capabilities)
        self.inner, self.batch, self.truncated, self.model = inner, batch, 0, inner.name
        self._known: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of `texts`. `truncated` stays 0 here: `self.truncated` counts each text once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), self.batch):
            part = new[start : start + self.batch]
            found = self.inner.embed(part)
            self._known |= dict(zip(part, found.vectors, strict=True))
            self.truncated += found.truncated
            self.model = found.model
        return Embedded(np.stack([self._known[text] for text in texts]), self.model, Usage())

    def forget(self, texts: Sequence[str]) -> None:
        """Frees the vectors of texts that will not be compared again."""
        for text in texts:
            self._known.pop(text, None)
