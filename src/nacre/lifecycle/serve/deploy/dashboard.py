"""The Grafana dashboard, drawn from a table of panels: title in English and Chinese, unit, queries."""

from __future__ import annotations

from typing import Any

_RATE = "[$__rate_interval]"
_MODEL = 'model=~"$model"'
_QUANTILES = (0.5, 0.95, 0.99)


def _quantile(share: float, name: str) -> tuple[str, str]:
    rate = f"sum by (le) (rate({name}_bucket{{{_MODEL}}}{_RATE}))"
    return f"histogram_quantile({share}, {rate})", f"p{share * 100:g}"


def _rate(name: str, by: str, where: str = "") -> str:
    inside = ",".join(one for one in (_MODEL, where) if one)
    return f"sum by ({by}) (rate({name}{{{inside}}}{_RATE}))"


_BAD = 'outcome=~"upstream_error|cut_short|failed"'
_OK = 'outcome="ok"'
_JUDGED = 'outcome!~"refused|client_left"'
_PANELS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Requests per second", "每秒请求数", "reqps", ((_rate("nacre_requests_total", "model"), "{{model}}"),)),
    ("Failed requests", "失败请求占比", "percentunit",
     ((f"{_rate('nacre_requests_total', 'model', _BAD)} / {_rate('nacre_requests_total', 'model', _JUDGED)}",
       "{{model}}"),)),
    ("Refused requests by status", "被拒请求（按状态码）", "reqps",
     ((_rate("nacre_requests_total", "status", 'outcome="refused"'), "{{status}}"),)),
    ("Time to the first token", "首个词元耗时", "s",
     tuple(_quantile(share, "nacre_first_token_seconds") for share in _QUANTILES)),
    ("Time to the end of the answer", "完整回答耗时", "s",
     tuple(_quantile(share, "nacre_request_seconds") for share in _QUANTILES)),
    ("Tokens per second", "每秒词元数", "short",
     ((_rate("nacre_tokens_total", "model, direction"), "{{model}} {{direction}}"),)),
    ("Money per hour", "每小时费用", "short", ((f"{_rate('nacre_money_total', 'model')} * 3600", "{{model}}"),)),
    ("Requests of unknown price or tokens", "价格或词元数未知的请求", "short",
     (("sum by (model) (increase(nacre_unpriced_requests_total[1h]))", "{{model}} price"),
      ("sum by (model) (increase(nacre_uncounted_requests_total[1h]))", "{{model}} tokens"),
      ("sum by (model) (increase(nacre_disagreeing_requests_total[1h]))", "{{model}} counts disagree"))),
    ("Queue of local models", "本地模型队列", "short",
     ((f"sum by (model) (nacre_queue_waiting{{{_MODEL}}})", "{{model}} waiting"),
      (f"sum by (model) (nacre_queue_running{{{_MODEL}}})", "{{model}} running"))),
    ("Answers from the cache", "缓存命中占比", "percentunit",
     ((f"{_rate('nacre_cache_hits_total', 'model')} / {_rate('nacre_requests_total', 'model', _OK)}",
       "{{model}}"),)),
    ("Cache: misses, kept and evicted answers", "缓存：未命中、已保存与被淘汰", "short",
     tuple((f"sum(increase(nacre_cache_{name}_total{_RATE}))", name) for name in ("misses", "kept", "evicted"))),
    ("Masked personal data", "已脱敏的个人信息", "short",
     ((f"sum by (kind) (increase(nacre_masked_total{_RATE}))", "{{kind}}"),)),
    ("Models that answer", "可应答的模型", "short", (("min by (model) (nacre_upstream_up)", "{{model}}"),)),
    ("Open alerts; lost lines and messages", "未恢复的告警；丢失的日志与消息", "short",
     (("max(nacre_alerts_firing)", "alerts"), ("sum(increase(nacre_log_lines_dropped_total[1h]))", "lost lines"),
      ("sum(increase(nacre_alert_messages_dropped_total[1h]))", "lost messages"),
      ("sum(increase(nacre_alert_failures_total[1h]))", "failed looks"))),
    ("Memory", "内存", "bytes", (('process_resident_memory_bytes{job=~"$job"}', "{{instance}}"),)),
    ("Workers, and those that died in the last hour", "工作进程数，及最近一小时内退出的进程", "short",
     (("sum(nacre_workers)", "workers"), ("sum(increase(nacre_worker_restarts_total[1h]))", "restarts"))),
    ("Open file handles", "打开的文件句柄", "short", (('process_open_fds{job=~"$job"}', "{{instance}}"),)),
)  # fmt: skip


def dashboard(language: str = "en") -> dict[str, Any]:
    """The dashboard as Grafana imports it (schema 39), titles in `en` or `zh`."""
    panels = [_panel(number, one, language) for number, one in enumerate(_PANELS)]
    return {
        "uid": f"nacre-gateway-{language}", "title": "Nacre 网关" if language == "zh" else "Nacre gateway",
        "schemaVersion": 39, "tags": ["nacre"], "timezone": "browser", "refresh": "30s", "editable": True,
        "time": {"from": "now-6h", "to": "now"}, "panels": panels,
        "templating": {"list": [
            {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
            _choice("job", "label_values(nacre_build_info, job)"),
            _choice("model", "label_values(nacre_requests_total, model)"),
        ]},
    }  # fmt: skip


def _choice(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "type": "query", "query": {"query": query, "refId": name}, "includeAll": True, "multi": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2,
        "datasource": {"type": "prometheus", "uid": "${source}"},
    }  # fmt: skip


def _panel(
    number: int, panel: tuple[str, str, str, tuple[tuple[str, str], ...]], language: str
) -> dict[str, Any]:  # fmt: skip
    english, chinese, unit, queries = panel
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1, "type": "timeseries", "title": chinese if language == "zh" else english, "datasource": source,
        "gridPos": {"h": 8, "w": 8, "x": number % 3 * 8, "y": number // 3 * 8},
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"lineWidth": 1, "fillOpacity": 8}}, "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend, "datasource": source}
            for at, (query, legend) in enumerate(queries)
        ],
    }  # fmt: skip
