"""Which way an engine is asked: what was wished, as far as the engine and the kind of task allow."""

from __future__ import annotations

from typing import Literal

from nacre.engine.protocol import Capabilities, Engine, Unsupported, unsupported
from nacre.errors import ConfigError
from nacre.metrics.quality import Kind
from nacre.tiers.relay.stages import Way

WAYS: dict[Kind, tuple[Way, ...]] = {
    "classify": ("chat", "labels", "similarity"),
    "tag": ("chat",),
    "generate": ("chat",),
    "rank": ("similarity", "chat"),
}


def in_words(way: Way, kind: Kind) -> str:
    """A way as reports call it."""
    if way == "similarity":
        return "nearness of embeddings" if kind == "rank" else "label similarity"
    return "log-probabilities of labels" if way == "labels" else "asked in words"


def check_way(way: Literal["auto", "chat", "labels", "similarity"], kind: Kind) -> None:
    """Raises ConfigError for a way that a kind of task does not have."""
    if way != "auto" and way not in WAYS[kind]:
        raise ConfigError(
            f"a task of the kind {kind} cannot be asked by {way!r}", remedy=f"one of: auto, {', '.join(WAYS[kind])}"
        )


def way_for(wish: Literal["auto", "chat", "labels", "similarity"], kind: Kind, engine: Engine) -> Way:
    """The way to ask: the wish, or, for `auto`, the first of the kind's ways that the engine is capable of.

    Continuing a text is the last resort of `chat`, behind the other ways. Raises Unsupported where none is left.
    """
    check_way(wish, kind)
    able = engine.capabilities
    ways = WAYS[kind] if wish == "auto" else (wish,)
    for way in ways:
        if _allows(able, way):
            return way
    if "chat" in ways and able.complete:
        return "chat"
    if wish == "labels":
        raise unsupported(engine, "score")
    if wish == "similarity":
        raise unsupported(engine, "embed")
    if wish == "chat" or not able.embed:
        raise unsupported(engine, "chat")
    raise Unsupported(
        f"{engine.name} only embeds: a task of the kind {kind} needs an engine that writes",
        remedy="give an engine that can chat or complete (upstream: http://HOST/v1#MODEL)",
    )


def _allows(able: Capabilities, way: Way) -> bool:
    return {"chat": able.chat, "labels": able.score, "similarity": able.embed}[way]
