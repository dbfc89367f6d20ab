"""What several workers of one gateway have counted, told to each other: /metrics and alerts are about all of them.

Twice a second each writes a file with its counters, its gauges and what the alerter has to know, and reads those of
the others; whoever is asked answers for all, at most a second late. A worker that dies leaves its file behind: its
successor goes on counting from there, so that no sum ever goes back. Up to half a second of counts dies with it, no
request does: those are in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter as Tallied
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nacre.lifecycle.serve.contract import Json
from nacre.lifecycle.serve.watch.alerts import Alerter, Seen
from nacre.lifecycle.serve.watch.families import Row, Rows
from nacre.lifecycle.serve.watch.meters import Metrics
from nacre.lifecycle.serve.watch.windows import Tally
from nacre.lifecycle.serve.workers import Place

_log = logging.getLogger(__name__)
_EVERY_S = 0.5
_SILENT_S = 5.0  # a worker that has written nothing for so long is not there: its gauges and its window do not count


@dataclass(frozen=True)
class Told:
    """What one worker wrote. `at` is monotonic, which all processes of a machine share."""

    at: float
    counted: dict[str, Rows]
    gauges: dict[str, Rows] = field(default_factory=dict)
    seen: Seen = field(default_factory=lambda: Seen({}, {}))


class Sharing:
    """One worker's part in it."""

    def __init__(self, place: Place, meters: Metrics, alerter: Alerter) -> None:
        self._meters, self._alerter = meters, alerter
        files = [place.folder / f"{slot}.json" for slot in range(place.of)]
        self._mine = files.pop(place.slot)
        self._theirs = files
        self._others: list[Told] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._failed = False

    async def start(self) -> None:
        """Goes on from what a dead predecessor has counted, and begins to tell."""
        before = await asyncio.to_thread(_read, self._mine)
        if before is not None:
            self._meters.go_on(before.counted)
        await self.tell()
        self._task = asyncio.create_task(self._run(), name="sharing of metrics")

    async def close(self) -> None:
        """Tells once more, and ends."""
        self._closing.set()
        if self._task is not None:
            await self._task  # it ends by itself: a file that was begun is written
            self._task = None

    async def tell(self) -> None:
        """Writes what this worker has counted and reads what the others have."""
        mine = Told(time.monotonic(), self._meters.counted(), self._meters.gauges(), self._alerter.seen())
        try:
            self._others = await asyncio.to_thread(_exchange, self._mine, mine, self._theirs)
        except OSError as error:
            if not self._failed:
                _log.error("the workers cannot tell each other what they count: %s", error)
            self._failed = True
            return
        self._failed = False
        self._alerter.others = [one.seen for one in self._others if _lives(one)]

    def render(self) -> str:
        """The metrics of all workers, in the text format of Prometheus."""
        return self._meters.render(
            [{**one.counted, **(one.gauges if _lives(one) else {})} for one in self._others]
        )  # fmt: skip

    async def _run(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _EVERY_S)
            await self.tell()


def _lives(told: Told) -> bool:
    return time.monotonic() - told.at < _SILENT_S


def _exchange(file: Path, mine: Told, theirs: list[Path]) -> list[Told]:
    part = file.with_suffix(".part")
    part.write_bytes(orjson.dumps(_plain(mine)))
    os.replace(part, file)
    return [told for one in theirs if (told := _read(one)) is not None]


def _read(file: Path) -> Told | None:
    try:
        found: Json = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    seen = Seen(
        {model: _tally(tally) for model, tally in found["tallies"].items()},
        {model: (since, why) for model, (since, why) in found["down"].items()},
    )
    return Told(found["at"], _rows(found["counted"]), _rows(found["gauges"]), seen)


def _plain(told: Told) -> Json:
    return {
        "at": told.at,
        "counted": {name: [*rows.items()] for name, rows in told.counted.items()},
        "gauges": {name: [*rows.items()] for name, rows in told.gauges.items()},
        "tallies": {
            model: [one.requests, one.errors, [*one.seconds.items()], [*one.first_token.items()]]
            for model, one in told.seen.tallies.items()
        },
        "down": told.seen.down,
    }


def _rows(found: Mapping[str, list[tuple[list[str], Row]]]) -> dict[str, Rows]:
    return {name: {tuple(labels): row for labels, row in rows} for name, rows in found.items()}


def _tally(found: list[Any]) -> Tally:
    requests, errors, seconds, first_token = found
    return Tally(requests, errors, Tallied(dict(seconds)), Tallied(dict(first_token)))
