"""What the pages of ladder and audit reports have in common."""

from __future__ import annotations

ROWS: dict[str, tuple[str, str]] = {
    "report_whole": ("The whole report", "完整报告"),
    "report_own_tab": ("on a page of its own", "单独打开"),
    "report_as_kept": ("as it was kept", "查看留存原件"),
    "report_artifact": ("Artifact", "产物"),
    "report_date": ("Date", "日期"),
    "report_damaged": ("This report cannot be read", "这份报告无法读取"),
    "report_damaged_short": ("cannot be read", "无法读取"),
    "report_changed": (
        "Changed after it was written: {files}. What is shown is what the file says now.",
        "写成之后被改动过：{files}。此处显示的是文件现在的内容。",
    ),
    "report_trace": ("Where it comes from", "来源"),
    "report_show": ("Show", "显示"),
    "report_all": ("all", "全部"),
    "pages": ("Pages", "分页"),
    "page_newer": ("newer", "较新"),
    "page_older": ("older", "较旧"),
    "page_of": ("page {number} of {last}", "第 {number} 页，共 {last} 页"),
}
