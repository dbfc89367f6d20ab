"""Ladder reports. Tiers, metrics and figures are said in the ladder's own words."""

from __future__ import annotations

ROWS: dict[str, tuple[str, str]] = {
    "ladders_lead": (
        "One task solved at every tier, from the classical baseline to a model of one's own: what each is worth, and "
        "which is enough.",
        "同一任务在每一层各解一遍，从经典基线到自有模型：各值多少，哪一层就够了。",
    ),
    "ladders_none": (
        "No ladder has been climbed in this store. This command climbs the one of the built-in task:",
        "此仓库中还没有阶梯报告。以下命令会为内置任务生成一份：",
    ),
    "ladders_none_of_task": ("There is no report of this task.", "没有这项任务的报告。"),
    "ladder_task": ("Task", "任务"),
    "ladder_metric": ("Metric", "指标"),
    "ladder_recommended": ("Recommended", "推荐"),
    "ladder_best": ("Best", "最佳"),
    "ladder_try": ("try it", "试用"),
    "ladder_gone": ("no longer in the store", "已不在仓库中"),
    "ladder_test_rows": ("Test rows", "测试样本"),
    "ladder_currency": ("Currency", "货币"),
    "ladder_compare": ("Beside another ladder of this task", "与同一任务的另一份报告对比"),
    "ladder_compare_with": ("The other ladder", "另一份报告"),
    "ladder_compare_button": ("Compare", "对比"),
    "ladder_compare_stop": ("without the comparison", "结束对比"),
    "ladder_here": ("This one", "本报告"),
    "ladder_there": ("The other", "另一份"),
    "ladder_difference": ("Difference, points", "差值（百分点）"),
    "ladder_differs": (
        "The two are not alike, so that scores may not be comparable:",
        "两份报告条件不同，得分未必可比：",
    ),
    "ladder_difference_about": (
        "Score of this ladder minus score of the other. The runs are separate: no test says whether they differ.",
        "本报告得分减去另一份的得分。两次运行相互独立，未作显著性检验。",
    ),
}
