"""A local engine called over loopback HTTP, as a stranger's would be."""

from __future__ import annotations

from contextlib import ExitStack

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
        address = stack.enter_context(serve(engine, model=engine.name))
        settings = HttpSettings(
            address.url,
            engine.name,
            offers=tuple(offers),
            name=f"{engine.name} over loopback HTTP",
            context=able.context,
            dimensions=able.dimensions,
            read_timeout_s=3600.0,  # a large model on a small machine is slow, not gone
            total_s=7200.0,
        )
        super().__init__(settings, identity=engine.identity)
        self._stack = stack

    def close(self) -> None:
        """Closes the client, then the server, then the engine."""
        super().close()
        self._stack.close()


def over_loopback(engine: BaseEngine) -> BaseEngine:
    """The engine behind a loopback server, and a client of that server; closing it ends both, and the engine."""
    stack = ExitStack()
    stack.callback(engine.close)
    try:
        return Looped(engine, stack)
    except BaseException:
        stack.close()
        raise
