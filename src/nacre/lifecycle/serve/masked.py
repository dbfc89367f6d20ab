"""Personal data in requests: masked on the way out and restored in the answer, or refused, as each route's policy says.

Every string of a request is looked into but those that steer it (model, role, type, ids). Tool arguments are JSON in a
string: they are read, masked value by value and written again, and values are escaped when they come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from nacre.data.masking import KINDS, Masker, Policy, Tagger
from nacre.data.masking.policy import Action
from nacre.errors import ConfigError, closest
from nacre.lazy import named
from nacre.lifecycle.serve.contract import ROUTES, Call, Json, Meters, Refusal, Reply
from nacre.lifecycle.serve.masked_events import EventRestorer, json_escape
from nacre.recipe.config import Problem, raise_problems, try_build

_log = logging.getLogger(__name__)

STEERING = frozenset(("model", "role", "type", "id", "tool_call_id", "detail", "encoding_format", "format", "object"))
ARGUMENTS = "arguments"
_OPAQUE_TYPES = frozenset(("image_url", "input_image", "input_audio", "file", "input_file", "video_url"))
_DEEPEST = 64
_IN_THREAD = 64 * 1024  # bytes of a request beyond which it does not hold up the event loop


@dataclass(frozen=True)
class MaskingConfig:
    """The section `masking` of the gateway's config: a policy for all requests, others for single routes.

    `routes`: a served model's name or an API route (`chat`, `embeddings`, ...) -> the policy that holds there instead;
    the model's name counts before the route. `tagger`: `module:name` of a callable that finds names and addresses.
    """

    default: Action = "mask"
    kinds: Mapping[str, Action] = field(default_factory=dict)
    opaque: Literal["allow", "block"] = "allow"
    routes: Mapping[str, Policy] = field(default_factory=dict)
    tagger: str | None = None
    _whole: Policy = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_whole", Policy(self.default, self.kinds, self.opaque))  # asked for every request

    def policy(self, call: Call) -> Policy:
        """What holds for a call."""
        return self.routes.get(call.model) or self.routes.get(call.route) or self._whole


@dataclass
class Sight:
    """What one request holds: its masker, and parts that nobody could look into."""

    masker: Masker
    opaque: int = 0


class Mask:
    """Masks calls (`cover`); what it returns restores the reply. Raises Refusal 400 for what a policy blocks."""

    def __init__(self, config: MaskingConfig, meters: Meters | None = None, tagger: Tagger | None = None) -> None:
        self.config, self._meters, self._tagger = config, meters, tagger

    @classmethod
    def from_section(
        cls, section: Mapping[str, Any], where: str, *, meters: Meters | None = None, models: tuple[str, ...] = ()
    ) -> Mask | None:
        """The mask of a config's section, None for an empty one; raises ConfigError for what is wrong with it.

        `models`: the names that are served; a policy for any other name is a mistake.
        """
        if not section:
            return None
        config, problems = read_masking(section, where, models)
        raise_problems(problems)
        assert config is not None  # no problems means built
        return cls(config, meters, _tagger(config.tagger))

    async def cover(self, call: Call) -> Covering | None:
        """Masks a call's body (and `raw` with it). None where nothing was found."""
        policy = self.config.policy(call)
        if policy.of("allow") == frozenset(KINDS) and policy.opaque == "allow":
            return None
        sight = Sight(Masker(policy, model=self._tagger))
        if self._tagger is not None or len(call.raw) > _IN_THREAD:
            body = await asyncio.to_thread(masked_body, call.body, sight)
        else:
            body = masked_body(call.body, sight)
        counts, blocked = sight.masker.counts, sight.masker.blocked
        if self._meters is not None and (counts or blocked):
            self._meters.masked(counts + blocked if blocked else counts)
        refuse(sight, policy)
        if not sight.masker.values:
            return None
        call.body, call.raw = body, orjson.dumps(body)
        return Covering(sight.masker)


class Covering:
    """One masked call: how much was found, and the way back."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker

    @property
    def found(self) -> int:
        """Pieces of personal data that were masked."""
        return self._masker.counts.total()

    @property
    def kinds(self) -> Counter[str]:
        """How many of each kind."""
        return self._masker.counts

    def restore(self, reply: Reply) -> Reply:
        """The reply with values for placeholders, whole or as a stream. Usage stays the given reply's."""
        if reply.events is not None:
            return replace(reply, events=_restored(reply.events, self._masker))
        body = None if reply.body is None else restored_body(reply.body, self._masker)
        return reply if body is reply.body else replace(reply, body=body)


def refuse(sight: Sight, policy: Policy) -> None:
    """Raises Refusal where something is blocked: kinds and counts, never a value."""
    blocked = sight.masker.blocked
    if blocked:
        listed = ", ".join(f"{KINDS[kind].words} ({count})" for kind, count in sorted(blocked.items()))
        raise Refusal(
            400, f"the request holds what this route does not accept: {listed}; remove it and send again",
            code="personal_data_blocked",
        )  # fmt: skip
    if sight.opaque and policy.opaque == "block":
        raise Refusal(
            400, f"{sight.opaque} part(s) of the request (images, audio, files, token ids) cannot be looked into for "
            "personal data, which this route requires; send text", code="opaque_blocked",
        )  # fmt: skip


def masked_body(body: Json, sight: Sight) -> Json:
    """The body of a request with placeholders; the given one stays as it is."""
    return {key: value if key in STEERING else _masked(value, key, sight, 0) for key, value in body.items()}


def _masked(value: Any, key: str, sight: Sight, depth: int) -> Any:
    if isinstance(value, str):
        if key == ARGUMENTS:
            return _masked_arguments(value, sight)
        if value.startswith("data:") and ";base64," in value[:128]:
            return value
        return sight.masker.mask(value)
    if isinstance(value, list):
        if value and key in ("input", "prompt") and _is_ids(value):
            sight.opaque += 1
            return value
        return [_masked(one, key, sight, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") in _OPAQUE_TYPES:
        sight.opaque += 1
        if value["type"] in ("input_audio", "file", "input_file"):
            return value
    return {name: one if name in STEERING else _masked(one, name, sight, depth + 1) for name, one in value.items()}


def _is_ids(value: list[Any]) -> bool:
    first = value[0]
    return isinstance(first, int) or (isinstance(first, list) and bool(first) and isinstance(first[0], int))


def _masked_arguments(text: str, sight: Sight) -> str:
    """Tool arguments: JSON in a string. What is no JSON is masked as the text that it is."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return sight.masker.mask(text)
    before = len(sight.masker.values)
    masked = _masked_value(value, sight, 0)
    return text if masked == value and len(sight.masker.values) == before else orjson.dumps(masked).decode()


def _masked_value(value: Any, sight: Sight, depth: int) -> Any:
    """Any JSON value, names and numbers included: a telephone number may be a number."""
    if depth > _DEEPEST:
        raise Refusal(400, f"tool arguments are nested deeper than {_DEEPEST}; flatten them", code="too_deep")
    if isinstance(value, str):
        return sight.masker.mask(value)
    if isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
        masked = sight.masker.mask(text)
        return value if masked == text else masked
    if isinstance(value, list):
        return [_masked_value(one, sight, depth + 1) for one in value]
    if isinstance(value, dict):
        return {sight.masker.mask(name): _masked_value(one, sight, depth + 1) for name, one in value.items()}
    return value


def restored_body(body: bytes, masker: Masker) -> bytes:
    """A whole JSON answer, restored; one that is no JSON is restored as text."""
    if b"\\u" not in body and not any(name.encode() in body for name in masker.values):
        return body  # nothing to put back: a placeholder is ASCII, and no character of this body is escaped by number
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return masker.restore(body.decode("utf-8", "surrogateescape"), json_escape).encode("utf-8", "surrogateescape")
    restored = _restored_value(value, "", masker)
    return body if restored == value else orjson.dumps(restored)


def _restored_value(value: Any, key: str, masker: Masker) -> Any:
    if isinstance(value, str):
        return masker.restore(value, json_escape if key == ARGUMENTS else None)
    if isinstance(value, list):
        return [_restored_value(one, key, masker) for one in value]
    if isinstance(value, dict):
        return {name: _restored_value(one, name, masker) for name, one in value.items()}
    return value


async def _restored(events: AsyncIterator[bytes], masker: Masker) -> AsyncIterator[bytes]:
    """The events of a stream, restored as they come."""
    restorer = EventRestorer(masker)
    try:
        async for chunk in events:
            if ready := restorer.feed(chunk):
                yield ready
        if rest := restorer.end():
            yield rest
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
    if restorer.n_unread:
        _log.warning("%d events of a masked answer were too large to be read: not restored", restorer.n_unread)


def read_masking(
    section: Mapping[str, Any], where: str, models: tuple[str, ...]
) -> tuple[MaskingConfig | None, list[Problem]]:
    """The section as a config, or every mistake in it."""
    problems = _unknown_kinds(section, where)
    if problems:  # a policy would say so too, without its place
        return None, problems
    config, problems = try_build(MaskingConfig, section, where)
    if config is None:
        return None, problems
    known = {*ROUTES.values(), *models}
    problems += [
        Problem(f"{where}.routes.{name}", f"nothing is served as {name!r}", closest(name, known))
        for name in config.routes
        if name not in known
    ]
    try:
        _tagger(config.tagger)
    except ConfigError as error:
        problems.append(Problem(f"{where}.tagger", error.message, error.remedy))
    return config, problems


def _unknown_kinds(section: Mapping[str, Any], where: str) -> list[Problem]:
    places: list[tuple[str, Any]] = [(where, section)]
    if isinstance(routes := section.get("routes"), Mapping):
        places += [(f"{where}.routes.{name}", policy) for name, policy in routes.items()]
    kinds = [(f"{at}.kinds", one.get("kinds")) for at, one in places if isinstance(one, Mapping)]
    return [
        Problem(at, f"unknown key {kind!r}", closest(str(kind), KINDS))
        for at, named_kinds in kinds
        if isinstance(named_kinds, Mapping)
        for kind in named_kinds
        if kind not in KINDS
    ]


def _tagger(target: str | None) -> Tagger | None:
    if target is None:
        return None
    try:
        found = named(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the tagger {target!r} cannot be imported: {error}", remedy="module:name") from None
    if not callable(found):
        raise ConfigError(f"the tagger {target!r} cannot be called", remedy="name a function or an object")
    tagger: Tagger = found
    return tagger
