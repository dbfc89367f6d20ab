"""A local engine called over loopback HTTP, as a stranger's would be."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

from nacre.engine.base import BaseEngine
from nacre.engine.loopback import serve
from nacre.engine.openai_http import HttpSettings, OpenAIHttp


class Looped(OpenAIHttp):
    """A client, and the server behind it with its engine. It is the same engine: only the way to it differs."""

    def __init__(self, engine: BaseEngine, stack: ExitStack) -> None:
        able = engine.capabilities
        offers = [name for name in ("chat", "complete", "embed", "stream") if getattr(able, name)]
        if able.score and engine.echoes:
            offers.append("score")
        address = stack.enter_context(serve(engine, model=model_id(engine.name)))
        settings = HttpSettings(
            address.url,
            address.model,
            offers=tuple(offers),
            name=f"{engine.name} over loopback HTTP",
            context=able.context,
            dimensions=able.dimensions,
            read_timeout_s=3600.0,  # a large model on a small machine is slow, not gone
            total_s=7200.0,
        )
        super().__init__(settings, identity=engine.identity)
        self._stack, self._engine_name = stack, engine.name

    def _model(self, given: Any) -> str:
        """The engine's own name, where the reply says the id under which it is served."""
        found = super()._model(given)
        return self._engine_name if found == self.settings.model else found

    def close(self) -> None:
        """Closes the client, then the server, then the engine."""
        super().close()
        self._stack.close()


def model_id(name: str) -> str:
    """An engine's name as the wire's `model`, which has no blanks: `bert 6 x 384` is `bert-6x384`."""
    return re.sub(r"\s+", "-", re.sub(r"(?<=\d) x (?=\d)", "x", name.strip()))


def over_loopback(engine: BaseEngine) -> BaseEngine:
    """The engine behind a loopback server, and a client of that server; closing it ends both, and the engine."""
    stack = ExitStack()
    stack.callback(engine.close)
    try:
        return Looped(engine, stack)
    except BaseException:
        stack.close()
        raise
