"""The engine: one way to talk to any model, local or remote, in three verbs: generate, score, embed.

Synchronous and batch-wise. What an engine can do is declared in `capabilities`; a call that it cannot do raises
`Unsupported` with a remedy, never a silent substitute. Every answer carries what it used, how long it took, and the
name of the model that really answered. A contract suite holds every engine of the catalogue to this page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

from nacre.errors import InputError, NacreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Verb = Literal["chat", "complete", "score", "embed"]
Stopped = Literal["end", "length", "stop", "refused", "filtered"]


class Unsupported(InputError):
    """The engine cannot do what was asked: the capability is not declared."""


class EngineError(NacreError):
    """An engine failed for good: a bad request, a model that is not there, or retries used up. `status` is HTTP's.

    `sent` counts the requests that went out before it gave up.
    """

    sent: int = 0

    def __init__(self, message: str, *, remedy: str, status: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status

    @property
    def blames_the_request(self) -> bool:
        """Whether this one request is at fault, and another may be answered: malformed, too long, or filtered."""
        return self.status in (400, 413, 422)


class BudgetReached(NacreError):
    """Money, tokens, requests or seconds are used up. What was answered before is kept in the cache of answers."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


# A plain text is continued (`complete`); messages are answered (`chat`).
Prompt = str | tuple[Message, ...]


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do. `context` is in tokens; `dimensions` those of its embeddings; None where unknown."""

    chat: bool = False
    complete: bool = False
    score: bool = False
    embed: bool = False
    stream: bool = False
    context: int | None = None
    dimensions: int | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens read and written. `counted_by` says whose count it is; None where nobody counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    requests: int = 0
    counted_by: Literal["upstream", "tokenizer", "nobody"] = "nobody"
    cached: bool = False  # answered from the cache: nothing was sent, nothing was paid

    def __add__(self, other: Usage) -> Usage:
        """Sums; unknown plus anything is unknown, save that a usage without requests adds nothing."""
        if not self.requests:
            return other
        if not other.requests:
            return self
        counted = self.counted_by if self.counted_by == other.counted_by else "nobody"
        return Usage(
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
            self.requests + other.requests,
            counted,
            self.cached and other.cached,
        )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


@dataclass(frozen=True)
class Timing:
    """Seconds from the call to the last token, to the first one where it was streamed, and spent on failed attempts."""

    seconds: float = 0.0
    first_token_s: float | None = None
    retries: int = 0


@dataclass(frozen=True)
class Sampling:
    """How to write. Temperature 0 is greedy. An engine that cannot honour a setting raises `Unsupported`."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Generation:
    """A written answer. `model` is the name that the upstream gave for itself; `stopped` is why it ended."""

    text: str
    stopped: Stopped
    model: str
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True)
class Score:
    """How likely a continuation is: the sum of log-probabilities (nats, base e) of its tokens, and their number."""

    log_probability: float
    tokens: int
    model: str
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True)
class Embedded:
    """Vectors (N, D) in float32, one per text, in the order of the texts; not normalised unless the model does it.

    `truncated` counts texts of which the model read only the beginning; `cut` are their places, where known.
    """

    vectors: NDArray[np.float32]
    model: str
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    truncated: int = 0
    cut: tuple[int, ...] = ()


OnToken = Callable[[int, str], None]


@runtime_checkable
class Engine(Protocol):
    """One way to talk to any model.

    `name` is what reports call it. `identity` is stable over processes and machines, and covers everything that can
    change an answer (address and model, or the digest of a folder): the key of caches. Thread-safe.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        """One answer per prompt, in order. `on_token(i, text)` is called with pieces as they come, where `stream`."""
        ...

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """How likely each continuation is after its prompt."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """A vector per text."""
        ...

    def close(self) -> None:
        """Ends what the engine started (connections, a loopback server). Calling it twice does no harm."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *details: object) -> None: ...


def unsupported(engine: Engine, verb: Verb) -> Unsupported:
    """The error for a verb that `engine` does not declare."""
    able = [one for one in ("chat", "complete", "score", "embed") if getattr(engine.capabilities, one)]
    return Unsupported(
        f"{engine.name} cannot {verb} (it can: {', '.join(able) or 'nothing'})",
        remedy=f"give an engine that can {verb}",
    )
