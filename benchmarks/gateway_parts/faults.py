"""What a mock upstream does to a request: decided by the number in its prompt, so that a run can be repeated."""

from __future__ import annotations

import random
import re
from typing import Literal

Fault = Literal[
    "none", "slow", "reset", "stall", "429", "500", "garbage", "no_http", "cut", "early_end", "hang", "trickle"
]  # fmt: skip
_PLAIN: dict[Fault, float] = {
    "none": 0.72, "slow": 0.13, "reset": 0.04, "stall": 0.005, "429": 0.04, "500": 0.04,
    "garbage": 0.015, "no_http": 0.01,
}  # fmt: skip
_STREAM: dict[Fault, float] = {
    **_PLAIN, "none": 0.52, "cut": 0.06, "early_end": 0.03, "hang": 0.01, "trickle": 0.1,
}  # fmt: skip
_NUMBER = re.compile(rb"#(\d+)")
_KEY = re.compile(rb"key=(\w+)")
Leaving = Literal["never", "early", "midway"]


def number_in(body: bytes) -> int:
    """The number of a request; 0 where it has none."""
    found = _NUMBER.search(body)
    return int(found[1]) if found else 0


def fault_of(number: int, seed: int, stream: bool) -> Fault:
    """What happens to request `number`."""
    weights = _STREAM if stream else _PLAIN
    rng = random.Random(seed * 1_000_003 + number)
    return rng.choices(list(weights), list(weights.values()))[0]


def key_in(body: bytes) -> str:
    """The name of the key that a request was made with, as its prompt tells it."""
    found = _KEY.search(body)
    return found[1].decode() if found else ""


def leaving_of(number: int, seed: int, stream: bool, often: bool) -> tuple[Leaving, float]:
    """Whether the client of request `number` leaves: before its answer, after so many seconds, or inside a stream."""
    rng, share = random.Random(seed * 7_000_003 + number), 0.3 if often else 0.04
    leaving: Leaving = rng.choices(["never", "early", "midway"], [1 - 2 * share, share, share if stream else 0.0])[0]
    return leaving, rng.uniform(0.0, 0.2)


def tokens_of(number: int) -> tuple[int, int]:
    """What the mock bills for request `number`: different for each, so that sums tell."""
    return 10 + number % 37, 5 + number % 23
