"""What every engine here shares: undeclared verbs refuse, remarks are said once, closing does no harm.

An engine of the catalogue subclasses `BaseEngine` and overrides the verbs that it declares.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self, TypeVar

from nacre.engine.protocol import (
    Capabilities,
    Embedded,
    Generation,
    OnToken,
    Prompt,
    Sampling,
    Score,
    Unsupported,
    Verb,
    unsupported,
)

_log = logging.getLogger(__name__)
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Portions:
    """How a long batch is cut into requests: prompts, pairs and texts per request, and requests at a time."""

    generate: int = 1
    score: int = 1
    embed: int = 64
    workers: int = 1


@dataclass(frozen=True)
class TokenScore:
    """A token of a text: where it starts, and its log-probability (nats) after all before it; None where nothing is."""

    text: str
    start: int
    log_probability: float | None


class BaseEngine:
    """An engine without any verb. `remarks` are oddities a person should know, each said once; `noted` counts them.

    `in_process` says that it can be put behind a loopback server, `priced_by_time` that what it costs is this machine's
    time, not tokens. `echoes` says that `token_scores` works.
    """

    portions = Portions()
    in_process = False
    priced_by_time = False
    echoes = False

    def __init__(self, name: str, identity: str, capabilities: Capabilities) -> None:
        self.name, self.identity, self.capabilities = name, identity, capabilities
        self.remarks: list[str] = []
        self.noted: Counter[str] = Counter()
        self._noting = threading.Lock()

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        """Refuses: no engine writes unless it says how."""
        raise unsupported(self, "complete")

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Refuses."""
        raise unsupported(self, "score")

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Refuses."""
        raise unsupported(self, "embed")

    def token_scores(self, text: str) -> list[TokenScore]:
        """The tokens of a whole text with their log-probabilities: what a completion with `echo` gives."""
        raise unsupported(self, "score")

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def require(self, verb: Verb) -> None:
        """Raises Unsupported unless `verb` is declared."""
        if not getattr(self.capabilities, verb):
            raise unsupported(self, verb)

    def require_prompts(self, prompts: Sequence[Prompt], on_token: OnToken | None = None) -> None:
        """Raises Unsupported unless plain texts can be continued, messages answered, and pieces streamed, as asked."""
        for prompt in prompts:
            self.require("complete" if isinstance(prompt, str) else "chat")
        if on_token is not None and not self.capabilities.stream:
            raise Unsupported(f"{self.name} cannot stream", remedy="ask without on_token: answers then come whole")

    def remark(self, text: str) -> None:
        """Counts an oddity, and says it the first time."""
        with self._noting:
            self.noted[text] += 1
            if self.noted[text] > 1:
                return
            self.remarks.append(text)
        _log.warning("%s: %s", self.name, text)


def spread(call: Callable[[In], Out], items: Sequence[In], workers: int) -> list[Out]:
    """`call` of each item on up to `workers` threads, in order of the items.

    After the first error no further item is begun; what is under way ends, then that error is raised.
    """
    if workers <= 1 or len(items) <= 1:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="engine") as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
        done = [future for future in futures if not future.cancelled()]
        for future in done:
            if (error := future.exception()) is not None:
                raise error
        return [future.result() for future in futures]
