"""What a lineage gives to look at: the sentences of `lineage/finding.py`, each with its Chinese."""

from __future__ import annotations

from nacre.lineage.finding import SENTENCES

_CHINESE = {
    "not_recorded": "{audit} 推断 {ref} 派生自 {parent}，而其记录中没有提到它",
    "not_confirmed": "{ref} 与 {parent} 的关系为“{relation}”（依据：{basis}）；{audit} 未能证实（{verdict}）",
    "both_ways": "某项审计推断出一个来源，而该来源本身由 {ref} 制成：仅凭文件无法判断先后",
    "circle": "{ref} 以自身为来源：其记录被改动过",
    "gone": "{ref} 已不在此处；按当时的记录显示",
    "other_bytes": "{ref} 的内容（{now}）与被使用时（{then}）不同",
    "file_missing": "{ref}：文件 {file} 在产物写成之后丢失（{folder}）",
    "file_added": "{ref}：文件 {file} 是在产物写成之后添加的（{folder}）",
    "file_changed": "{ref}：文件 {file} 在产物写成之后被改动（{folder}）",
    "twin": "{ref} 与 {twin} 的制作方式相同而内容不同：该步骤不可重复",
    "licence_none": "{ref} 的许可不明（未声明）",
    "licence_unclear": "{ref} 的许可不明（{licence}）",
    "licence_noncommercial": "{ref} 的许可仅限非商用（{licence}）",
    "licence_none_reaches": "{ref} 的许可不明（未声明），并影响 {root}",
    "licence_unclear_reaches": "{ref} 的许可不明（{licence}），并影响 {root}",
    "licence_noncommercial_reaches": "{ref} 的许可仅限非商用（{licence}），并影响 {root}",
    "unnamed": "没有记录提到它",
    "unconfirmed": "{audit} 未能证实：{verdict}",
}
ROWS: dict[str, tuple[str, str]] = {f"found_{name}": (said, _CHINESE[name]) for name, said in SENTENCES.items()}
