"""What an alert says, in Chinese and English, and the shapes in which chat robots and other receivers take it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from nacre.lifecycle.serve.watch.config import Format, Language
from nacre.lifecycle.serve.watch.rules import Notice

LONGEST = 300  # characters of a name or reason in a message
_HEADS: dict[Language, dict[str, str]] = {
    "en": {"firing": "Alert", "still_firing": "Still open", "recovered": "Recovered"},
    "zh": {"firing": "告警", "still_firing": "仍未恢复", "recovered": "已恢复"},
}
_RULES: dict[Language, dict[str, str]] = {
    "en": {
        "error_rate": "{subject}: {value:.1%} of the requests fail (limit {limit:.1%})",
        "latency_p95": "{subject}: 95 % of the answers are complete within {value:.2f} s only (limit {limit:g} s)",
        "first_token_p95": "{subject}: 95 % of the first tokens come within {value:.2f} s only (limit {limit:g} s)",
        "budget_used": "key {subject} has used {value:.0%} of its budget of {detail} (told from {limit:.0%})",
        "upstream_down": "{subject} has not answered for {value:.0f} s: {detail}",
    },
    "zh": {
        "error_rate": "{subject}：{value:.1%} 的请求失败（上限 {limit:.1%}）",
        "latency_p95": "{subject}：95% 的回答要 {value:.2f} 秒内才能完成（上限 {limit:g} 秒）",
        "first_token_p95": "{subject}：95% 的首个词元要 {value:.2f} 秒内才到达（上限 {limit:g} 秒）",
        "budget_used": "密钥 {subject} 已用掉{detail}预算的 {value:.0%}（达到 {limit:.0%} 即通知）",
        "upstream_down": "{subject} 已有 {value:.0f} 秒没有应答：{detail}",
    },
}
_OVER: dict[Language, dict[str, str]] = {
    "en": {
        "error_rate": "{subject}: the rate of failed requests is below {limit:.1%} again",
        "latency_p95": "{subject}: answers are complete within {limit:g} s again",
        "first_token_p95": "{subject}: first tokens come within {limit:g} s again",
        "budget_used": "key {subject} is below {limit:.0%} of its budget of {detail} again",
        "upstream_down": "{subject} answers again",
    },
    "zh": {
        "error_rate": "{subject}：请求失败率已回到 {limit:.1%} 以下",
        "latency_p95": "{subject}：回答又能在 {limit:g} 秒内完成",
        "first_token_p95": "{subject}：首个词元又能在 {limit:g} 秒内到达",
        "budget_used": "密钥 {subject} 的{detail}预算用量已回到 {limit:.0%} 以下",
        "upstream_down": "{subject} 已恢复应答",
    },
}
_UNITS: dict[Language, dict[str, str]] = {
    "en": {"money": "money", "tokens": "tokens"},
    "zh": {"money": "金额", "tokens": "词元"},
}
_QUIET: dict[Language, str] = {
    "en": "{subject}: nothing to judge any more (no requests lately, or it was removed)",
    "zh": "{subject}：已没有可判断的内容（近期没有请求，或已被删除）",
}


@dataclass(frozen=True)
class Message:
    """One POST: its body, and what signing adds to the address and the headers."""

    body: bytes
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def text(notice: Notice, language: Language) -> str:
    """The sentence about a notice, one line."""
    finding = notice.finding
    detail = _UNITS[language].get(finding.detail, finding.detail)
    if notice.status != "recovered":
        pattern = _RULES[language][finding.rule]
    elif finding.value is None and finding.rule not in ("upstream_down", "budget_used"):
        pattern = _QUIET[language]
    else:
        pattern = _OVER[language][finding.rule]
    value = 0.0 if finding.value is None else finding.value
    return pattern.format(subject=_plain(finding.subject), value=value, limit=finding.limit, detail=_plain(detail))


def message(notice: Notice, format: Format, language: Language, secret: str | None, now: float) -> Message:
    """The POST of a notice. `now` is Unix time: signatures hold for minutes."""
    head = f"[Nacre] {_HEADS[language][notice.status]}"
    line = text(notice, language)
    if format == "slack":
        return Message(_bytes({"text": f"*{head}*\n{line}"}))
    if format == "wecom":
        return Message(_bytes({"msgtype": "markdown", "markdown": {"content": f"**{head}**\n{line}"}}))
    if format == "dingtalk":
        body = _bytes({"msgtype": "markdown", "markdown": {"title": head, "text": f"**{head}**\n\n{line}"}})
        return Message(body, _dingtalk(secret, now) if secret else "")
    if format == "feishu":
        signed = _feishu(secret, now) if secret else {}
        return Message(_bytes({**signed, "msg_type": "text", "content": {"text": f"{head}\n{line}"}}))
    body = _bytes(_plain_json(notice, head, line))
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest() if secret else None
    return Message(body, headers={"X-Nacre-Signature": f"sha256={digest}"} if digest else {})


def refused_by(format: Format, answer: bytes) -> str | None:
    """Why a robot did not take a message although it answered 200; None where it did."""
    if format not in ("dingtalk", "wecom", "feishu"):
        return None
    try:
        parsed = json.loads(answer)
    except ValueError:
        return "its answer is no JSON"
    codes = [parsed.get(name) for name in ("errcode", "code", "StatusCode")] if isinstance(parsed, dict) else []
    code = next((one for one in codes if one is not None), None)
    return None if code == 0 else f"it answers with code {code if isinstance(code, int) else 'unknown'}"


def _plain_json(notice: Notice, head: str, line: str) -> dict[str, Any]:
    finding = notice.finding
    return {
        "id": notice.id, "status": notice.status, "rule": finding.rule, "subject": finding.subject,
        "value": finding.value, "limit": finding.limit, "detail": finding.detail, "title": head, "text": line,
        "since": _moment(notice.since), "at": _moment(notice.at),
    }  # fmt: skip


def _dingtalk(secret: str, now: float) -> str:
    """open.dingtalk.com, custom robots, signature: HMAC-SHA256 of `TIMESTAMP\\nSECRET` under the secret."""
    stamp = str(int(now * 1000))
    digest = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
    return urlencode({"timestamp": stamp, "sign": base64.b64encode(digest).decode()})


def _feishu(secret: str, now: float) -> dict[str, str]:
    """open.feishu.cn, custom bots, signature: HMAC-SHA256 of nothing under `TIMESTAMP\\nSECRET`."""
    stamp = str(int(now))
    digest = hmac.new(f"{stamp}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": stamp, "sign": base64.b64encode(digest).decode()}


def _plain(name: str) -> str:
    """A name or reason without what robots read as markup: no line breaks, links, tags or mentions."""
    clean = "".join(one if one.isprintable() else " " for one in name)
    clean = clean.translate({ord("<"): "‹", ord(">"): "›", ord("&"): "＆", ord("["): "(", ord("]"): ")", ord("*"): "·"})
    clean = clean.replace("@", "＠").replace("`", "'")
    return clean if len(clean) <= LONGEST else clean[:LONGEST] + " …"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
