"""`durable`: an entry is on disk before the last byte of its answer goes out."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_kit import config_for, gateway_at, upstream_model
from raw_upstream import raw_upstream

from nacre.lifecycle.serve.config import StateConfig
from nacre.lifecycle.serve.state.database import Unavailable


def rows(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])


@pytest.mark.parametrize("stream", [False, True])
def test_who_has_an_answer_has_an_entry_on_disk(tmp_path: Path, stream: bool) -> None:
    async def run() -> None:
        async with raw_upstream() as upstream:
            config = replace(config_for(m=upstream_model(upstream.url)), state=StateConfig(durable=True))
            async with gateway_at(tmp_path, config) as running:
                for number in range(1, 4):
                    assert (await running.post(stream=stream))[0] == 200
                    assert rows(tmp_path / "gateway.db") == number

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_the_disk_does_not_take_is_withheld(tmp_path: Path, stream: bool) -> None:
    async def run() -> None:
        async with raw_upstream() as upstream:
            config = replace(config_for(m=upstream_model(upstream.url)), state=StateConfig(durable=True))
            async with gateway_at(tmp_path, config) as running:

                async def fails() -> None:
                    raise Unavailable("the disk is full", remedy="make room")

                running.gateway.parts.ledger.flush = fails  # type: ignore[method-assign]
                status, _, body = await running.post(stream=stream)
                assert b"[DONE]" not in body
                if stream:
                    assert b'"ledger_down"' in body
                else:
                    assert (status, json.loads(body)["error"]["code"]) == (503, "ledger_down")
                assert len(running.entries) == 1  # entered once, in the journal all the same

    asyncio.run(run())
