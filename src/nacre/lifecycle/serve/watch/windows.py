"""What happened lately: requests, errors and latencies per model over the last seconds, in bounded memory."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

from nacre.lifecycle.serve.contract import Entry

SLOTS = 30
_STEP = math.log(1.07)
_SHORTEST_S = 1e-4
ERRORS = frozenset({"upstream_error", "cut_short", "failed"})


@dataclass
class Tally:
    """Requests that were not refused, those that failed, and latencies in buckets 7 % wide."""

    requests: int = 0
    errors: int = 0
    seconds: Counter[int] = field(default_factory=Counter)
    first_token: Counter[int] = field(default_factory=Counter)

    def merge(self, other: Tally) -> None:
        """Adds another tally to this one."""
        self.requests += other.requests
        self.errors += other.errors
        self.seconds.update(other.seconds)
        self.first_token.update(other.first_token)


class Window:
    """Tallies over the last `seconds`, thrown away in steps of a thirtieth of it."""

    def __init__(self, seconds: float) -> None:
        self._slot_s = seconds / SLOTS
        self._slots: deque[tuple[int, dict[str, Tally]]] = deque()

    def ended(self, model: str, entry: Entry, now: float) -> None:
        """Counts a request at `now` (monotonic). Refused ones and those whose client left say nothing of a model."""
        if entry.outcome in ("refused", "client_left"):
            return
        index = int(now / self._slot_s)
        if not self._slots or self._slots[-1][0] != index:
            self._slots.append((index, {}))
            self._forget(now)
        tally = self._slots[-1][1].setdefault(model, Tally())
        tally.requests += 1
        if entry.outcome in ERRORS:
            tally.errors += 1
        elif not entry.cached:
            tally.seconds[bucket(entry.seconds)] += 1
            if entry.first_token_s is not None:
                tally.first_token[bucket(entry.first_token_s)] += 1

    def tallies(self, now: float) -> dict[str, Tally]:
        """The sums per model as of `now`."""
        self._forget(now)
        sums: dict[str, Tally] = {}
        for _, models in self._slots:
            for model, tally in models.items():
                sums.setdefault(model, Tally()).merge(tally)
        return sums

    def _forget(self, now: float) -> None:
        oldest = int(now / self._slot_s) - SLOTS
        while self._slots and self._slots[0][0] <= oldest:
            self._slots.popleft()


def bucket(seconds: float) -> int:
    """The bucket of a latency."""
    return math.floor(math.log(max(seconds, _SHORTEST_S)) / _STEP) if math.isfinite(seconds) else 0


def quantile(buckets: Counter[int], share: float) -> float | None:
    """The latency in seconds that `share` of the requests stayed below, within 4 %; None without requests."""
    wanted, seen = share * buckets.total(), 0
    for index in sorted(buckets):
        seen += buckets[index]
        if seen >= wanted:
            return math.exp((index + 0.5) * _STEP)
    return None
