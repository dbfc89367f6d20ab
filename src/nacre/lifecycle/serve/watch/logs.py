"""One JSON line per request: who, which model, tokens, money, times, outcome. Never a text, never a secret."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Entry
from nacre.lifecycle.serve.watch.config import LogConfig

_log = logging.getLogger(__name__)
_EVERY_S = 0.2
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


class RequestLog:
    """Collects lines and writes them in a thread, a few times a second. A file is opened for each writing, so that
    it can be rotated by renaming, and is readable by its owner only."""

    def __init__(self, config: LogConfig) -> None:
        self._to, self._most = config.to, config.queue
        self._lines: deque[tuple[Entry, str]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self.dropped = 0

    def ended(self, entry: Entry, asked: str) -> None:
        """Takes a request that is over. `asked` is its bounded label: what a client typed as a model is a text."""
        if self._to == "none":
            return
        if len(self._lines) >= self._most:
            self.dropped += 1
            return
        self._lines.append((entry, asked))

    async def start(self) -> None:
        """Raises ConfigError where the file cannot be written."""
        if self._to not in ("none", "stderr", "stdout"):
            try:
                await asyncio.to_thread(self._write, "")
            except OSError as error:
                raise ConfigError(
                    f"watch.log.to: {self._to} cannot be written: {error.strerror}",
                    remedy="name a file in a folder that exists and is yours, or stderr",
                ) from None
        if self._to != "none":
            self._task = asyncio.create_task(self._run(), name="request log")

    async def flush(self) -> None:
        """Writes what was taken. Where that fails the lines are counted as dropped."""
        taken = list(self._lines)
        self._lines.clear()
        if not taken:
            return
        try:
            await asyncio.to_thread(self._write_all, taken)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self.dropped += len(taken)
            _log.error("the request log cannot be written, %d lines are lost: %s", len(taken), type(error).__name__)

    async def close(self) -> None:
        """Writes the rest and ends."""
        self._closing.set()
        if self._task is not None:
            await self._task  # it ends by itself: a batch that was taken is written
            self._task = None
        await self.flush()

    async def _run(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _EVERY_S)
            await self.flush()

    def _write_all(self, taken: list[tuple[Entry, str]]) -> None:
        self._write("".join(f"{_encode(line(entry, asked))}\n" for entry, asked in taken))

    def _write(self, text: str) -> None:
        if self._to in ("stderr", "stdout"):
            stream = sys.stderr if self._to == "stderr" else sys.stdout
            stream.write(text)
            stream.flush()
            return
        with open(Path(self._to), "a", encoding="utf-8", errors="replace", opener=_private) as file:
            file.write(text)


def line(entry: Entry, asked: str) -> dict[str, Any]:
    """What is logged of a request."""
    return {
        "at": round(entry.at, 3), "id": entry.id, "key": entry.key, "route": entry.route, "asked": asked,
        "served": entry.served, "outcome": entry.outcome, "status": entry.status,
        "prompt_tokens": entry.prompt_tokens, "completion_tokens": entry.completion_tokens,
        "counted_by": entry.counted_by, "money": entry.money, "seconds": round(entry.seconds, 6),
        "first_token_s": None if entry.first_token_s is None else round(entry.first_token_s, 6),
        "cached": entry.cached, "masked": entry.masked,
    }  # fmt: skip


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
