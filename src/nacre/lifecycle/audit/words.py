"""What an audit says, in English and Chinese: one table, so that neither language can lag behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nacre.errors import ConfigError, closest

LANGUAGES = ("en", "zh")

_WORDS: Mapping[str, tuple[str, str]] = {
    # verdicts, as a reader who never saw one would say them
    "IDENTICAL": ("identical", "相同"),
    "DERIVED": ("derived", "派生"),
    "SHARED_INIT": ("shared initialisation", "初始化相同"),
    "SAME_DESIGN": ("same design", "设计相同"),
    "NO_EVIDENCE": ("no evidence", "未见证据"),
    "INCONCLUSIVE": ("inconclusive", "无定论"),
    "UNTESTABLE": ("untestable", "无法检验"),
    # stages
    "kernel": ("kernel", "内核"),
    "tokenizer": ("tokenizer", "分词器"),
    "weights": ("weights", "权重"),
    "data": ("data", "数据"),
    "service": ("service", "服务"),
    # kinds of derivation
    "renamed": ("renamed or brought into another basis", "改名或更换基底"),
    "fine-tuned": ("fine-tuned", "微调"),
    "lora": ("tuned by LoRA and merged", "以 LoRA 微调后合并"),
    "quantized": ("quantized", "量化"),
    "pruned": ("pruned", "剪枝"),
    "merged": ("merged with something else", "与其他模型合并"),
    "noised": ("noise added", "加入噪声"),
    "depth-changed": ("layers dropped or stacked", "增减层数"),
    "width-changed": ("made wider or narrower", "改变宽度"),
    "upcycled": ("turned into a mixture of experts", "改造为混合专家"),
    "re-embedded": ("given another embedding or head", "更换词嵌入或输出头"),
    "trained-on": ("trained on these rows", "在这些行上训练"),
    "vocabulary-extended": ("vocabulary extended", "扩充词表"),
    # sizes of a kernel, as configs call them; what a tokenizer cuts text into
    "size_layers": ("layers", "层数"),
    "size_hidden": ("hidden", "隐藏维度"),
    "size_heads": ("heads", "注意力头数"),
    "size_kv_heads": ("kv_heads", "键值头数"),
    "size_head_size": ("head_size", "头维度"),
    "size_ffn": ("ffn", "前馈层宽度"),
    "size_vocabulary": ("vocabulary", "词表大小"),
    "size_experts": ("experts", "专家数"),
    "surface_bytes": ("bytes", "字节"),
    "surface_characters": ("characters", "字符"),
    "surface_words": ("words", "词"),
    # tiers of a p-value
    "exact": ("exact under its assumption", "在所列假设下精确"),
    "calibrated": ("calibrated on known-independent cases", "以已知独立的样本校准"),
    "extrapolated": ("extrapolated beyond known cases", "超出已知样本的外推"),
    "heuristic": ("heuristic: decides nothing", "启发式：不作判据"),
    "tier_exact": ("exact", "精确"),
    "tier_calibrated": ("calibrated", "校准"),
    "tier_extrapolated": ("extrapolated", "外推"),
    "tier_heuristic": ("heuristic", "启发式"),
    # labels
    "report": ("Audit", "审计报告"),
    "title": ("{subject} beside {reference}", "{subject} 与 {reference} 的对比"),
    "title_many": ("{subject} beside {n} references", "{subject} 与 {n} 个参照的对比"),
    "contents": ("Contents", "目录"),
    "ranking": ("All references", "全部参照"),
    "stages": ("Verdict by stage", "各阶段判定"),
    "evidence": ("What was tested", "检验内容"),
    "untested": ("What was not tested", "未检验的内容"),
    "layers": ("Layer against layer", "逐层对照"),
    "delta": ("Difference by layer", "各层差异"),
    "names": ("Names", "名称对应"),
    "control": ("Control", "对照检验"),
    "cost": ("Cost", "开销"),
    "cite": ("How to cite this", "如何引用"),
    "stage": ("stage", "阶段"),
    "verdict": ("verdict", "判定"),
    "chance": ("chance of error", "误判概率"),
    "known": ("known by", "依据"),
    "sentence": ("in a sentence", "一句话"),
    "split_test": ("test", "测试"),
    "split_valid": ("validation", "验证"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "test": ("test", "检验"),
    "value": ("value", "数值"),
    "what": ("what was measured", "所测内容"),
    "assumption": ("assumption", "假设"),
    "subject": ("subject", "被审对象"),
    "reference": ("reference", "参照"),
    "digest": ("digest", "摘要"),
    "no_digest": ("not hashed: its bytes could not be read", "未计算：无法读取其内容"),
    "headers_digest": ("over headers and config, the files being large", "文件较大，仅涵盖张量头与配置"),
    "power": ("Would have been caught", "本可检出"),
    "notes": ("What the tests took as given", "检验所依据的事实"),
    "means": ("what it means", "含义"),
    "means_IDENTICAL": (
        "One was copied from the other, or both from a third. Separate work does not end in the same numbers.",
        "一方复制自另一方，或两者都复制自第三方。各自独立的工作不会得到相同的数值。",
    ),
    "means_DERIVED": (
        "One was made from the other, or both from a third: what they share does not arise by chance, nor from "
        "following the same public recipe.",
        "一方由另一方制成，或两者都由第三方制成：两者的共同之处既非偶然，也不是遵循同一公开做法所致。",
    ),
    "means_SHARED_INIT": (
        "Both began from one set of starting values, as two runs of one recipe may. Neither holds what the other "
        "learned.",
        "两者出自同一组初始值，同一做法的两次训练即可如此。任何一方都不含另一方所学到的内容。",
    ),
    "means_SAME_DESIGN": (
        "The construction is the same. Anyone may build to a public design; nothing follows about who trained what.",
        "构造相同。任何人都可以采用公开的设计；由此不能得知是谁训练了什么。",
    ),
    "means_NO_EVIDENCE": (
        "Nothing was found by tests that find the derivations named here. What leaves weaker traces is not ruled out.",
        "能够检出此处所列派生方式的检验没有发现任何迹象。痕迹更弱的派生方式不能排除。",
    ),
    "means_INCONCLUSIVE": (
        "This audit answers neither yes nor no. It clears no one and accuses no one.",
        "本次审计既不能肯定也不能否定：既不证明清白，也不构成指控。",
    ),
    "means_UNTESTABLE": (
        "What the tests need is missing or damaged. Nothing follows from this report.",
        "检验所需的内容缺失或损坏。由本报告得不出任何结论。",
    ),
    "no_claim": ("none: this verdict claims nothing", "无：此判定不作任何断言"),
    "corrected": ("{chance}; corrected for {n} references", "{chance}；已按 {n} 个参照校正"),
    "corrected_p": ("p, corrected for {n}", "p（按 {n} 个参照校正）"),
    "by": ("by", "审计工具"),
    "by_what": ("Nacre {version}, {date}", "Nacre {version}，{date}"),
    "others": ("The other references, in a sentence each", "其余参照，各用一句话"),
    "test_exact": ("equal tensors", "相等的张量"),
    "test_basis": ("same neurons in the same order", "神经元及其次序"),
    "test_invariant": ("same neurons in any basis", "任意基底下的神经元"),
    "test_body": ("the layers without embeddings", "不含词嵌入的各层"),
    "test_polar": ("embeddings in one basis", "词嵌入的基底"),
    "test_graph distance": ("operations that differ", "不同的运算"),
    "test_digest of the content": ("digest of the content", "内容摘要"),
    "test_order": ("order", "词元次序"),
    "test_order, ranked": ("order, ranked", "词元次序（排名检验）"),
    "test_jaccard, ranked": ("jaccard, ranked", "共有词元（排名检验）"),
    "axis_subject": ("layers of the subject", "被审对象的层"),
    "axis_reference": ("layers of the reference", "参照的层"),
    "heat_scale": ("palest 0 %, strongest {most:.0%}", "最淡为 0%，最浓为 {most:.0%}"),
    "share": ("share", "占比"),
    "kind": ("kind", "方式"),
    "seconds": ("Time", "用时"),
    "bytes_read": ("Read of tensors", "读取的张量字节"),
    "of_bytes": ("{read}; the two sides hold {all}", "{read}（两侧共 {all}）"),
    "chance_by_tier": ("{chance} ({tier})", "{chance}（{tier}）"),
    "memory": ("Peak memory", "内存峰值"),
    "by_stage": ("Time by stage", "各阶段用时"),
    "version": ("Nacre version", "Nacre 版本"),
    "date": ("Date", "日期"),
    "written": ("report: {file}", "报告：{file}"),
    "recorded": ("recorded as {ref}; see: nacre trace {subject}", "已记录为 {ref}；查看：nacre trace {subject}"),
    "heat_lead": (
        "Rows are layers of the subject, columns layers of the reference. The stronger a cell, the more of its neurons "
        "answer the same tokens in the same way. One strong line is one model in the other, in order; an even field is "
        "two models that have nothing to do with each other.",
        "行是被审对象的层，列是参照的层。颜色越浓，表示对同样词元作出同样反应的神经元越多。"
        "一条浓色斜线表示一个模型依序存在于另一个之中；颜色均匀表示两者无关。",
    ),
    "delta_lead": (
        "How far the matrices of each layer lie from the reference's once both are in one basis, as a share of their "
        "size: 0 % is equal, 141 % is unrelated. Bars end at {end}.",
        "两者对齐到同一基底后，各层矩阵与参照的差异占其大小的比例：0 % 为相等，141 % 为无关。条形图的右端为 {end}。",
    ),
    "names_lead": (
        "{n} tensors of the subject have a counterpart in the reference; {other} of them under another name.",
        "被审对象有 {n} 个张量在参照中有对应，其中 {other} 个名称不同。",
    ),
    "names_all": ("All {n} names", "全部 {n} 个名称"),
    "names_first": ("The first {n} of {all} names", "{all} 个名称中的前 {n} 个"),
    "cite_text": (
        "{subject} ({ours}) audited against {reference} ({theirs}) with Nacre {version} on {date}: {verdict}.",
        "{date} 以 Nacre {version} 审计 {subject}（{ours}），参照为 {reference}（{theirs}）：{verdict}。",
    ),
}  # fmt: skip


class Words:
    """Labels in one language. Raises ConfigError for a language that is not there."""

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise ConfigError(f"no report language {language!r}", remedy=closest(language, LANGUAGES))
        self.language = language
        self._column = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key."""
        text = _WORDS[key][self._column]
        return text.format(**values) if values else text

    def listed(self, names: list[str]) -> str:
        """Names in a row."""
        return ("、" if self.language == "zh" else ", ").join(names)

    def labelled(self, label: str, value: str) -> str:
        """A value behind its label."""
        return f"{label}：{value}" if self.language == "zh" else f"{label}: {value}"

    def clauses(self, parts: Iterable[str]) -> str:
        """Parts of a line with semicolons between them."""
        return ("；" if self.language == "zh" else "; ").join(parts)


def keys() -> frozenset[str]:
    """Every key of the table."""
    return frozenset(_WORDS)
