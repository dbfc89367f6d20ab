"""The frame of every page: navigation, settings, signing in, errors."""

from __future__ import annotations

ROWS: dict[str, tuple[str, str]] = {
    "nacre": ("Nacre", "Nacre"),
    "skip": ("To the content", "跳到正文"),
    "nav": ("Areas", "栏目"),
    "overview": ("Overview", "概览"),
    "artifacts": ("Artifacts", "产物"),
    "runs": ("Runs", "运行"),
    "ladders": ("Ladders", "阶梯"),
    "audits": ("Audits", "审计"),
    "chat": ("Chat", "对话"),
    "usage": ("Usage", "用量"),
    "keys": ("Keys", "密钥"),
    "settings": ("Settings", "设置"),
    "language": ("Language", "语言"),
    "theme": ("Theme", "外观"),
    "theme_auto": ("as the system", "跟随系统"),
    "theme_light": ("light", "浅色"),
    "theme_dark": ("dark", "深色"),
    "sign_in": ("Sign in", "登录"),
    "sign_out": ("Sign out", "退出"),
    "signed_in_as": ("signed in as {name}", "已登录：{name}"),
    "your_key": ("Your key", "您的密钥"),
    "sign_in_about": (
        "This gateway asks for a key. An administrator makes one with: nacre serve keys create NAME",
        "此网关需要密钥。管理员可用以下命令创建：nacre serve keys create NAME",
    ),
    "wrong_key": (
        "This key is not known here: check it, or ask for a new one.",
        "此处没有这个密钥：请核对，或申请新的密钥。",
    ),
    "error": ("Error", "错误"),
    "remedy": ("What to do", "处理办法"),
    "not_found": ("There is no such page", "没有这个页面"),
    "not_found_remedy": ("go to one of the areas above", "请从上方栏目进入"),
    "admin_needed": ("An administrator's key is needed here", "此处需要管理员密钥"),
    "admin_needed_remedy": (
        "sign in with one: nacre serve keys create NAME --admin",
        "请用管理员密钥登录：nacre serve keys create NAME --admin",
    ),
    "foreign_request": (
        "This request came from another page, or names another host",
        "此请求来自其他页面，或指向其他主机",
    ),
    "foreign_request_remedy": ("open the page itself and try again", "请直接打开本页面后重试"),
    "fault": ("A fault in Nacre (number {number})", "Nacre 内部故障（编号 {number}）"),
    "fault_remedy": (
        "the log of nacre holds the details under this number",
        "详情见 nacre 日志中的此编号",
    ),
    "of": ("{shown} of {total}", "{total} 中的 {shown}"),
    "none_yet": ("none yet", "暂无"),
    "unknown": ("unknown", "未知"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
}
