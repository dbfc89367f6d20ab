"""Prometheus metrics of the gateway, read back with the parser of prometheus_client."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nacre.lifecycle.serve.contract import Entry, Outcome
from nacre.lifecycle.serve.watch.config import WatchConfig
from nacre.lifecycle.serve.watch.families import Counter, Gauge, Histogram, braces, number, render
from nacre.lifecycle.serve.watch.meters import MOST_KINDS, Metrics
from nacre.lifecycle.serve.watch.watch import Watch

ENTRY = Entry("r1", 1.0, "k1", "chat", "mini", "mini", "ok", 200, 12, 30, "upstream", 42, 0.25, 0.2, 0.05)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels; parsing fails where the format is broken."""
    assert text.endswith("\n")
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            at = (one.name, frozenset(one.labels.items()))
            assert at not in found, at
            found[at] = one.value
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    return samples(text).get((name, frozenset(labels.items())))


def test_a_request_is_counted_once_everywhere() -> None:
    meters = Metrics(["mini"])
    meters.ended(ENTRY)
    text = meters.render()
    assert value(text, "nacre_requests_total", route="chat", model="mini", outcome="ok", status="200") == 1
    assert value(text, "nacre_tokens_total", model="mini", direction="prompt") == 12
    assert value(text, "nacre_tokens_total", model="mini", direction="completion") == 30
    assert value(text, "nacre_money_total", model="mini") == 0.25
    assert value(text, "nacre_request_seconds_count", route="chat", model="mini") == 1
    assert value(text, "nacre_request_seconds_sum", route="chat", model="mini") == 0.2
    assert value(text, "nacre_first_token_seconds_bucket", route="chat", model="mini", le="0.05") == 1
    assert value(text, "nacre_first_token_seconds_bucket", route="chat", model="mini", le="0.025") == 0
    assert value(text, "nacre_unpriced_requests_total", model="mini") is None


def test_an_unknown_price_is_counted_and_adds_no_money() -> None:
    meters = Metrics(["mini"])
    meters.ended(replace(ENTRY, money=None, prompt_tokens=None, completion_tokens=None, counted_by="nobody"))
    text = meters.render()
    assert value(text, "nacre_unpriced_requests_total", model="mini") == 1
    assert value(text, "nacre_uncounted_requests_total", model="mini") == 1
    assert value(text, "nacre_money_total", model="mini") is None


def test_counts_that_disagree_are_reported() -> None:
    meters = Metrics(["mini"])
    meters.ended(replace(ENTRY, our_tokens=46))  # 4 of 42: within a tenth
    assert value(meters.render(), "nacre_disagreeing_requests_total", model="mini") is None
    meters.ended(replace(ENTRY, our_tokens=47))
    assert value(meters.render(), "nacre_disagreeing_requests_total", model="mini") == 1


def test_answers_from_the_cache_add_no_tokens_and_no_money() -> None:
    meters = Metrics(["mini"])
    meters.ended(replace(ENTRY, cached=True, money=0.0))
    text = meters.render()
    assert value(text, "nacre_cache_hits_total", model="mini") == 1
    assert value(text, "nacre_tokens_total", model="mini", direction="prompt") is None


def test_models_that_a_client_made_up_share_one_row() -> None:
    meters = Metrics(["mini"])
    for number_ in range(500):
        made_up = replace(
            ENTRY, asked=f"made-up-{number_}", served=None, outcome="refused", status=404, route=f"/x{number_}"
        )
        meters.ended(made_up)
        meters.upstream(f"made-up-{number_}", "down")
        meters.queued(f"made-up-{number_}", 1, 1)
        meters.masked({f"kind-{number_}": 1})
    text = meters.render()
    assert value(text, "nacre_requests_total", route="other", model="other", outcome="refused", status="404") == 500
    assert "made-up" not in text
    kinds = [one for one in samples(text) if one[0] == "nacre_masked_total"]
    assert len(kinds) == MOST_KINDS + 1
    assert sum(samples(text)[one] for one in kinds) == 500
    assert len(text.splitlines()) < 250


def test_a_path_is_counted_as_its_route() -> None:
    meters = Metrics(["mini"])
    outcome: Outcome = "refused"
    meters.ended(replace(ENTRY, route="/v1/embeddings", outcome=outcome, status=401))
    assert (
        value(
            meters.render(), "nacre_requests_total", route="embeddings", model="mini", outcome="refused", status="401"
        )
        == 1
    )


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\\n", "模型", "é\u2028", 'x"} 1\nevil{a="'])
def test_label_values_come_back_as_they_were(name: str) -> None:
    meters = Metrics([name])
    meters.upstream(name, None)
    assert value(meters.render(), "nacre_upstream_up", model=name) == 1


def test_a_lone_surrogate_does_not_cost_the_page() -> None:
    assert braces(("a",), ("x\ud800",)).encode() == b'{a="x?"}'


def test_histograms_count_bounds_inclusively_and_cumulatively() -> None:
    histogram = Histogram("h", "help with a \\ and a\nline", (), (0.1, 1.0))
    for one in (0.1, 0.10001, 1.0, 5.0, math.nan, math.inf):
        histogram.observe((), one)
    text = render([histogram])
    assert [value(text, "h_bucket", le=one) for one in ("0.1", "1", "+Inf")] == [1, 3, 4]
    assert value(text, "h_count") == 4
    assert value(text, "h_sum") == pytest.approx(6.20001)


def test_counters_never_go_down() -> None:
    counter = Counter("c_total", "c")
    for one in (1.0, -5.0, math.nan, math.inf, 0.5):
        counter.add((), one)
    assert value(render([counter]), "c_total") == 1.5
    assert render([Gauge("g", "g", ("a",))]) == ""


@pytest.mark.parametrize(
    ("given", "shown"), [(1.0, "1"), (0.1, "0.1"), (1e300, "1e+300"), (-2.0, "-2"), (math.inf, "+Inf")]
)
def test_numbers(given: float, shown: str) -> None:
    assert number(given) == shown


def test_the_whole_watch_renders_what_parses() -> None:
    watch = Watch(WatchConfig(), ["mini"])
    watch.ended(ENTRY)
    watch.upstream("mini", "no answer")
    watch.masked({"email": 2})
    text = watch.render()
    assert value(text, "nacre_upstream_up", model="mini") == 0
    assert value(text, "nacre_masked_total", kind="email") == 2
    assert value(text, "nacre_log_lines_dropped_total") == 0
    assert (value(text, "process_resident_memory_bytes") or 0) > 1e6
