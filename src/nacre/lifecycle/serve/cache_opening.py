"""The cache of a config: what its section says, and what answers for a model."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from nacre.errors import closest
from nacre.lifecycle.serve.cache import AnswerCache, CacheConfig
from nacre.lifecycle.serve.contract import ANYONE, Backend, Call, Json
from nacre.lifecycle.serve.semantic import Semantic, embedder_of
from nacre.lifecycle.serve.watch.meters import Metrics
from nacre.recipe.config import Problem, raise_problems, try_build

if TYPE_CHECKING:
    from nacre.lifecycle.serve.config import ServeConfig

_EMBEDDING_S = 10.0  # patience with the model that embeds questions


def read_cache(
    section: Mapping[str, Any], where: str, models: Collection[str]
) -> tuple[CacheConfig | None, list[Problem]]:
    """The section `cache` as a config, or every mistake in it. `models` are those that may embed questions."""
    config, problems = try_build(CacheConfig, dict(section), where)
    if config is None:
        return None, problems
    for name in ("memory_bytes", "longest_bytes", "keep_s", "file_bytes"):
        if not 0 < getattr(config, name) < float("inf"):
            problems.append(Problem(f"{where}.{name}", "is not above 0", "give a number above 0"))
    if (semantic := config.semantic) is not None:
        if semantic.model not in models:
            what = f"unknown model {semantic.model!r}"
            problems.append(Problem(f"{where}.semantic.model", what, closest(semantic.model, models)))
        if not 0.5 <= semantic.threshold <= 1:
            what = f"{semantic.threshold} is no threshold"
            problems.append(Problem(f"{where}.semantic.threshold", what, "a cosine from 0.5 to 1; 0.95 is usual"))
        if semantic.entries < 1:
            problems.append(Problem(f"{where}.semantic.entries", "is not above 0", "give a number above 0"))
    return config, problems


def open_cache(config: ServeConfig, backends: Mapping[str, Backend]) -> AnswerCache:
    """The cache that a config describes, over the models that it names. Raises ConfigError."""
    section, problems = read_cache(config.cache, "cache", backends)
    raise_problems(problems)
    assert section is not None  # no problems means built
    semantic = None
    if section.semantic is not None:
        name, backend = section.semantic.model, backends[section.semantic.model]

        async def answer(text: str) -> bytes:
            reply = await backend.answer(_embedding(name, text))
            return reply.body or b""

        semantic = Semantic(section.semantic, embedder_of(answer))

    def identify(model: str) -> str | None:
        return identity_of(model, config, backends)

    return AnswerCache(section, identify, semantic)


def count(cache: AnswerCache, meters: Metrics) -> None:
    """Shows what the cache does among the metrics."""
    counts = cache.counts
    for name, about, read in (
        ("misses", "Requests whose answer may be kept and was not there.", lambda: counts.misses),
        ("near_hits", "Requests answered with the answer to a question that says nearly the same.",
         lambda: counts.near_hits),
        ("kept", "Answers that were kept.", lambda: counts.kept),
        ("not_kept", "Answers that could not be kept: too long, cut short, an error.",
         lambda: sum(counts.not_kept.values())),
        ("evicted", "Answers that made room for others.", lambda: cache.evicted),
    ):  # fmt: skip
        meters.reads(f"nacre_cache_{name}_total", about, read, "counter")
    meters.reads("nacre_cache_bytes", "Bytes of the answers in memory.", lambda: cache.nbytes)


def identity_of(model: str, config: ServeConfig, backends: Mapping[str, Backend]) -> str | None:
    """What answers for a name: of a route its first model. An upstream by address and name, ours by their bytes.

    None for what has no identity yet: it has not started.
    """
    name = config.routes.get(model, (model,))[0]
    known = config.models.get(name)
    if known is None:
        return None
    if known.upstream is not None:
        return f"upstream:{known.upstream.address}#{known.upstream.model or name}"
    own = getattr(backends.get(name), "identity", None)
    return f"{name}:{own}" if isinstance(own, str) and own else None


def _embedding(model: str, text: str) -> Call:
    now = time.monotonic()
    body: Json = {"model": model, "input": text}
    return Call(f"cache-{uuid.uuid4().hex}", "embeddings", ANYONE, model, body, b"", False, now, now + _EMBEDDING_S)
