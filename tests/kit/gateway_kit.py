"""The gateway on a real socket inside a test's event loop, with its state in a folder of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from nacre.lifecycle.serve.app import Application
from nacre.lifecycle.serve.assemble import assemble
from nacre.lifecycle.serve.config import (
    Listen,
    ModelConfig,
    ServeConfig,
    StateConfig,
    Timeouts,
    UpstreamConfig,
)
from nacre.lifecycle.serve.contract import Entry
from nacre.lifecycle.serve.pipeline import Gateway
from nacre.lifecycle.serve.server import Server, _uvicorn, bind
from nacre.lifecycle.serve.watch.config import LogConfig, WatchConfig

EVERYTHING = ("chat", "completions", "embeddings", "stream", "tools", "json_schema")
QUIET = WatchConfig(log=LogConfig(to="none"))
PATIENCE = Timeouts(connect_s=2.0, first_byte_s=2.0, between_s=1.0, total_s=10.0)


def upstream_model(url: str, **changes: Any) -> ModelConfig:
    """A model at an address, able to do everything, with little patience."""
    return ModelConfig(UpstreamConfig(url, "raw", **({"abilities": EVERYTHING, "timeouts": PATIENCE} | changes)))


@dataclass
class Running:
    """A gateway that runs: where, and what it has entered into its ledger."""

    url: str
    port: int
    gateway: Gateway
    application: Application
    server: Server
    entries: list[Entry]
    session: aiohttp.ClientSession

    async def post(self, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, dict[str, str], bytes]:
        """A POST; by default a chat with the model `m`."""
        plain = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | body
        async with self.session.post(self.url + path, json=plain) as response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()

    async def entry(self, count: int = 1) -> Entry:
        """The latest entry, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.entries) < count:
                await asyncio.sleep(0.01)
        return self.entries[-1]


@asynccontextmanager
async def gateway_at(folder: Path, config: ServeConfig, open_local: Any = None) -> AsyncIterator[Running]:
    """Runs a gateway until the block ends."""
    config = replace(
        config, listen=Listen(port=0), watch=QUIET, state=replace(config.state, database=str(folder / "gateway.db"))
    )
    gateway = await assemble(config, open_local)
    entries: list[Entry] = []
    enter = gateway.parts.ledger.enter

    def remember(entry: Entry) -> None:
        entries.append(entry)
        enter(entry)

    gateway.parts.ledger.enter = remember  # type: ignore[method-assign]
    await gateway.start()
    application = Application(gateway)
    server = Server(_uvicorn(config, application), application, config.bounds.drain_s)
    listener = bind(config.listen)
    port = listener.getsockname()[1]
    task = asyncio.create_task(server._serve([listener]))
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        try:
            yield Running(f"http://127.0.0.1:{port}", port, gateway, application, server, entries, session)
        finally:
            server.should_exit = True
            await task
            await gateway.close()


def config_for(**models: ModelConfig) -> ServeConfig:
    """A config of these models."""
    return ServeConfig(models, state=StateConfig())
