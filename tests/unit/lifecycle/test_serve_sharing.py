"""What workers tell each other: sums that never go back, gauges of those that live, one alerter for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nacre.lifecycle.serve.contract import Entry
from nacre.lifecycle.serve.watch import sharing
from nacre.lifecycle.serve.watch.config import AlertsConfig, LogConfig, WatchConfig, WebhookConfig
from nacre.lifecycle.serve.watch.families import Counter, Gauge, Histogram, render
from nacre.lifecycle.serve.watch.watch import Watch
from nacre.lifecycle.serve.workers import Place

ENTRY = Entry("r", 1.0, "k", "chat", "m", "m", "ok", 200, 3, 4, "upstream", 7, 0.5, 0.2, 0.1)
WATCH = WatchConfig(
    log=LogConfig("none"),
    alerts=AlertsConfig({"team": WebhookConfig(address="http://127.0.0.1:1/x")}, every_s=3600.0, at_least=20),
)


def watches(folder: Path, of: int = 2, *, restarts: int = 0) -> list[Watch]:
    return [Watch(WATCH, ["m"], None, Place(slot, of, folder, -1, restarts)) for slot in range(of)]


def value(watch: Watch, name: str) -> float:
    families = text_string_to_metric_families(watch.render())
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def started(*several: Watch) -> None:
    for watch in several:
        await watch.start()


async def told(*several: Watch) -> None:
    for watch in (*several, *several):
        assert watch._sharing is not None
        await watch._sharing.tell()


def test_whoever_is_asked_answers_for_all(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = watches(tmp_path)
        await started(first, second)
        for _ in range(3):
            first.ended(ENTRY)
        second.ended(replace(ENTRY, outcome="failed", status=500, seconds=70.0))
        first.queued("m", 2, 1)
        second.queued("m", 5, 1)
        first.upstream("m", None)
        second.upstream("m", "gone")
        await told(first, second)
        for watch in (first, second):
            assert value(watch, "nacre_requests_total") == 4
            assert value(watch, "nacre_tokens_total") == 28
            assert value(watch, "nacre_request_seconds_count") == 4
            assert value(watch, "nacre_request_seconds_sum") == pytest.approx(70.6)
            assert value(watch, "nacre_queue_waiting") == 7
            assert value(watch, "nacre_upstream_up") == 0
            assert value(watch, "nacre_workers") == 2
            assert value(watch, "nacre_build_info") == 1
        for watch in (first, second):
            await watch.close()

    asyncio.run(run())


def test_a_successor_goes_on_and_no_sum_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        first, second = watches(tmp_path)
        await started(first, second)
        for watch in (first, second):
            watch.ended(ENTRY)
            watch.queued("m", 4, 0)
        await told(first, second)
        cpu = value(first, "process_cpu_seconds_total")
        await second.close()  # as if it were killed: its file stays
        monkeypatch.setattr(sharing, "_SILENT_S", -1.0)  # what it said is old by now
        await told(first)
        assert value(first, "nacre_requests_total") == 2
        assert value(first, "nacre_queue_waiting") == 4  # nobody waits at a worker that is gone
        assert value(first, "nacre_workers") == 1
        monkeypatch.setattr(sharing, "_SILENT_S", 5.0)
        again = watches(tmp_path, restarts=1)[1]
        await again.start()
        again.ended(ENTRY)
        await told(again, first)
        for watch in (first, again):
            assert value(watch, "nacre_requests_total") == 3
            assert value(watch, "nacre_request_seconds_count") == 3
            assert value(watch, "nacre_worker_restarts_total") >= 1
            assert value(watch, "process_cpu_seconds_total") >= cpu
        await again.close()
        await first.close()

    asyncio.run(run())


def test_one_worker_judges_for_all_and_tells_once(tmp_path: Path) -> None:
    """Ten requests each are too few to judge; twenty together are not."""

    async def run() -> None:
        several = watches(tmp_path)
        await started(*several)
        assert [watch.alerter._task is not None for watch in several] == [True, False]
        for watch in several:
            for _ in range(10):
                watch.ended(replace(ENTRY, outcome="failed", status=500))
        await several[0].alerter.look()
        assert several[0].alerter.firing == []
        several[1].upstream("m", "gone")
        await told(*several)
        await several[0].alerter.look()
        assert [one.rule for one in several[0].alerter.firing] == ["error_rate"]
        assert several[0].alerter._memory  # and the model that only the other one has found to be down:
        assert "m" in several[0].alerter.others[0].down
        for watch in several:
            await watch.close()

    asyncio.run(run())


def test_a_part_of_the_gateway_in_trouble_is_told_and_its_end_too() -> None:
    async def run() -> None:
        trouble: list[str | None] = ["the disk is full"]
        config = replace(WATCH, alerts=replace(WATCH.alerts, upstream_down_s=0.001, recover_s=0.0))
        watch = Watch(config, ["m"])
        watch.alerter.parts["the ledger's database"] = lambda: trouble[0]
        await watch.alerter.look()
        await asyncio.sleep(0.01)
        await watch.alerter.look()
        [finding] = watch.alerter.firing
        assert (finding.rule, finding.subject, finding.detail) == (
            "upstream_down", "the ledger's database", "the disk is full",
        )  # fmt: skip
        trouble[0] = None
        await watch.alerter.look()
        assert watch.alerter.firing == []

    asyncio.run(run())


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        watch = watches(tmp_path / "none")[0]
        await started(watch)
        watch.ended(ENTRY)
        await told(watch, watch)
        assert value(watch, "nacre_requests_total") == 1  # its own
        await watch.close()

    asyncio.run(run())
    assert caplog.text.count("cannot tell each other") == 1


def test_rows_are_put_together_as_their_family_says() -> None:
    counter, low, high = Counter("c", "-"), Gauge("l", "-", (), "min"), Gauge("h", "-", (), "max")
    histogram = Histogram("t", "-", (), (1.0,))
    counter.add((), 2)
    low.set((), 2)
    high.set((), 2)
    histogram.observe((), 0.5)
    other = {"c": {(): 3.0}, "l": {(): 3.0}, "h": {(): 3.0}, "t": {(): [1.0, 1.0, 9.0]}}
    lines = [one for one in render([counter, low, high, histogram], [other]).splitlines() if not one.startswith("#")]
    assert lines == ["c 5", "l 2", "h 3", 't_bucket{le="1"} 2', 't_bucket{le="+Inf"} 3', "t_sum 9.5", "t_count 3"]


@pytest.mark.parametrize("make", [Counter, Gauge])
def test_a_family_that_nobody_has_counted_has_no_lines(make: Callable[..., Counter]) -> None:
    assert list(make("x", "-", ("model",)).render([{}, {}])) == []
