"""Any model behind an OpenAI-compatible address: chat, completions, embeddings, scores where offered, streaming."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nacre.engine.base import BaseEngine, Portions, spread
from nacre.engine.cached import key_of
from nacre.engine.protocol import (
    Capabilities,
    Embedded,
    EngineError,
    Generation,
    OnToken,
    Prompt,
    Sampling,
    Score,
    Timing,
    Unsupported,
    Usage,
)
from nacre.engine.settings import ENGINE_FILE, read_engine_file, settings_of
from nacre.errors import ConfigError, UsageError
from nacre.lazy import require

if TYPE_CHECKING:
    from nacre.engine.room import EngineRoom

OFFERS = ("chat", "complete", "score", "embed", "stream")
Out = TypeVar("Out")
Json = dict[str, Any]


@dataclass(frozen=True)
class HttpSettings:
    """`engine.json` of an upstream. `offers` says what it can do; an upstream is never tried out for it.

    The key is in the environment variable `key_variable`; over plain http it is sent to this machine only, unless
    `insecure`. `extra` is added to every request as it is; `max_tokens_name` is `max_completion_tokens` for upstreams
    that want that. `batch`: texts per request for embeddings; `concurrency`: requests at a time.
    """

    address: str
    model: str
    key_variable: str | None = None
    offers: tuple[str, ...] = ("chat", "embed")
    name: str | None = None
    concurrency: int = 8
    batch: int = 64
    context: int | None = None
    dimensions: int | None = None
    insecure: bool = False
    max_tokens_name: str = "max_tokens"
    extra: Mapping[str, Any] = field(default_factory=dict)
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 120.0
    attempts: int = 5
    total_s: float = 300.0
    backoff_s: float = 0.5

    def __post_init__(self) -> None:
        for name in ("concurrency", "batch", "attempts", "connect_timeout_s", "read_timeout_s", "total_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{ENGINE_FILE}: {name} is {getattr(self, name)}", remedy="give a number above 0")
        for one in self.offers:
            if one not in OFFERS:
                raise ConfigError(f"{ENGINE_FILE}: offers {one!r}", remedy=f"some of: {', '.join(OFFERS)}")
        if not self.model:
            raise ConfigError(f"{ENGINE_FILE}: the model has no name", remedy="such as http://HOST/v1#MODEL")


def open_openai_http(folder: Path, room: EngineRoom) -> BaseEngine:
    """The upstream that `engine.json` describes, its key taken from the environment."""
    where = str(folder / ENGINE_FILE)
    settings = settings_of(read_engine_file(folder), HttpSettings, where)
    return OpenAIHttp(settings, key_from(settings.key_variable))


def key_from(variable: str | None) -> str | None:
    """The key in an environment variable; raises UsageError naming the variable, never its value."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"the environment variable {variable} holds no key", remedy=f"export {variable}=...")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"the key in {variable} has characters that no key has", remedy=f"set {variable} again")
    return key


class OpenAIHttp(BaseEngine):
    """An upstream by address and model. What it says of itself is kept: `Generation.model` is the name in its reply."""

    def __init__(self, settings: HttpSettings, key: str | None = None, *, identity: str | None = None) -> None:
        require("urllib3")
        from nacre.engine.http_client import HttpClient, Patience, check_address, is_loopback

        url = check_address(settings.address)
        if key and url.scheme == "http" and not is_loopback(url) and not settings.insecure:
            raise ConfigError(
                f"the key would travel to {url.host} over plain http, readable on the way",
                remedy='use https, or set "insecure": true where the network is your own',
            )
        self.settings = settings
        self.portions = Portions(1, 1, settings.batch, settings.concurrency)
        address = settings.address.rstrip("/")
        offers = dict.fromkeys(settings.offers, True)
        extra = f"+{key_of('extra', '', dict(settings.extra)).hex()[:12]}" if settings.extra else ""
        super().__init__(
            settings.name or f"{settings.model} at {url.host}",
            identity or f"openai_http/1:{address}#{settings.model}{extra}",
            Capabilities(**offers, context=settings.context, dimensions=settings.dimensions),
        )
        patience = Patience(**{name: getattr(settings, name) for name in asdict(Patience())})
        self._client = HttpClient(
            address, key, patience, connections=settings.concurrency, key_name=settings.key_variable or ""
        )
        self._dimensions = settings.dimensions

    def __repr__(self) -> str:
        return f"OpenAIHttp({self.settings.address}#{self.settings.model})"

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def ping(self) -> None:
        """Raises EngineError where the address cannot be reached; asks for the list of models, which costs nothing."""
        from nacre.engine.http_client import BadRequest, Transient

        try:
            self._client.get("/models")
        except BadRequest as error:
            if error.status in (401, 403):
                raise
        except Transient as error:
            raise EngineError(f"{self.settings.address}: {error}", remedy="check that the server runs") from error

    # --- the verbs

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        """One request per prompt, `concurrency` at a time."""
        self.require_prompts(prompts, on_token)
        numbered = list(enumerate(prompts))
        return spread(lambda one: self._write(one[0], one[1], how, on_token), numbered, self.settings.concurrency)

    def _write(self, number: int, prompt: Prompt, how: Sampling, on_token: OnToken | None) -> Generation:
        from nacre.engine.http_client import BadRequest
        from nacre.engine.openai_wire import Reply, read_answer, writing_body

        body = writing_body(self.settings.model, prompt, how, self.settings.max_tokens_name) | dict(self.settings.extra)
        path = "/completions" if isinstance(prompt, str) else "/chat/completions"
        began, first = time.perf_counter(), None
        try:
            if on_token is None:
                reply, retries = self._call(path, body, read_answer)
            else:
                hear = _Listener(number, on_token)
                reply, retries = self._client.persist(lambda: self._streamed(path, body, hear))
                first = None if hear.first is None else hear.first - began
        except BadRequest as error:
            if error.code != "content_filter":
                raise
            reply, retries = Reply("", "filtered", None, Usage(requests=1), "content_filter"), 0
        if reply.finish is None:
            self.remark("the upstream does not say why its answers end")
        usage = _with_retries(reply.usage, retries)
        timing = Timing(time.perf_counter() - began, first, retries)
        return Generation(reply.text, reply.stopped, self._model(reply.model), usage, timing)

    def _streamed(self, path: str, body: Json, hear: _Listener) -> Any:
        from nacre.engine.http_client import Transient
        from nacre.engine.openai_wire import Malformed, read_stream

        try:
            events = self._client.events(path, body | {"stream": True, "stream_options": {"include_usage": True}})
            for piece in read_stream(events):
                if not isinstance(piece, str):
                    return piece
                hear(piece)
        except (Malformed, Transient) as error:
            if hear.first is None:
                raise Transient(str(error)) from error
            raise EngineError(
                f"{self.settings.address}: {error}, after a part of the answer was given on",
                remedy="ask again: an answer that was begun cannot be repeated unseen",
            ) from error
        raise AssertionError("unreachable")

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Log-probabilities of echoed prompts: one completion of no tokens per pair."""
        self.require("score")
        return spread(self._score, pairs, self.settings.concurrency)

    def _score(self, pair: tuple[Prompt, str]) -> Score:
        from nacre.engine.openai_wire import read_score, usage_of

        prompt, text = pair
        if not isinstance(prompt, str):
            raise Unsupported(
                f"{self.name} cannot score answers to messages: only completions echo",
                remedy="give a plain text, or a model that runs here",
            )
        body = {"model": self.settings.model, "prompt": prompt + text, "max_tokens": 0, "temperature": 0}
        body |= {"echo": True, "logprobs": 1} | dict(self.settings.extra)
        began = time.perf_counter()
        reply, retries = self._call(
            "/completions", body, lambda reply: (*read_score(reply, prompt, text), reply.get("model"), usage_of(reply))
        )
        value, tokens, model, usage = reply
        timing = Timing(time.perf_counter() - began, None, retries)
        return Score(value, tokens, self._model(model), _with_retries(usage, retries), timing)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """`batch` texts per request, `concurrency` requests at a time."""
        self.require("embed")
        import numpy as np

        if not texts:
            return Embedded(np.zeros((0, self._dimensions or 0), np.float32), self.settings.model)
        began, size = time.perf_counter(), self.settings.batch
        parts = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        answers = spread(self._embed, parts, self.settings.concurrency)
        total = Usage()
        for _, _, usage, _, _ in answers:
            total = total + usage
        cut = tuple(part * size + row for part, answer in enumerate(answers) for row in answer[4])
        timing = Timing(time.perf_counter() - began, None, sum(answer[3] for answer in answers))
        vectors = np.concatenate([answer[0] for answer in answers])
        return Embedded(vectors, answers[-1][1], total, timing, len(cut), cut)

    def _embed(self, texts: list[str]) -> Any:
        from nacre.engine.openai_wire import Malformed, read_vectors, usage_of

        body = {"model": self.settings.model, "input": texts, "encoding_format": "float"} | dict(self.settings.extra)

        def read(reply: Json) -> Any:
            vectors, cut = read_vectors(reply, len(texts)), reply.get("truncated")
            if self._dimensions not in (None, vectors.shape[1]):
                raise Malformed(f"its embeddings have {vectors.shape[1]} dimensions, not {self._dimensions}")
            self._dimensions = vectors.shape[1]
            places = [one for one in cut if isinstance(one, int)] if isinstance(cut, list) else []
            return vectors, reply.get("model"), usage_of(reply), places

        (vectors, model, usage, cut), retries = self._call("/embeddings", body, read)
        return vectors, self._model(model), _with_retries(usage, retries), retries, cut

    # --- inside

    def _call(self, path: str, body: Json, read: Callable[[Json], Out]) -> tuple[Out, int]:
        """A request until it is answered; a reply that is not what its format promises is an error at once."""
        from nacre.engine.openai_wire import Malformed

        def once() -> Out:
            reply = self._client.post(path, body)
            try:
                return read(reply)
            except Malformed as error:
                raise EngineError(
                    f"{self.settings.address}{path}: the reply cannot be used: {error}",
                    remedy="check that the address speaks OpenAI's format, and that the model can do what is asked",
                ) from error

        return self._client.persist(once)

    def _model(self, given: Any) -> str:
        """The name in a reply; another model's is remarked."""
        from nacre.engine.openai_wire import is_same_model

        if not isinstance(given, str) or not given:
            self.remark("the upstream does not name the model that answers")
            return self.settings.model
        if not is_same_model(self.settings.model, given):
            self.remark(f"asked for {self.settings.model}, answered by {given}")
        return given


@dataclass
class _Listener:
    """Hands pieces of one answer on, and remembers when the first came."""

    number: int
    on_token: OnToken
    first: float | None = None

    def __call__(self, piece: str) -> None:
        if self.first is None:
            self.first = time.perf_counter()
        self.on_token(self.number, piece)


def _with_retries(usage: Usage, retries: int) -> Usage:
    """Failed attempts were sent as well; what they cost is not known, and nobody charges for them as a rule."""
    return Usage(usage.prompt_tokens, usage.completion_tokens, usage.requests + retries, usage.counted_by)
