"""Sentences that a reader who knows nothing of the tests can cite. They never say more than the stages do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from nacre.lifecycle.audit import calibration
from nacre.lifecycle.audit.verdict import LEAST_P, Evidence, Pair, StageVerdict
from nacre.lifecycle.audit.words import Words

CLAIMS = ("IDENTICAL", "DERIVED", "SHARED_INIT")  # verdicts that have a chance of error: that nothing is shared
_COMMON = 0.1  # chances above this are given as they are, not as "1 in N"

# The verdict on a pair, by the stage that decided it; {a} the subject, {b} the reference.
_PAIR: Mapping[str, tuple[str, str]] = {
    "weights IDENTICAL": (
        "The weights of {a} are those of {b}: every tensor is the same, value for value.",
        "{a} 的权重就是 {b} 的权重：每个张量的每个数值都相同。",
    ),
    "weights DERIVED": (
        "The weights of {a} derive from {b}: {kind}. The files do not say who was first.",
        "{a} 的权重派生自 {b}：{kind}。文件本身不说明孰先孰后。",
    ),
    "weights SHARED_INIT": (
        "{a} and {b} began from the same initial weights and were trained apart: neither derives from the other.",
        "{a} 与 {b} 从相同的初始权重出发，各自训练：并非一方派生自另一方。",
    ),
    "weights NO_EVIDENCE": (
        "No sign was found that the weights of {a} derive from {b}. This is no proof of independence: {power}.",
        "没有发现 {a} 的权重派生自 {b} 的迹象。这不等于证明两者独立：{power}。",
    ),
    "weights INCONCLUSIVE": (
        "Whether the weights of {a} derive from {b} could not be decided: {reason}.",
        "{a} 的权重是否派生自 {b}，未能判定：{reason}。",
    ),
    "data IDENTICAL": (
        "{a} and {b} hold the same rows of text.",
        "{a} 与 {b} 的文本行相同。",
    ),
    "data DERIVED": (
        "{a} and {b} share more rows than chance explains: {share} of the rows of {a} stand in {b}. Both may "
        "have taken them from a third set.",
        "{a} 与 {b} 共有的文本行多于偶然：{a} 有 {share} 的行见于 {b}。两者也可能都取自第三个数据集。",
    ),
    "SAME_DESIGN": (
        "{a} and {b} share a design, which public recipes explain. Nothing is said about weights: they could not be "
        "compared.",
        "{a} 与 {b} 的设计相同，公开的做法足以解释。权重未能比较，因此对权重不作任何结论。",
    ),
    "INCONCLUSIVE": (
        "Nothing could be decided about {a} and {b}: no stage that could tell derivation was testable.",
        "关于 {a} 与 {b} 无法判定：能够判断派生关系的阶段都无法检验。",
    ),
    "UNTESTABLE": (
        "{a} and {b} could not be compared at any stage.",
        "{a} 与 {b} 在任何阶段都无法比较。",
    ),
}  # fmt: skip
_CHANCE = (
    "The chance of such agreement between unrelated models is {chance} ({known}).",
    "无关模型之间出现这种一致的概率{chance}（{known}）。",
)
_DESIGN = ("Sharing a design alone would say nothing.", "仅仅设计相同不说明任何问题。")
_OPEN = ("Not tested: {stages}.", "未检验：{stages}。")
_OF_FILES = ("kernel", "tokenizer", "weights", "data")

# A stage's verdict for readers of Chinese; in English a stage speaks for itself.
_STAGE_ZH: Mapping[str, str] = {
    "kernel IDENTICAL": "内核相同：设计与各项尺寸都一致；设计相同并不说明权重的来源",
    "kernel SAME_DESIGN": "设计相同，尺寸不同或未知；设计相同并不说明权重的来源",
    "kernel NO_EVIDENCE": "设计不同：有 {distance} 处运算不一样",
    "tokenizer IDENTICAL": "词表相同；同一程序在同一语料上训练也会得到它，复制与重新训练无法区分",
    "tokenizer DERIVED": "共有的词元排列完全一致，独立训练不会如此（{kind}）；孰先孰后未知",
    "tokenizer SAME_DESIGN": "做法相同而所学词元不同：公开的做法足以解释",
    "tokenizer NO_EVIDENCE": "与在不同语料上独立训练的分词器相比，并不更相似",
    "weights IDENTICAL": "每个张量的每个数值都与参照相同",
    "weights DERIVED": "派生自参照（{kind}）",
    "weights SHARED_INIT": "初始权重相同，此后各自训练",
    "weights NO_EVIDENCE": "没有共同权重的迹象",
    "data IDENTICAL": "文本行完全相同",
    "data DERIVED": "被审数据有 {share} 的行见于参照；两者也可能都取自第三方",
    "data NO_EVIDENCE": "没有共同的行",
}
_REASONS_ZH: Mapping[str, str] = {
    "there is neither a config nor a tensor to tell it from": "既无配置也无张量",
    "there is no tokenizer file": "没有分词器文件",
    "there are no weights": "没有权重",
    "there is no data set": "没有数据集",
    "it was not asked for": "未要求检验",
    "the weights were not compared": "权重未作比较",
    "equal values need no control": "数值相等，无需对照",
    "no test fired, so there was nothing to refute": "没有检验触发，无可反驳",
    "no test fired on an unrelated model of the reference's shape": "无关模型未触发任何检验",
}


def summarise(pair: Pair, language: str = "en") -> str:
    """The verdict on a pair, the chance of error and how it is known, and what was not tested."""
    words = Words(language)
    column = 1 if language == "zh" else 0
    stage = deciding(pair)
    key = f"{stage.stage} {pair.verdict}" if stage else pair.verdict
    a, b = names(pair)
    values = {"a": a, "b": b, "kind": "", "power": "", "reason": "", "share": ""}
    if stage:
        values["kind"] = words(stage.kind) if stage.kind else words(pair.verdict)
        values["power"] = stage.power or (
            "what would have been caught is not known" if not column else "可检出的范围未知"
        )
        values["reason"] = reason(stage.reason or stage.text, language)
        values["share"] = f"{stage.share or 0:.1%}"
    parts = [_PAIR[key if key in _PAIR else pair.verdict][column].format(**values)]
    if stage and stage.p_value is not None and pair.verdict in ("DERIVED", "SHARED_INIT"):
        parts.append(_CHANCE[column].format(chance=chance(stage.p_value, language), known=known(stage, words)))
    if pair.verdict == "DERIVED" and stage and stage.stage == "weights":
        parts.append(_DESIGN[column])
    left = [one for one in _OF_FILES if _is_open(pair, one)]
    if left:
        parts.append(_OPEN[column].format(stages=words.listed([words(one) for one in left])))
    return ("" if language == "zh" else " ").join(parts)


def _is_open(pair: Pair, stage: str) -> bool:
    return stage not in pair.stages or pair.stages[stage].verdict == "UNTESTABLE"


def deciding(pair: Pair) -> StageVerdict | None:
    """The stage that the verdict on the pair is taken from; None where it stands on no single one."""
    for name in ("weights", "data"):
        stage = pair.stages.get(name)
        if stage is not None and stage.verdict == pair.verdict and stage.verdict not in ("UNTESTABLE", "SAME_DESIGN"):
            if name == "data" and stage.verdict not in ("IDENTICAL", "DERIVED"):
                continue
            return stage
    return None


def names(pair: Pair) -> tuple[str, str]:
    """Short names of the two sides: the end of a path, as much of it as tells them apart."""
    ours, theirs = PurePath(pair.subject).parts, PurePath(pair.reference).parts
    if pair.subject == pair.reference:
        return ours[-1], theirs[-1]
    for length in range(1, max(len(ours), len(theirs)) + 1):
        short = "/".join(ours[-length:]), "/".join(theirs[-length:])
        if short[0] != short[1]:
            return short[0].removeprefix("//"), short[1].removeprefix("//")
    return pair.subject, pair.reference


def chance(p: float, language: str = "en") -> str:
    """A p-value as a reader takes it in: `at most 1 in 3,161`, `below 1 in a million`."""
    if p <= LEAST_P:
        return "低于百万分之一" if language == "zh" else "below 1 in a million"
    if p > _COMMON:
        return f"至多 {p:.2g}" if language == "zh" else f"at most {p:.2g}"
    many = int(1 / p + 1e-9)
    return f"至多 {many:,} 分之一" if language == "zh" else f"at most 1 in {many:,}"


def known(stage: StageVerdict, words: Words) -> str:
    """How the chance of error is known."""
    if stage.tier is None:
        return words("heuristic")
    best = deciding_evidence(stage)
    zh = words.language == "zh"
    if stage.tier == "exact" and best is not None and best.assumption and not zh:  # assumptions are in English
        return f"{words('exact')}: {best.assumption}"
    if stage.tier == "calibrated" and stage.stage == "weights" and best is not None:
        count = len(calibration.shipped().nulls.get(best.test, ()))
        if count:
            return (
                f"以 {count:,} 对已知独立的模型校准" if zh else f"calibrated on {count:,} pairs known to be independent"
            )
    return words(stage.tier)


def deciding_evidence(stage: StageVerdict) -> Evidence | None:
    """The evidence with the smallest p-value among those of the stage's tier."""
    able = [one for one in stage.evidence if one.p_value is not None and one.tier == stage.tier]
    return min(able, key=lambda one: one.p_value or 0.0, default=None)


def stage_sentence(stage: StageVerdict, language: str = "en") -> str:
    """The stage's verdict in a sentence of the language."""
    if language != "zh":
        return stage.text
    if stage.verdict in ("UNTESTABLE", "INCONCLUSIVE"):
        head = "无法检验" if stage.verdict == "UNTESTABLE" else "未能判定"
        return f"{head}：{reason(stage.reason or stage.text, language)}"
    words = Words(language)
    return _STAGE_ZH.get(f"{stage.stage} {stage.verdict}", stage.text).format(
        distance=stage.detail.get("distance", "?"),
        kind=words(stage.kind) if stage.kind else "",
        share=f"{stage.share or 0:.1%}",
    )


def reason(text: str, language: str) -> str:
    """A reason in the language where it is one of those that every audit meets, else as the test said it."""
    if language != "zh":
        return text
    lead, colon, rest = text.rpartition(": ")
    return (
        f"{lead}{'：' if colon else ''}{_REASONS_ZH.get(rest, rest)}"
        if rest in _REASONS_ZH
        else _REASONS_ZH.get(text, text)
    )
