"""The first page."""

from __future__ import annotations

ROWS: dict[str, tuple[str, str]] = {
    "overview_empty": (
        "Nothing has been made here yet. Three ways to begin:",
        "这里还没有任何产物。可以从以下三条命令之一开始：",
    ),
    "overview_run": (
        "Build a small model of one's own from data to report, in a few minutes.",
        "几分钟内从数据到报告，构建一个属于自己的小模型。",
    ),
    "overview_ladder": (
        "Solve one task at every tier, from a classical baseline to a model of one's own, and see which is enough.",
        "将一项任务从经典基线到自有模型逐层求解，看哪一层就够用。",
    ),
    "overview_audit": (
        "Find out what a model really derives from, by its files alone.",
        "仅凭文件查明一个模型的真实来源。",
    ),
    "overview_here": ("What is here", "现有产物"),
    "overview_damaged": ("damaged", "损坏"),
    "overview_newest": ("Newest artifacts", "最新产物"),
    "overview_all_artifacts": ("all artifacts", "全部产物"),
    "overview_runs": ("Under way", "进行中"),
    "overview_more_runs": ("{n} more are under way or cut short", "另有 {n} 个正在进行或被中断"),
    "overview_verdicts": ("Latest findings", "最新结论"),
    "overview_newest_ladder": ("Newest ladder", "最新阶梯"),
    "overview_newest_audit": ("Newest audit", "最新审计"),
    "overview_no_ladder": ("No ladder has been climbed yet.", "还没有阶梯报告。"),
    "overview_no_audit": ("Nothing has been audited yet.", "还没有审计。"),
    "overview_unreadable": ("The report cannot be read: {problem}", "报告无法读取：{problem}"),
    "overview_gateway": ("Gateway", "网关"),
    "overview_models": ("Models", "模型"),
    "overview_no_models": (
        "This gateway has no models. Name some: nacre serve REF ...",
        "此网关没有模型。启动时指定：nacre serve REF ...",
    ),
    "overview_more_models": ("and {n} more", "另有 {n} 个"),
    "overview_answers": ("answers", "可用"),
    "overview_silent": ("does not answer", "不可用"),
    "overview_today": ("Today (UTC)", "今日（UTC）"),
    "overview_requests": ("Requests", "请求"),
    "overview_refused": ("{n} refused", "其中 {n} 个被拒绝"),
    "overview_tokens": ("Tokens", "词元"),
    "overview_money": ("Money", "费用"),
    "overview_unpriced": ("without a known price: {n}", "价格未知的请求：{n}"),
    "overview_ledger_down": ("The ledger does not answer: {problem}", "账本无响应：{problem}"),
    "overview_key_lead": ("What your key may ask for.", "您的密钥可以使用的模型。"),
    "overview_to_chat": ("Try a model", "试用模型"),
    "overview_store": ("Store", "仓库"),
}
