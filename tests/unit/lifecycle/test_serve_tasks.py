from __future__ import annotations

import asyncio

import pytest

from nacre.lifecycle.serve.tasks import stop


def test_waits_until_the_task_has_cleaned_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await stop(task)
        await stop(task)
        await stop(None)

    asyncio.run(main())
    assert cleaned == [True]


def test_what_it_failed_of_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def main() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await stop(task)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(main())
