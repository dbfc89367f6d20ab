"""Whether each model can answer, asked again and again in one owned task; readers get what was last found."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from nacre.lifecycle.serve.contract import Backend, Ledger, Meters, Refusal
from nacre.lifecycle.serve.tasks import stop

_log = logging.getLogger(__name__)
_EVERY_S = 15.0
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Trouble:
    """Why the ledger cannot be written, and whether requests are refused for it already."""

    why: str
    refuses: bool


def trouble_of(ledger: Ledger) -> Trouble | None:
    """What ails the ledger; None where it is well."""
    try:
        ledger.room()
    except Refusal as refusal:
        return Trouble(ledger.trouble or refusal.message, refuses=True)
    return Trouble(ledger.trouble, refuses=False) if ledger.trouble else None


class Health:
    """Asks every backend. `down` holds model -> why it cannot answer, of those that cannot."""

    def __init__(self, backends: Mapping[str, Backend], meters: Meters, every_s: float = _EVERY_S) -> None:
        self._backends, self._meters, self._every_s = backends, meters, every_s
        self.down: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to ask; what a model says of itself at first is known a moment later."""
        self._task = asyncio.create_task(self._run(), name="health of the models")

    async def close(self) -> None:
        """Ends the asking."""
        task, self._task = self._task, None
        await stop(task)

    async def look(self) -> None:
        """Asks all of them once, at the same time."""
        await asyncio.gather(*(self._ask(name, backend) for name, backend in self._backends.items()))

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def _ask(self, name: str, backend: Backend) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                why = await backend.healthy()
        except TimeoutError:
            why = f"it did not say so within {_PATIENCE_S:g} s"
        except Exception as error:  # noqa: BLE001 - a backend that fails here is not healthy; the others are still asked
            why = type(error).__name__
        if (why is None) != (name not in self.down):
            _log.warning("model %s %s", name, "can answer again" if why is None else f"cannot answer: {why}")
        if why is None:
            self.down.pop(name, None)
        else:
            self.down[name] = why
        self._meters.upstream(name, why)
