"""What stage 2 says, in English and Chinese side by side: see `messages.py`."""

from __future__ import annotations

from collections.abc import Mapping

_VERDICTS: Mapping[str, str] = {
    "the same program on the same corpus gives the same vocabulary: copied and trained anew on that corpus cannot be "
    "told apart":
        "同一程序在同一语料上训练会得到同样的词表，因此无法区分是复制还是在该语料上重新训练",
    "trained apart on corpora that share at most nine tenths of their text": 
        "在文本重合不超过九成的语料上各自训练",
    "the same tokenizer: all {n:,} learned tokens agree, and every text is cut alike":
        "分词器相同：训练所得的 {n:,} 个词元全部一致，任何文本的切分结果也相同",
    "{share:.0%} of the tokens have other ids": "{share:.0%} 的词元编号不同",
    "{share:.0%} of the tokens have other ids (most are shifted by {shift:,})":
        "{share:.0%} 的词元编号不同（大多整体平移 {shift:,}）",
    "special tokens differ": "特殊词元不同",
    "one vocabulary was made from the other: they share {n:,} learned tokens ({ours:.0%} of the subject's, "
    "{theirs:.0%} of the reference's), {order} and {same_id:.0%} with the same id; tokenizers {apart} keep "
    "{most:.0%} of that order at most":
        "一方的词表由另一方改成：两者共有 {n:,} 个训练所得的词元（占被审对象的 {ours:.0%}、参照的 {theirs:.0%}），"
        "{order}，编号相同的占 {same_id:.0%}；而{apart}的分词器之间，次序至多有 {most:.0%} 相同",
    "all in the same order": "次序全部相同",
    "{share:.1%} in the same order": "{share:.1%} 次序相同",
    "tokens were added by hand to a vocabulary that is otherwise the same ({same_corpus})":
        "除人工添加的词元外，词表相同（{same_corpus}）",
    "who was first is not told": "孰先孰后未知",
    "{order:.0%} of the order of shared tokens is the same, which tokenizers {apart} do not show, yet not all of it: a "
    "common ancestor, the same corpus under other settings, or a changed copy":
        "共有词元的次序有 {order:.0%} 相同，{apart}的分词器之间不会如此，但又不是全部相同："
        "可能同出一源，可能以不同设置在同一语料上训练，也可能是改动过的副本",
    "{n:,} learned tokens are shared, more than by tokenizers {apart}, yet not in one order: texts of one kind, or a "
    "copy that was put in another order":
        "共有 {n:,} 个训练所得的词元，多于{apart}的分词器之间所见，但次序不同："
        "可能是语料相近，也可能是打乱了次序的副本",
    "one vocabulary begins with the whole other one; {same_corpus}, to a larger size":
        "一方的词表以另一方的全部词表开头；{same_corpus}（只是词表更大）",
    "the same recipe ({algorithm} over {surface}, the same size, alphabet and special tokens) with other learned "
    "tokens: a public recipe explains it":
        "做法相同（以{surface}为单位的 {algorithm}，词表大小、基本字符与特殊词元都相同），但训练所得的词元不同："
        "公开的做法足以解释",
    "nothing points to a copy: {n:,} learned tokens are shared and {order:.0%} of their order, no more than tokenizers "
    "{apart}":
        "没有复制的迹象：共有 {n:,} 个训练所得的词元，次序有 {order:.0%} 相同，都不高于{apart}的分词器之间的水平",
    "seen would be a vocabulary that keeps {order:.0%} of the order of shared tokens, or {tokens:.0%} of the tokens":
        "词表若保留了共有词元次序的 {order:.0%}，或词元的 {tokens:.0%}，即会被发现",
}  # fmt: skip
_TESTS: Mapping[str, str] = {
    "sha256 {a}": "sha256 为 {a}",
    "sha256 {a} and {b}": "sha256 分别为 {a} 与 {b}",
    "of the steps between shared tokens that no convention explains, the share that both sides took":
        "共有词元之间惯例无法解释的前后次序中，双方一致的比例",
    "shared learned tokens among all, both sides cut to the same length":
        "双方截取同样长度后，训练所得词元的交集与并集之比",
    "the null: tokenizers {apart}": "零分布取自{apart}的分词器",
    "of tokenizers {apart}, each of these steps survives with a chance of at most {most:.0%}, whatever the steps "
    "before it did; in the table no eighth of any order kept more than {largest:.0%}":
        "{apart}的分词器之间，不论此前各处是否保留，每一处前后次序得以保留的概率至多为 {most:.0%}；"
        "校准表中，把任一次序等分为八段，保留最多的一段也不超过 {largest:.0%}",
    "the order of learning: a vocabulary is sorted, so its order says nothing":
        "学习的次序：有一方的词表是排过序的，次序不说明问题",
    "the order of learning: the {n:,} shared tokens have {falling} steps that convention does not explain, {least} are "
    "needed":
        "学习的次序：{n:,} 个共有词元中，无法以惯例解释的前后次序只有 {falling} 处，至少需要 {least} 处",
    "special tokens: a file does not list them": "特殊词元：有一方的文件未列出",
    "a copy with both order and tokens replaced beyond that": "次序与词元的改动都超过上述程度的副本",
    "{ref} has no tokenizer": "{ref} 没有分词器",
    "a vocabulary has no ordinary tokens": "有一方的词表没有普通词元",
    "only {n:,} learned tokens on one side, {least} are needed":
        "有一方训练所得的词元只有 {n:,} 个，至少需要 {least} 个",
}  # fmt: skip
_FILES: Mapping[str, str] = {
    "rank {rank:,} is a placeholder without bytes": "序号 {rank:,} 是不含字节的占位",
    "{file}, line {line}: not a token and its rank": "{file} 第 {line} 行：不是词元及其序号",
    "{file}, line {line}: not an id, a text and its length": "{file} 第 {line} 行：不是编号、文本及其长度",
    "{file} holds no tokens": "{file} 不含词元",
    "the merge {bad} is no pair": "合并规则 {bad} 不是一对词元",
    "the GGUF header holds no tokens": "GGUF 文件头不含词元",
    "the GGUF header has {tokens:,} tokens, {types:,} types and {scores:,} scores":
        "GGUF 文件头有 {tokens:,} 个词元、{types:,} 个类型、{scores:,} 个分数，数目不一",
    "the GGUF header has a tokenizer of kind {model}": "GGUF 文件头所载分词器的类型为 {model}，无法识别",
    "{name} is no array": "{name} 不是数组",
    "there is no tokenizer at {file}": "{file} 处没有分词器",
    "{file} has {size:,} MiB, no vocabulary is that large": "{file} 有 {size:,} MiB，词表不会这么大",
    "{file} is damaged or of an unknown format: {error}": "{file} 已损坏或格式未知：{error}",
    "{folder} holds no tokenizer of a known format": "{folder} 中没有格式已知的分词器",
    "{file} is no tokenizer file of a known name": "{file} 不是已知名称的分词器文件",
    "{file} holds a model of type {kind}": "{file} 所载模型的类型为 {kind}，无法识别",
    "{file} lacks its merges: there is no {beside}": "{file} 缺少合并规则：没有 {beside}",
    "{file} is a SentencePiece model of type {kind}": "{file} 是类型为 {kind} 的 SentencePiece 模型，无法识别",
    "{file} holds no JSON object": "{file} 不含 JSON 对象",
    "{value} is no token id": "{value} 不是词元编号",
}  # fmt: skip

MESSAGES: Mapping[str, str] = {**_VERDICTS, **_TESTS, **_FILES}
