"""The cache of a config: what its section says, and what answers for a model."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from nacre.errors import ConfigError, closest
from nacre.lifecycle.serve.cache import AnswerCache, CacheConfig
from nacre.lifecycle.serve.config import ServeConfig
from nacre.lifecycle.serve.contract import ANYONE, Backend, Call, Json
from nacre.lifecycle.serve.semantic import Semantic, embedder_of
from nacre.recipe.config import Problem, raise_problems, try_build

_EMBEDDING_S = 10.0  # patience with the model that embeds questions


def read_section(section: Mapping[str, Any], where: str = "cache") -> CacheConfig:
    """The section `cache`; raises ConfigError with every mistake."""
    config, problems = try_build(CacheConfig, dict(section), where)
    if config is not None:
        for name in ("memory_bytes", "longest_bytes", "keep_s", "file_bytes"):
            if getattr(config, name) <= 0:
                problems.append(Problem(f"{where}.{name}", "is not above 0", "give a number above 0"))
        if config.semantic is not None and not 0.5 <= config.semantic.threshold <= 1:
            what = f"{config.semantic.threshold} is no threshold"
            problems.append(Problem(f"{where}.semantic.threshold", what, "a cosine from 0.5 to 1; 0.95 is usual"))
    raise_problems(problems)
    assert config is not None  # no problems means built
    return config


def open_cache(config: ServeConfig, backends: Mapping[str, Backend]) -> AnswerCache:
    """The cache that a config describes, over the models that it names. Raises ConfigError."""
    section = read_section(config.cache)
    semantic = None
    if section.semantic is not None:
        name = section.semantic.model
        if name not in backends:
            raise ConfigError(f"cache.semantic.model: unknown model {name!r}", remedy=closest(name, backends))
        backend = backends[name]

        async def answer(text: str) -> bytes:
            reply = await backend.answer(_embedding(name, text))
            return reply.body or b""

        semantic = Semantic(section.semantic, embedder_of(answer))

    def identify(model: str) -> str | None:
        return identity_of(model, config, backends)

    return AnswerCache(section, identify, semantic)


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
