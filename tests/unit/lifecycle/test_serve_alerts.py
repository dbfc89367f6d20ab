"""The built-in alerter: what fires, what recovers, what receivers get, and what happens when they do not answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Entry
from nacre.lifecycle.serve.watch.alerts import Alerter
from nacre.lifecycle.serve.watch.config import AlertsConfig, WebhookConfig, read
from nacre.lifecycle.serve.watch.notices import message, refused_by, text
from nacre.lifecycle.serve.watch.rules import BudgetUse, Finding, Memory, Notice
from nacre.lifecycle.serve.watch.windows import Window, bucket, quantile

GOOD = Entry("r", 1.0, "k", "chat", "mini", "mini", "ok", 200, 1, 1, "upstream", None, 0.1, 0.2, 0.1)
BAD = replace(GOOD, outcome="upstream_error", status=502)
DOWN = Finding("upstream_down", "mini", True, 61.0, 30.0, "no connection")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """In place of webhooks: what would be told."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def put(self, notice: Notice) -> None:
        self.notices.append(notice)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(one.status, one.finding.rule, one.finding.subject) for one in self.notices]


def alerter(config: AlertsConfig, budgets: Sequence[BudgetUse] = ()) -> tuple[Alerter, Clock, Kept]:
    async def used() -> Sequence[BudgetUse]:
        return budgets

    clock, kept = Clock(), Kept()
    made = Alerter(config, used, clock)
    made.webhooks = kept  # type: ignore[assignment]
    return made, clock, kept


def looks(made: Alerter, clock: Clock, seconds: float, every: float = 5.0) -> None:
    for _ in range(int(seconds / every)):
        clock.now += every
        asyncio.run(made.look())


def test_errors_fire_once_and_recover_once() -> None:
    made, clock, kept = alerter(AlertsConfig(window_s=60, at_least=10, recover_s=20))
    for _ in range(10):
        made.ended("mini", BAD)
    looks(made, clock, 30)
    assert kept.told == [("firing", "error_rate", "mini")]
    clock.now += 60
    for _ in range(50):
        made.ended("mini", GOOD)
    looks(made, clock, 40)
    assert kept.told == [("firing", "error_rate", "mini"), ("recovered", "error_rate", "mini")]
    assert kept.notices[0].id == kept.notices[1].id
    assert made.firing == []


def test_few_requests_are_no_evidence_and_refusals_are_no_errors() -> None:
    made, clock, kept = alerter(AlertsConfig(window_s=60, at_least=10))
    for _ in range(9):
        made.ended("mini", BAD)
    for _ in range(100):
        made.ended("mini", replace(GOOD, outcome="refused", status=429))
        made.ended("mini", replace(GOOD, outcome="client_left", status=499))
    looks(made, clock, 10)
    assert kept.told == []


def test_an_alert_without_requests_any_more_ends_and_says_so() -> None:
    made, clock, kept = alerter(AlertsConfig(window_s=60, at_least=5, recover_s=10))
    for _ in range(5):
        made.ended("mini", BAD)
    looks(made, clock, 120)
    assert kept.told[-1][0] == "recovered"
    assert "nothing to judge" in text(kept.notices[-1], "en")


def test_slow_answers_and_slow_first_tokens_fire() -> None:
    made, clock, kept = alerter(AlertsConfig(latency_p95_s=1.0, first_token_p95_s=0.5, at_least=20))
    for number in range(100):
        made.ended(
            "mini", replace(GOOD, seconds=3.0 if number < 10 else 0.1, first_token_s=2.0 if number < 10 else 0.1)
        )
    looks(made, clock, 5)
    assert {one[1] for one in kept.told} == {"latency_p95", "first_token_p95"}
    assert kept.notices[0].finding.value == pytest.approx(3.0, rel=0.04)


def test_budgets_fire_at_each_share_and_recover_with_the_next_period() -> None:
    budgets = [BudgetUse("k1", "alice", 85.0, 100.0), BudgetUse("k2", "bob", 10.0, 100.0, "tokens")]
    made, clock, kept = alerter(AlertsConfig(recover_s=0), budgets)
    looks(made, clock, 10)
    assert kept.told == [("firing", "budget_used", "alice (k1)")]
    budgets[0] = BudgetUse("k1", "alice", 100.0, 100.0)
    looks(made, clock, 10)
    assert [one.finding.limit for one in kept.notices] == [0.8, 1.0]
    budgets[0] = BudgetUse("k1", "alice", 0.0, 100.0)
    looks(made, clock, 10)
    assert sorted(one.status for one in kept.notices) == ["firing", "firing", "recovered", "recovered"]


def test_an_upstream_is_down_only_after_a_while() -> None:
    made, clock, kept = alerter(AlertsConfig(upstream_down_s=30, recover_s=5))
    made.upstream("mini", "connection refused")
    looks(made, clock, 25)
    made.upstream("mini", "connection refused")
    assert kept.told == []
    looks(made, clock, 10)
    assert kept.told == [("firing", "upstream_down", "mini")]
    made.upstream("mini", None)
    looks(made, clock, 15)
    assert kept.told[1:] == [("recovered", "upstream_down", "mini")]


def test_a_flapping_rule_is_told_once_and_reminded_of_rarely() -> None:
    memory = Memory(AlertsConfig(recover_s=60, repeat_s=600))
    told = []
    for second in range(0, 1200, 10):
        told += memory.take([replace(DOWN, is_bad=second % 20 == 0)], float(second))
    assert [one.status for one in told] == ["firing", "still_firing"]


def test_windows_forget_and_quantiles_hold() -> None:
    window = Window(30.0)
    for second in range(100):
        window.ended("mini", GOOD, float(second))
    assert 28 <= window.tallies(99.0)["mini"].requests <= 31
    assert window.tallies(1000.0) == {}
    tally = Window(1e6)
    for number in range(1, 1001):
        tally.ended("m", replace(GOOD, seconds=number / 100), 0.0)
    assert quantile(tally.tallies(0.0)["m"].seconds, 0.95) == pytest.approx(9.5, rel=0.04)
    assert bucket(0.0) == bucket(-1.0)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("rule", ["error_rate", "latency_p95", "first_token_p95", "budget_used", "upstream_down"])
@pytest.mark.parametrize("status", ["firing", "still_firing", "recovered"])
def test_every_alert_can_be_said_in_both_languages(language: Any, rule: Any, status: Any) -> None:
    notice = Notice(
        "1", status, Finding(rule, "<!channel> @all [x](http://e)\n模型", True, 0.5, 0.1, "money"), 1.0, 2.0
    )
    said = text(notice, language)
    assert "模型" in said
    assert not set(said) & set("<>\n@[]")
    for format in ("json", "slack", "dingtalk", "feishu", "wecom"):
        json.loads(message(notice, format, language, None, 0.0).body)  # type: ignore[arg-type]


def test_signatures_are_those_that_the_receivers_document() -> None:
    notice = Notice("1", "firing", DOWN, 1.0, 2.0)
    signed = message(notice, "json", "en", "secret", 1700000000.0)
    expected = hmac.new(b"secret", signed.body, hashlib.sha256).hexdigest()
    assert signed.headers == {"X-Nacre-Signature": f"sha256={expected}"}
    assert message(notice, "dingtalk", "zh", "secret", 1700000000.0).query.startswith("timestamp=1700000000000&sign=")
    assert json.loads(message(notice, "feishu", "zh", "secret", 1700000000.0).body)["timestamp"] == "1700000000"
    assert refused_by("dingtalk", b'{"errcode":310000}') == "it answers with code 310000"
    assert refused_by("feishu", b'{"code":0}') is None
    assert refused_by("slack", b"ok") is None


# --- delivery, to a real server on loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def delivered(handler: Handler, notices: int, seconds: float = 5.0, **more: Any) -> tuple[int, int]:
    """Sends notices to a receiver; how many arrived and how many were given up."""
    application = web.Application()
    application.router.add_post("/hook", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    hook = WebhookConfig(address=f"http://127.0.0.1:{port}/hook")
    made = Alerter(AlertsConfig(webhooks={"team": hook}, backoff_s=0.01, attempts=3, timeout_s=2.0, **more))
    await made.webhooks.start()
    for _ in range(notices):
        made.webhooks.put(Notice("1", "firing", DOWN, 1.0, 2.0))
    await made.webhooks.close(seconds)
    await runner.cleanup()
    return made.webhooks.sent, made.webhooks.dropped


def test_a_receiver_that_stumbles_is_tried_again() -> None:
    seen: list[dict[str, Any]] = []

    async def stumbling(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.Response(status=503 if len(seen) < 3 else 200)

    assert asyncio.run(delivered(stumbling, 1)) == (1, 0)
    assert len(seen) == 3
    assert seen[0]["rule"] == "upstream_down"
    assert seen[0]["id"] == seen[2]["id"]


def test_what_cannot_arrive_is_given_up_and_counted() -> None:
    tries: list[int] = []

    async def refusing(_request: web.Request) -> web.Response:
        tries.append(1)
        return web.Response(status=403)

    assert asyncio.run(delivered(refusing, 2)) == (0, 2)
    assert len(tries) == 2


def test_redirects_are_not_followed() -> None:
    reached: list[str] = []

    async def moving(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/other"})

    assert asyncio.run(delivered(moving, 1)) == (0, 1)
    assert reached == ["/hook"]


def test_a_full_queue_drops_the_oldest_and_counts_them() -> None:
    async def slow(_request: web.Request) -> web.Response:
        return web.Response()

    sent, dropped = asyncio.run(delivered(slow, 10, queue=3))
    assert (sent, dropped) == (3, 7)


def test_an_alerter_whose_budgets_fail_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> Sequence[BudgetUse]:
        raise OSError("postgresql://user:secret@host")

    async def run() -> int:
        made = Alerter(AlertsConfig(every_s=0.01), broken)
        await made.start()
        while made.failures < 3:
            await asyncio.sleep(0.01)
        await made.close()
        return made.failures

    assert asyncio.run(asyncio.wait_for(run(), 10)) >= 3
    assert "secret" not in caplog.text


# --- config


def test_the_robots_address_stays_out_of_errors_and_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://oapi.example.com/robot/send?access_token=verysecret")
    with pytest.raises(ConfigError) as caught:
        read({"alerts": {"webhooks": {"team": {"format": "dingtalk", "address_variable": "HOOK"}}}})
    assert "plain http" in str(caught.value)
    assert "verysecret" not in str(caught.value)
    made = Alerter(AlertsConfig(webhooks={"team": WebhookConfig(format="dingtalk", address_variable="HOOK")}))
    assert "verysecret" not in repr(made.webhooks.hooks)


@pytest.mark.parametrize(
    ("webhook", "said"),
    [
        ({"address": "http://169.254.169.254/latest"}, "not a public address"),
        ({"address": "https://10.0.0.1/hook"}, "not a public address"),
        ({"address": "https://[::ffff:10.0.0.1]/hook"}, "not a public address"),
        ({"address": "file:///etc/passwd"}, "neither http nor https"),
        ({"address": "https://user:pass@example.com/hook"}, "password"),
        ({"address": "https://example.com/hook?key=1"}, "a token stands in the address"),
        ({"address": "http://example.com/hook"}, "plain http"),
        ({}, "either `address` or `address_variable`"),
        ({"address_variable": "NOT_SET_HERE"}, "is not set"),
        ({"address": "https://example.com", "secret_variable": "PATH", "format": "slack"}, "has no signature"),
        ({"adress": "https://example.com"}, "address"),
    ],
)
def test_addresses_that_are_refused(webhook: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + said.replace("`", ".")):
        read({"alerts": {"webhooks": {"team": webhook}}})


def test_shares_and_times_that_cannot_be_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        read({"alerts": {"error_rate": 5.0, "budget_used": [80.0], "every_s": 0.0}})
    assert "3 mistakes" in str(caught.value)
