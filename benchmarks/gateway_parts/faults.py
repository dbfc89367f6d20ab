"""What a mock upstream does to a request: decided by the number in its prompt, so that a run can be repeated."""

from __future__ import annotations

import random
import re
from typing import Literal

Fault = Literal[
    "none", "slow", "reset", "stall", "429", "500", "garbage", "no_http", "cut", "early_end", "hang"
]  # fmt: skip
_PLAIN: dict[Fault, float] = {
    "none": 0.8, "slow": 0.05, "reset": 0.04, "stall": 0.005, "429": 0.04, "500": 0.04,
    "garbage": 0.015, "no_http": 0.01,
}  # fmt: skip
_STREAM: dict[Fault, float] = {**_PLAIN, "none": 0.7, "cut": 0.06, "early_end": 0.03, "hang": 0.01}
_NUMBER = re.compile(rb"#(\d+)")


def number_in(body: bytes) -> int:
    """The number of a request; 0 where it has none."""
    found = _NUMBER.search(body)
    return int(found[1]) if found else 0


def fault_of(number: int, seed: int, stream: bool) -> Fault:
    """What happens to request `number`."""
    weights = _STREAM if stream else _PLAIN
    rng = random.Random(seed * 1_000_003 + number)
    return rng.choices(list(weights), list(weights.values()))[0]


def tokens_of(number: int) -> tuple[int, int]:
    """What the mock bills for request `number`: different for each, so that sums tell."""
    return 10 + number % 37, 5 + number % 23
