"""Tasks that run beside the requests, and their end."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def stop(task: asyncio.Task[None] | None) -> None:
    """Cancels a task and waits until it has ended; None was never begun. What it failed of is raised."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
