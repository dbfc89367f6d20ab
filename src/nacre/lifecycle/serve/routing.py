"""Which models answer for a name: the model itself, or those of a declared route, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nacre.lifecycle.serve import errors
from nacre.lifecycle.serve.contract import Ability, Backend, Call, Caller, Json, Refusal, Reply
from nacre.lifecycle.serve.state.keys import may_ask

_PASSING = frozenset({408, 425, 429})  # another model may answer; so it may after any 5xx


class Table:
    """The models and the routes."""

    def __init__(self, backends: Mapping[str, Backend], routes: Mapping[str, Sequence[str]]) -> None:
        self.backends = dict(backends)
        self._routes = {name: tuple(models) for name, models in routes.items()}

    def visible(self, caller: Caller) -> list[str]:
        """The names that a caller may ask for, models first."""
        return [name for name in (*self.backends, *self._routes) if may_ask(caller, name)]

    def owners(self, name: str) -> tuple[str, ...]:
        """The models behind a name."""
        return self._routes.get(name, (name,))

    def find(self, caller: Caller, name: str) -> tuple[Backend, ...]:
        """The backends for a name, in order; raises Refusal (404) for an unknown one and for one out of scope alike."""
        if (name not in self.backends and name not in self._routes) or not may_ask(caller, name):
            raise errors.no_model(name, self.visible(caller))
        return tuple(self.backends[one] for one in self.owners(name))

    def able(self, call: Call, backends: Sequence[Backend]) -> tuple[Backend, ...]:
        """Those that have all abilities a call needs; raises Refusal (400) naming the missing one where none has."""
        needed = list(needs(call))
        able = tuple(one for one in backends if all(ability in one.abilities for ability, _ in needed))
        if not able:
            missing = next(pair for pair in needed if pair[0] not in backends[0].abilities)
            raise errors.unable(backends[0].name, *missing)
        return able


def needs(call: Call) -> Iterator[tuple[Ability, str | None]]:
    """The abilities that a call needs, with the field that asks for each."""
    yield call.route, "model"
    if call.stream:
        yield "stream", "stream"
    if call.route in ("chat", "completions"):
        for name in ("tools", "functions"):
            if call.body.get(name):
                yield "tools", name
        form = call.body.get("response_format")
        if isinstance(form, dict) and form.get("type") not in (None, "text"):
            yield "json_schema", "response_format"


def may_pass_on(refusal: Refusal) -> bool:
    """Whether a failure is the model's, so that a route's next one may answer; a bad request is bad everywhere."""
    return refusal.status >= 500 or refusal.status in _PASSING


async def ask_in_order(call: Call, backends: Sequence[Backend], asked: Sequence[Backend]) -> Reply:
    """The answer of the first backend that gives one. A header says who was passed over, and who answered.

    `asked` is the whole declared order, of which `backends` are able to answer.
    """
    passed = [one.name for one in asked if one not in backends]
    for place, backend in enumerate(backends):
        try:
            reply = await backend.answer(call)
        except Refusal as refusal:
            if place == len(backends) - 1 or not may_pass_on(refusal):
                raise
            passed.append(backend.name)
            continue
        if earlier := [name for name in passed if _before(name, backend, asked)]:
            reply.headers["x-nacre-failover"] = ",".join([*earlier, backend.name])
        return reply
    raise AssertionError("unreachable: the last backend answers or raises")


def _before(name: str, backend: Backend, asked: Sequence[Backend]) -> bool:
    names = [one.name for one in asked]
    return names.index(name) < names.index(backend.name)


def estimate(body: Json, raw: bytes, default: int) -> tuple[int, int]:
    """Tokens to reserve before an answer is known: read (four bytes each) and written (what the request allows)."""
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    written = most if isinstance(most, int) and not isinstance(most, bool) and 0 < most <= 10_000_000 else default
    choices = body.get("n")
    return len(raw) // 4 + 1, written * (choices if isinstance(choices, int) and 1 < choices <= 128 else 1)
