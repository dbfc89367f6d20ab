"""What passes between the parts of the gateway: the caller, the call, the reply, its entry in the ledger.

Money is in the currency of the price list; None is unknown, never zero. Times are seconds; clocks are monotonic save
`Entry.at`, which is Unix time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Json = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
CALLER = "nacre.caller"  # in a scope that a mount hands on: the Caller it has let in. No client can set it.

Route = Literal["chat", "completions", "embeddings", "classify", "search"]
ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/embeddings": "embeddings",
    "/v1/classify": "classify", "/v1/search": "search",
}  # fmt: skip
Ability = Literal["chat", "completions", "embeddings", "classify", "search", "stream", "tools", "json_schema"]
Outcome = Literal["ok", "refused", "upstream_error", "cut_short", "client_left", "failed"]


class Refusal(Exception):
    """A request that is not answered, in OpenAI's shape. `message` says what to change and quotes nothing of a prompt.

    `kind` is OpenAI's `type` (`invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error`,
    `insufficient_quota`, `not_found_error`, `upstream_error`, `server_error`), `code` a word of ours.
    """

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", code: str | None = None,
        param: str | None = None, retry_after: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param
        self.retry_after = retry_after

    def body(self) -> Json:
        """`{"error": {...}}`."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Allowance:
    """What a key may use; None is no limit. Rates are per minute; budgets over the key's life or `per` day or month."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    money: float | None = None
    tokens: int | None = None
    per: Literal["life", "day", "month"] = "life"


@dataclass(frozen=True)
class Caller:
    """Whoever holds a key. `models`: names or `*` patterns it may ask for. `id` is public, the secret is not kept."""

    id: str
    name: str
    models: tuple[str, ...] = ("*",)
    allowance: Allowance = Allowance()
    expires_at: float | None = None
    is_admin: bool = False


ANYONE = Caller("anyone", "no key is asked for")  # on loopback without keys


@dataclass(frozen=True)
class Usage:
    """Tokens read and written, None where nobody counted. `ours` is what we counted where the upstream counted too."""

    prompt: int | None = None
    completion: int | None = None
    counted_by: Literal["upstream", "tokenizer", "nobody"] = "nobody"
    ours: tuple[int | None, int | None] | None = None


@dataclass
class Call:
    """A request on its way. `body` is the parsed request, which masking may replace; `raw` its bytes as they came.

    `model` is what was asked for. `deadline` is monotonic.
    """

    id: str
    route: Route
    caller: Caller
    model: str
    body: Json
    raw: bytes
    stream: bool
    began: float
    deadline: float
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Reply:
    """An answer. Either `body` is whole, or `events` yields the bytes of a stream as they come (server-sent events).

    `model` names who really answered. `usage` is known once the body is whole or the events have ended: a backend sets
    it before it ends the iteration. `headers` are passed on.
    """

    model: str
    status: int = 200
    body: bytes | None = None
    events: AsyncIterator[bytes] | None = None
    usage: Usage = Usage()
    headers: dict[str, str] = field(default_factory=dict)
    cached: bool = False
    truncated: bool = False  # the stream ended without its end mark: an error event was sent in its place


class Backend(Protocol):
    """Answers calls for one model. A call it cannot answer raises Refusal; so does an upstream that fails before its
    first byte (status 502, 503, 504 or the upstream's own 4xx and 429, its body passed on in `message`)."""

    @property
    def name(self) -> str: ...

    @property
    def abilities(self) -> frozenset[Ability]: ...

    async def start(self) -> None:
        """Opens what it needs; raises NacreError where it cannot ever answer (missing folder, bad address)."""
        ...

    async def answer(self, call: Call) -> Reply: ...

    async def healthy(self) -> str | None:
        """None where it can answer, else why not, in words."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: who asked for what, what it used and how it ended. Never a text.

    `estimated_*`: what its budget was charged with where the usage stayed unknown; in no sum of usage.
    """

    id: str
    at: float
    key: str
    route: str
    asked: str
    served: str | None
    outcome: Outcome
    status: int
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    counted_by: str = "nobody"
    our_tokens: int | None = None
    money: float | None = None
    seconds: float = 0.0
    first_token_s: float | None = None
    cached: bool = False
    masked: int = 0
    estimated_tokens: int | None = None
    estimated_money: float | None = None


class Ledger(Protocol):
    """Keeps entries. `enter` returns at once; what it took is on disk after `flush`, within a second otherwise.

    `room` is asked before a call is answered: it raises Refusal (503) while entries wait for a database that is down.
    `trouble` says why it cannot be written, while it cannot.
    """

    trouble: str | None

    def enter(self, entry: Entry) -> None: ...

    def room(self) -> None: ...

    async def flush(self) -> None: ...

    async def close(self) -> None: ...

    def usage(self, by: Sequence[str], since: float | None = None, until: float | None = None) -> list[Json]:
        """Sums grouped by `key`, `model`, `day` (UTC), `outcome`: requests, tokens, money (None where any is unknown,
        with `unpriced` requests counted), cached, refused."""
        ...


class Keys(Protocol):
    """Keys by their hashed secret."""

    def find(self, secret: str) -> Caller | None:
        """The caller, or None; expired and revoked ones raise Refusal (401) with the reason. Timing tells nothing."""
        ...

    def holder(self, caller_id: str) -> tuple[Caller, str] | None:
        """The caller of an id, with a mark of its present secret; None for an unknown id, Refusal (401) as above."""
        ...

    def __bool__(self) -> bool:
        """Whether there are any keys."""
        ...


class Reservation(Protocol):
    """What a call holds of its caller's allowance, until it is settled. Settling twice does nothing."""

    async def settle(self, tokens: int | None, money: float | None) -> None: ...


class Limits(Protocol):
    """Holds callers to their allowances. A reserved call counts at once, with `tokens` and `money` as its estimate."""

    async def reserve(self, caller: Caller, tokens: int, money: float | None) -> Reservation:
        """Raises Refusal 429 (with retry_after) for rates and concurrency, 402 for budgets."""
        ...

    async def close(self) -> None: ...


class Answers(Protocol):
    """The cache of answers. Keyed by model, request and, unless configured, the caller's key."""

    async def get(self, call: Call) -> Reply | None: ...

    async def put(self, call: Call, reply: Reply) -> None: ...


class Meters(Protocol):
    """Counts what happened, for Prometheus and the alerter."""

    def ended(self, entry: Entry) -> None: ...

    def queued(self, model: str, waiting: int, running: int) -> None: ...

    def masked(self, kinds: Mapping[str, int]) -> None:
        """Pieces of personal data that one request had, by kind."""
        ...

    def upstream(self, model: str, why: str | None) -> None:
        """Whether a model can answer: None where it can, else why not, as `Backend.healthy` says it."""
        ...

    def render(self) -> str:
        """The text format of Prometheus."""
        ...
