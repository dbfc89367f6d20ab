"""What the ladder says, in English and Chinese. One table of sentences, so that neither language can lag behind.

Labels of the report are in `labels.py`; metrics and sections of single evaluations in
`lifecycle/evaluate/words.py`, which this builds on.
"""

from __future__ import annotations

from collections.abc import Mapping

from nacre.ladder.labels import LABELS
from nacre.lifecycle.evaluate.words import LANGUAGES
from nacre.lifecycle.evaluate.words import Words as EvaluateWords
from nacre.tiers.rung import TIERS

SENTENCES: Mapping[str, tuple[str, str]] = {
    # the recommendation
    "head_nothing": ("No tier could be measured.", "没有任何一层测出结果。"),
    "head_alone": ("Only {tier} was measured.", "只有{tier}测出了结果。"),
    "head_enough": ("{tier} is enough.", "{tier}就够了。"),
    "head_margin": ("{tier} is enough, within {margin} points.", "在 {margin} 个百分点的容差内，{tier}就够了。"),
    "head_best": ("The task needs {tier}.", "这项任务需要{tier}。"),
    "why_nothing": (
        "So none is recommended; every row says why.",
        "因此不作推荐；各行写明了原因。",
    ),
    "why_alone": (
        "{metric}: {score} ({interval}) on {n} test examples. There is nothing to compare it with: this is a result "
        "and not a choice.",
        "在 {n} 个测试样本上{metric}为 {score}（{interval}）。没有可比较的对象：这是一个结果，不是选择。",
    ),
    "why_best": (
        "Its {its_metric} of {score} ({interval}) is the highest of {tiers} tiers on {n} test examples, and no "
        "{cheaper} tier reaches it.",
        "在 {n} 个测试样本上，它的{its_metric}为 {score}（{interval}），是 {tiers} 层中最高的，"
        "更{cheaper}的各层都达不到。",
    ),
    "why_best_and_first": (
        "Its {its_metric} of {score} ({interval}) is the highest of {tiers} tiers on {n} test examples, and no tier is "
        "{cheaper}.",
        "在 {n} 个测试样本上，它的{its_metric}为 {score}（{interval}），是 {tiers} 层中最高的，也没有更{cheaper}的层。",
    ),
    "why_enough": (
        "It is the {cheapest} tier that is not shown to be worse than the best, {best}. {metric}: {score} ({interval}) "
        "against {best_score}; the difference is {difference} points ({low} to {high}, {p}) on the same {n} test "
        "examples.",
        "在没有被证明差于最佳的{best}的各层中，它最{cheapest}。"
        "{metric}为 {score}（{interval}），最佳层为 {best_score}；"
        "在同样的 {n} 个测试样本上，差距为 {difference} 个百分点（{low} 至 {high}，{p}）。",
    ),
    "why_margin": (
        "It is the {cheapest} tier whose shortfall is no more than that. {metric}: {score} ({interval}) against "
        "{best_score} of the best, {best}; the difference is {difference} points ({low} to {high}, {p}) on the same "
        "{n} test examples.",
        "在差距不超过容差的各层中，它最{cheapest}。{metric}为 {score}（{interval}），最佳的{best}为 {best_score}；"
        "在同样的 {n} 个测试样本上，差距为 {difference} 个百分点（{low} 至 {high}，{p}）。",
    ),
    "why_baseline": (
        "Nothing here shows that a language model is needed.",
        "没有证据表明这里需要语言模型。",
    ),
    "cheaper": ("cheaper", "便宜"),
    "thinner": ("thinner", "薄"),
    "cheapest": ("cheapest", "便宜"),
    "thinnest": ("thinnest", "薄"),
    # what would change it
    "change_decide": (
        "{best} may still be better, by up to {most} points: with about {n} test examples instead of {now}, a "
        "difference of {difference} points would be decided.",
        "{best}仍可能更好，至多高 {most} 个百分点：若测试样本从 {now} 个增加到约 {n} 个，"
        "{difference} 个百分点的差距便可见分晓。",
    ),
    "change_undecidable": (
        "{best} is ahead by {difference} points; no test set of a usual size would decide a difference so small.",
        "{best}领先 {difference} 个百分点；差距如此之小，常见规模的测试集都无法分辨。",
    ),
    "change_wide": (
        "The interval is wide: {best} may be up to {most} points better than {tier}. More test examples would narrow "
        "it.",
        "区间较宽：{best}可能比{tier}最多高出 {most} 个百分点。增加测试样本可以使其变窄。",
    ),
    "change_rival": (
        "{tier} may yet come out ahead: its difference of {difference} points ({low} to {high}) is not decided.",
        "{tier}仍有可能反超：{difference} 个百分点的差距（{low} 至 {high}）尚无定论。",
    ),
    "change_nothing": (
        "Only other data, other prices or a better solution of another tier: on these examples every other tier "
        "scores less.",
        "只有换数据、换价格或改进其他层的方案才会：在这些样本上，其他各层得分都更低。",
    ),
    "change_accept": (
        "Who can do with {difference} points less ({low} to {high}) takes {tier}{saving}.",
        "若能接受低 {difference} 个百分点（{low} 至 {high}），选{tier}即可{saving}。",
    ),
    "saving": (
        ": {cost} per 1,000 requests instead of {now}",
        "：每千次请求 {cost}，而不是 {now}",
    ),
    "change_price": (
        "{tier} is as good by this test, and thinner: it would be chosen if 1,000 requests cost under {under} "
        "(now {cost}).",
        "按本次检验，{tier}同样好，而且更薄：若每千次请求低于 {under}（现为 {cost}），就会选它。",
    ),
    "change_unknown_cost": (
        "Not known: what 1,000 requests cost with {tiers}. Such tiers are ordered by thickness; with prices in the "
        "task file the order may change.",
        "费用未知：{tiers}。这些层按厚薄排序；在任务文件中给出价格后，顺序可能改变。",
    ),
    "change_no_cost": (
        "No cost is known, so the thinnest tier comes first. With prices in the task file the cheapest would.",
        "各层费用均未知，因此较薄者在前。在任务文件中给出价格后，将以便宜者为先。",
    ),
    "change_holm": (
        "{tier} is worse by its own interval, but not after correction for all the comparisons ({p}): "
        "more test examples may bring it back.",
        "按自身区间，{tier}更差；但按全部比较校正后并不显著（{p}）：增加测试样本后它可能重新入选。",
    ),
    "change_partial": (
        "{tier} was measured on {n} of {all} test examples, then the budget was used up. Its difference "
        "from {best} on these is {difference} points ({low} to {high}). With a larger budget the rest would be "
        "measured.",
        "{tier}只测了 {all} 个测试样本中的 {n} 个，预算就用完了。在这部分上，它与{best}相差 {difference} 个百分点"
        "（{low} 至 {high}）。提高预算可测完其余样本。",
    ),
    "change_best_partial": (
        "{best} was measured on {n} of {all} test examples, then the budget was used up; comparisons with it are on "
        "these.",
        "{best}只测了 {all} 个测试样本中的 {n} 个，预算就用完了；与它的比较都在这部分上进行。",
    ),
    "change_unmeasured": (
        "{tier} was not measured: {reason}.",
        "{tier}没有测出结果：{reason}。",
    ),
    "change_unmeasured_remedy": (
        "{tier} was not measured: {reason}. To measure it: {remedy}.",
        "{tier}没有测出结果：{reason}。若要测量：{remedy}。",
    ),
    "left_out": ("left out by choice", "按选择未运行"),
    "left_out_remedy": ("ask for it: --tiers {tier}", "指定该层：--tiers {tier}"),
    "change_seeds": (
        "{tiers}: trained with one seed only. Repeated over seeds, the score would move, by how much is not known.",
        "{tiers}只用一个随机种子训练过。换种子重复时分数会变动，幅度未知。",
    ),
    # ownership
    "own_on_borrowed": (
        "trained here on a borrowed kernel: its licence still binds",
        "在借来的内核上自行训练：仍受原许可约束",
    ),
    "own_kernel": ("pretrained here from nothing, as this store recorded", "在此从零预训练，本仓库有记录"),
    "own_called": ("a model of this store, called as an engine", "本仓库自有的模型，作为引擎调用"),
    "vectors_of": ("its vectors were made by {ref}", "其向量由 {ref} 生成"),
    "licence_unknown": ("licence unknown", "许可未知"),
    "licence_noncommercial": ("not for commercial use: {licence}", "不得商用：{licence}"),
    "disagrees": (
        "the rung says {said}; its lineage says {found}",
        "方案自称{said}，谱系表明是{found}",
    ),
    "no_lineage": ("by the rung's own word: there is no lineage record", "仅凭方案自述：没有谱系记录"),
    "not_witnessed": ("nobody witnessed the making ({basis})", "制作过程无人见证（{basis}）"),
    "given_file": ("given as a file: that it is yours is not recorded", "以文件给出：归属没有记录"),
    "on_called": ("trained on what {ref} returns", "在 {ref} 的输出上训练"),
    "missing_parent": ("{ref} is no longer here; shown as it was recorded", "{ref} 已不在此处，按原记录显示"),
}


class Words(EvaluateWords):
    """Labels and sentences in one language: `words("why_alone", tier=...)`; what the ladder lacks, evaluation has."""

    TABLE: Mapping[str, tuple[str, str]] = {**SENTENCES, **LABELS}

    def __init__(self, language: str) -> None:
        """`language` is that of a task: Chinese of any script gets Chinese words, everything else English ones."""
        super().__init__("zh" if language.casefold().partition("-")[0] in ("zh", "chinese") else "en")

    def __call__(self, key: str, **values: object) -> str:
        """The text of a known key."""
        if key in self.TABLE:
            return self.TABLE[key][LANGUAGES.index(self.language)].format(**values)
        return super().__call__(key, **values)

    def name(self, key: str) -> str:
        """The text of `key`, or `key` itself: for names that may come from a user."""
        return self(key) if key in self.TABLE else super().name(key)

    def tier(self, name: str) -> str:
        """A tier as a sentence names it: `tier 4 (tune)`."""
        tier, _, variant = name.partition(":")
        if tier not in TIERS:
            return name
        said = self(f"short_{tier}") + (f" · {variant}" if variant else "")
        return self("tier_zero" if tier == TIERS[0] else "tier_named", number=TIERS.index(tier), name=said)

    def listed(self, names: list[str]) -> str:
        """Names in a row."""
        return ("、" if self.language == "zh" else ", ").join(names)


def money(value: float, currency: str) -> str:
    """An amount to three significant digits: `0.042 USD`, `12.5 CNY`."""
    if value == 0:
        return f"0 {currency}"
    digits = f"{value:,.2f}" if value >= 10 else f"{value:.3g}"
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0") + f" {currency}" if "e" in digits else f"{digits} {currency}"


def points(difference: float) -> str:
    """A difference of shares in points of a percent, with its sign: -0.7, +1.2, 0.0."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def p_value(p: float) -> str:
    """A p-value as readers expect it: `p = 0.13`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
