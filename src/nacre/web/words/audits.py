"""Audit reports. Verdicts, stages and sentences are said in the audit's own words."""

from __future__ import annotations

ROWS: dict[str, tuple[str, str]] = {
    "audits_lead": (
        "Whether a model or data set derives from another, stage by stage, with the chance of error and what was left "
        "untested.",
        "一个模型或数据集是否派生自另一个：逐阶段判定，附误判概率与未检验的内容。",
    ),
    "audits_none": (
        "No audit is kept in this store. This command makes one, of any two models or data sets:",
        "此仓库中还没有审计报告。以下命令可审计任意两个模型或数据集：",
    ),
    "audits_none_of_verdict": ("No audit came to this verdict.", "没有得出此判定的审计。"),
    "audit_subject": ("Subject", "被审对象"),
    "audit_references": ("Beside", "参照"),
    "audit_verdict": ("Verdict", "判定"),
    "audit_any_verdict": ("any", "不限"),
    "audit_more": ("and {n} more", "另有 {n} 个"),
    "audit_p": ("p-value", "p 值"),
    "audit_tier": ("Evidence", "证据等级"),
    "audit_finding": ("Finding", "结论"),
    "audit_stage": ("Stage", "阶段"),
    "audit_beside": ("Beside {ref}", "以 {ref} 为参照"),
    "audit_disagrees": (
        "The recorded lineage says otherwise",
        "与谱系记录不一致",
    ),
    "audit_outside": ("not of this store", "不在此仓库中"),
}
