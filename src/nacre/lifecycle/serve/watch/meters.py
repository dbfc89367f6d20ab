"""What the gateway counts for Prometheus: requests, tokens, money, queue, times, cache, masking, upstreams, itself.

The number of rows is bounded: a model that is not configured is counted as `other`, and no label holds a key, a
client's address or any text of a request.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import nacre
from nacre.lifecycle.serve.contract import ROUTES, Entry
from nacre.lifecycle.serve.watch.families import (
    Counter,
    Family,
    Gauge,
    Histogram,
    Kind,
    Reading,
    Rows,
    Together,
    render,
)

OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
MOST_KINDS = 64  # of masked data; further ones are counted as `other`
DISAGREEMENT = 0.1  # of tokens, ours against the upstream's, above which a request is counted as disagreeing
_ROUTES = frozenset(ROUTES.values())
_PROC = Path("/proc/self")


class Metrics:
    """The gateway's `Meters`. `models` are the configured names, routes among them."""

    def __init__(self, models: Iterable[str]) -> None:
        self._models = frozenset(models)
        by_model = ("model",)
        self.requests = Counter(
            "nacre_requests_total", "Requests that ended, by outcome.", ("route", "model", "outcome", "status")
        )
        self.tokens = Counter(
            "nacre_tokens_total",
            "Tokens that models read and wrote; answers from the cache add none.",
            ("model", "direction"),
        )
        self.uncounted = Counter(
            "nacre_uncounted_requests_total", "Answered requests whose tokens nobody counted.", by_model
        )
        self.disagreeing = Counter(
            "nacre_disagreeing_requests_total",
            f"Requests where our count of tokens is more than {DISAGREEMENT:.0%} from the upstream's.",
            by_model,
        )
        self.money = Counter("nacre_money_total", "Money spent, in the currency of the price list.", by_model)
        self.unpriced = Counter("nacre_unpriced_requests_total", "Answered requests whose price is unknown.", by_model)
        self.cached = Counter("nacre_cache_hits_total", "Requests answered from the cache.", by_model)
        self.masked_data = Counter("nacre_masked_total", "Pieces of personal data that were masked.", ("kind",))
        self.seconds = Histogram(
            "nacre_request_seconds", "Time from request to end of answer.", ("route", "model"), SECONDS
        )
        self.first_token = Histogram(
            "nacre_first_token_seconds",
            "Time from request to the first token of a stream.",
            ("route", "model"),
            SECONDS,
        )
        self.waiting = Gauge("nacre_queue_waiting", "Requests that wait for a local model.", by_model)
        self.running = Gauge("nacre_queue_running", "Requests that a local model works on.", by_model)
        self.up = Gauge("nacre_upstream_up", "Whether a model can answer (1) or not (0).", by_model, "min")
        build = Gauge("nacre_build_info", "Version of the gateway.", ("version", "python"), "max")
        build.set((nacre.__version__, platform.python_version()), 1)
        self._families: list[Family] = [
            self.requests, self.tokens, self.uncounted, self.disagreeing, self.money, self.unpriced, self.cached,
            self.masked_data, self.seconds, self.first_token, self.waiting, self.running, self.up, build,
            *_of_the_process(),
        ]  # fmt: skip

    def ended(self, entry: Entry) -> None:
        """Counts a request once it is over."""
        model = self.label(entry.served or entry.asked)
        route = ROUTES.get(entry.route, entry.route)  # a request that was not read has its path
        route = route if route in _ROUTES else OTHER
        self.requests.add((route, model, entry.outcome, str(entry.status)))
        self.seconds.observe((route, model), entry.seconds)
        if entry.first_token_s is not None:
            self.first_token.observe((route, model), entry.first_token_s)
        if entry.cached:
            self.cached.add((model,))
        if entry.outcome == "refused" or entry.cached:
            return
        if entry.prompt_tokens is not None:
            self.tokens.add((model, "prompt"), entry.prompt_tokens)
        if entry.completion_tokens is not None:
            self.tokens.add((model, "completion"), entry.completion_tokens)
        if entry.money is not None:
            self.money.add((model,), entry.money)
        if entry.outcome in ("ok", "cut_short", "client_left"):
            self._unknown(model, entry)

    def queued(self, model: str, waiting: int, running: int) -> None:
        """The queue of a local model as it is now."""
        self.waiting.set((self.label(model),), waiting)
        self.running.set((self.label(model),), running)

    def masked(self, kinds: Mapping[str, int]) -> None:
        """Pieces of personal data that one request had, by kind."""
        for kind, count in kinds.items():
            known = (kind,) in self.masked_data.rows or len(self.masked_data.rows) < MOST_KINDS
            self.masked_data.add((kind if known else OTHER,), count)

    def upstream(self, model: str, why: str | None) -> None:
        """Whether a model can answer: None where it can, else why not."""
        self.up.set((self.label(model),), 1 if why is None else 0)

    def add(self, family: Family) -> None:
        """Adds a family that another part counts."""
        self._families.append(family)

    def reads(
        self, name: str, about: str, read: Callable[[], float | None], kind: Kind = "gauge", together: Together = "sum"
    ) -> None:
        """Adds a value that another part knows: it is asked when the metrics are."""
        self._families.append(Reading(name, about, read, kind, together))

    def counted(self) -> dict[str, Rows]:
        """What this process has counted, by the names of the families."""
        return {one.name: dict(one.values()) for one in self._families if one.kind != "gauge"}

    def gauges(self) -> dict[str, Rows]:
        """What goes up and down, as it is now."""
        return {one.name: dict(one.values()) for one in self._families if one.kind == "gauge"}

    def go_on(self, values: Mapping[str, Rows]) -> None:
        """Begins where a worker that died has ended: counters never go back."""
        for family in self._families:
            if family.name in values:
                family.go_on(values[family.name])

    def render(self, others: Sequence[Mapping[str, Rows]] = ()) -> str:
        """The text format of Prometheus; `others` are the values of the other workers."""
        return render(self._families, others)

    def label(self, model: str) -> str:
        """A configured model's name, `other` for what a client made up."""
        return model if model in self._models else OTHER

    def _unknown(self, model: str, entry: Entry) -> None:
        if entry.money is None:
            self.unpriced.add((model,))
        theirs = (entry.prompt_tokens or 0) + (entry.completion_tokens or 0)
        if entry.counted_by == "nobody":
            self.uncounted.add((model,))
        elif entry.our_tokens is not None and abs(entry.our_tokens - theirs) > DISAGREEMENT * max(theirs, 1):
            self.disagreeing.add((model,))


def _of_the_process() -> list[Family]:
    began = time.time()
    return [
        Reading("process_start_time_seconds", "Start of the process, Unix time.", lambda: began, together="min"),
        Reading("process_cpu_seconds_total", "Processor time used.", time.process_time, "counter"),
        Reading("process_resident_memory_bytes", "Memory held.", _resident),
        Reading("nacre_tasks", "Tasks of the event loop.", _tasks),
        Reading("process_open_fds", "Open file handles.", _handles),
    ]


def _resident() -> float | None:
    try:
        return int((_PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc on this system: the value is left out
        return None


def _tasks() -> float | None:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # asked from outside of the event loop
        return None


def _handles() -> float | None:
    try:
        return len(os.listdir(_PROC / "fd"))
    except OSError:
        return None
