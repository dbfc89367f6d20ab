"""The `watch` section of the gateway's config: the log, traces, and what is worth an alert and who is told.

watch:
  log: {to: /var/log/nacre/requests.jsonl}
  alerts:
    latency_p95_s: 20
    webhooks:
      team: {format: feishu, address_variable: FEISHU_HOOK, secret_variable: FEISHU_SECRET, language: zh}
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nacre.lifecycle.serve.addresses import check_upstream, is_loopback_host, split
from nacre.recipe.config import Problem, raise_problems, try_build

Format = Literal["json", "slack", "dingtalk", "feishu", "wecom"]
Language = Literal["en", "zh"]
SIGNED: frozenset[Format] = frozenset({"json", "dingtalk", "feishu"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class WebhookConfig:
    """Who is told. The address of a chat robot is a secret itself: name the environment variable that holds it.

    `secret_variable` names the secret that messages are signed with. Private addresses need `allow_private`, plain
    http to another machine `insecure`.
    """

    format: Format = "json"
    address: str | None = None
    address_variable: str | None = None
    secret_variable: str | None = None
    language: Language = "en"
    allow_private: bool = False
    insecure: bool = False


@dataclass(frozen=True)
class AlertsConfig:
    """What is worth an alert; None turns a rule off. Rates and latencies are judged per model over `window_s`.

    `at_least` requests are wanted in the window. A rule that holds no longer is reported as recovered after
    `recover_s`; one that goes on is reported again every `repeat_s`.
    """

    webhooks: Mapping[str, WebhookConfig] = field(default_factory=dict)
    error_rate: float | None = 0.05
    latency_p95_s: float | None = 60.0
    first_token_p95_s: float | None = 15.0
    budget_used: tuple[float, ...] = (0.8, 1.0)
    upstream_down_s: float | None = 30.0
    window_s: float = 300.0
    at_least: int = 20
    every_s: float = 5.0
    recover_s: float = 60.0
    repeat_s: float = 4 * 3600.0
    queue: int = 64  # messages that wait for one webhook; the oldest are dropped and counted
    attempts: int = 8
    backoff_s: float = 1.0
    longest_backoff_s: float = 300.0
    timeout_s: float = 10.0


@dataclass(frozen=True)
class LogConfig:
    """Where the line per request goes: `stderr`, `stdout`, `none`, or a file that is only added to."""

    to: str = "stderr"
    queue: int = 65536  # lines that wait for a slow disk; further ones are dropped and counted


@dataclass(frozen=True)
class TracesConfig:
    """OpenTelemetry; the exporter's address is in OTEL_EXPORTER_OTLP_ENDPOINT, as everywhere."""

    on: bool = False
    service: str = "nacre-gateway"


@dataclass(frozen=True)
class WatchConfig:
    """Everything about watching the gateway."""

    log: LogConfig = field(default_factory=LogConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)


def read(values: Mapping[str, Any], where: str = "watch") -> WatchConfig:
    """The section as a config; raises ConfigError that names every mistake."""
    built, problems = try_build(WatchConfig, values, where)
    if built is not None:
        problems = list(check(built, where))
    raise_problems(problems)
    assert built is not None  # no problems means built
    return built


def check(config: WatchConfig, where: str) -> Iterator[Problem]:
    """What types cannot say: addresses, variables that are set, numbers above zero, shares."""
    alerts, at = config.alerts, f"{where}.alerts"
    for name in (
        "error_rate", "latency_p95_s", "first_token_p95_s", "upstream_down_s", "window_s", "at_least", "every_s",
        "repeat_s", "queue", "attempts", "backoff_s", "longest_backoff_s", "timeout_s",
    ):  # fmt: skip
        value = getattr(alerts, name)
        if value is not None and not 0 < value < float("inf"):
            yield Problem(f"{at}.{name}", f"{value} is not above 0", "give a number above 0")
    if not 0 <= alerts.recover_s < float("inf"):
        yield Problem(f"{at}.recover_s", f"{alerts.recover_s} is no time", "give 0 or more seconds")
    if alerts.error_rate is not None and alerts.error_rate > 1:
        yield Problem(f"{at}.error_rate", f"{alerts.error_rate} is more than all requests", "such as 0.05 for 5 %")
    for share in alerts.budget_used:
        if not 0 < share <= 1:
            yield Problem(f"{at}.budget_used", f"{share} is no share of a budget", "such as [0.8, 1.0]")
    if config.log.queue < 1:
        yield Problem(f"{where}.log.queue", f"{config.log.queue} is not above 0", "give a number above 0")
    for name, webhook in alerts.webhooks.items():
        yield from _check_webhook(webhook, f"{at}.webhooks.{name}")


def address_of(webhook: WebhookConfig) -> str:
    """Where its messages go. Only after `check`, which says what is missing."""
    return webhook.address or os.environ[webhook.address_variable or ""]


def secret_of(webhook: WebhookConfig) -> str | None:
    """What its messages are signed with."""
    return os.environ[webhook.secret_variable] if webhook.secret_variable else None


def _check_webhook(webhook: WebhookConfig, where: str) -> Iterator[Problem]:
    if (webhook.address is None) == (webhook.address_variable is None):
        yield Problem(where, "give either `address` or `address_variable`", "a robot's address belongs in a variable")
        return
    missing = False
    for field_name in ("address_variable", "secret_variable"):
        name = getattr(webhook, field_name)
        if name is not None and not _VARIABLE.fullmatch(name):
            missing = True
            yield Problem(f"{where}.{field_name}", "this is no name of an environment variable", "such as ALERT_HOOK")
        elif name is not None and not os.environ.get(name):
            missing = True
            yield Problem(f"{where}.{field_name}", f"{name} is not set", f"export {name}=... before the start")
    if webhook.secret_variable and webhook.format not in SIGNED:
        yield Problem(f"{where}.secret_variable", f"{webhook.format} has no signature", "leave it out")
    if not missing:
        yield from _check_address(webhook, where)


def _check_address(webhook: WebhookConfig, where: str) -> Iterator[Problem]:
    kind = "address" if webhook.address else "address_variable"
    base = address_of(webhook).partition("?")[0]
    problems = list(check_upstream(base, webhook.allow_private, f"{where}.{kind}"))
    yield from problems
    if webhook.address and "?" in webhook.address:
        yield Problem(f"{where}.address", "a token stands in the address", "put it into a variable: address_variable")
    if not problems and not webhook.insecure:
        parts = split(base)
        if parts.scheme == "http" and not is_loopback_host(parts.hostname or ""):
            yield Problem(f"{where}.{kind}", "plain http to another machine", "use https, or set insecure: true")
