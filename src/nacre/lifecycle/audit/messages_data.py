"""What stage 4 says, in English and Chinese side by side: see `messages.py`."""

from __future__ import annotations

from collections.abc import Mapping

_SETS: Mapping[str, str] = {
    "the subject contains {theirs:.1%} ({theirs_low:.1%} to {theirs_high:.1%}) of the reference's {n_theirs:,} rows; "
    "{ours:.1%} ({low:.1%} to {high:.1%}) of the subject's {n:,} rows stand in the reference":
        "参照的 {n_theirs:,} 行中有 {theirs:.1%}（{theirs_low:.1%} 至 {theirs_high:.1%}）见于被审数据；"
        "被审数据的 {n:,} 行中有 {ours:.1%}（{low:.1%} 至 {high:.1%}）见于参照",
    "both may have taken them from a third set; who was first is not told": "两者也可能都取自第三方；孰先孰后未知",
    "the same {n:,} rows of text, in whatever order": "{n:,} 行文本完全相同，次序不论",
    "{n:,} rows in common are no more than two sets of one public source may have":
        "共有 {n:,} 行，并不多于取自同一公开来源的两个数据集可能共有的行数",
    "not decided: {reason}": "未能判定：{reason}",
    "no row in common": "没有共同的行",
    "no row has text": "没有一行含有文本",
    "one shared row would have been found among all {a:,} and {b:,}; of near-duplicates {share:.2%} of the subject's "
    "rows (similarity {threshold:g}, 95 %)":
        "在全部 {a:,} 行与 {b:,} 行中，哪怕一行相同也会被发现；近似重复则须达到被审数据行数的 {share:.2%}"
        "（相似度 {threshold:g}，置信水平 95%）",
    "{exact:,} of {rows:,} rows share their text, {near:,} of {looked:,} others are near-duplicates (similarity "
    "{threshold:g} or more)":
        "{rows:,} 行中有 {exact:,} 行文本相同，其余 {looked:,} 行中有 {near:,} "
        "行近似重复（相似度不低于 {threshold:g}）",
    "Of the {n:,} rows of the {side}, {exact:,} stand in the {other} with the same text and {near:,} more as "
    "near-duplicates (Jaccard similarity of 3-grams {threshold:g} or more, "
    "estimated over {looked:,} rows): {share:.1%}, "
    "95 % interval {low:.1%} to {high:.1%}.":
        "{side}的 {n:,} 行中，{exact:,} 行以相同文本见于{other}，另有 {near:,} 行为近似重复"
        "（三元组的 Jaccard 相似度不低于 {threshold:g}，考察 {looked:,} 行）：占 {share:.1%}，"
        "95% 区间为 {low:.1%} 至 {high:.1%}。",
    "Of the {n:,} {split} rows of the {held_out}, {same:,} stand in the training rows of the {train}, {distinct:,} "
    "different texts: {share:.2%}, 95 % interval {low:.2%} to {high:.2%}.":
        "{held_out}的 {n:,} 行{split}数据中，{same:,} 行见于{train}的训练数据，其中不同文本 {distinct:,} 条："
        "占 {share:.2%}，95% 区间为 {low:.2%} 至 {high:.2%}。",
    "there is no data set at {path}": "{path} 处没有数据集",
    "{file}, line {line}": "{file} 第 {line} 行",
    "rows of the {side} in the other set": "{side}的行见于另一数据集",
    "teachers named in the {side}'s answers": "{side}的回答中说出的开发者",
    "for example {a} and {b} are the same: {text}": "例如文本相同（{a}；{b}）：{text}",
    "for example {a} and {b} share a long text: {text}": "例如含有同一段长文本（{a}；{b}）：{text}",
    "for example {a} and {b} are nearly the same: {text}": "例如文本近乎相同（{a}；{b}）：{text}",
    "{n:,} rows of the {side} cannot be read and were left out": "{side}有 {n:,} 行无法读取，未予考察",
    "{n:,} rows of the {side} have no text in what is compared": "{side}有 {n:,} 行在所比较的字段中没有文本",
    "{n:,} rows of the {side} repeat the id of an earlier row": "{side}有 {n:,} 行的编号与前面的行重复",
    "reading the {side}: {what}": "读取{side}：{what}",
    "{same:,} of {rows:,} rows ({distinct:,} different texts)":
        "{rows:,} 行中有 {same:,} 行（不同文本 {distinct:,} 条）",
    "{n:,} training rows share a long n-gram with one": "{n:,} 行训练数据与其中某行含有同一长 n 元组",
    "{leak}: long n-grams, beyond {size} MiB of training rows": "{leak}：训练数据超过 {size} MiB，未查长 n 元组",
    "consistent with answers of {teachers}": "与下列模型的回答相符：{teachers}",
    "no answer names its maker": "没有回答说出其开发者",
    "{n:,} of {rows:,} answers: {who}; {generic:,} more say that a model wrote them, {refusals:,} refuse":
        "{rows:,} 条回答中有 {n:,} 条：{who}；另有 {generic:,} 条只自称是模型，{refusals:,} 条拒绝回答",
    "scrubbing would act on {n:,} of the {all:,} that name one":
        "清洗规则可处理其中说出开发者的 {all:,} 条中的 {n:,} 条",
    "rows that were translated or rewritten throughout": "整体翻译或改写过的行",
    "near-duplicates of all rows: they were looked for in a part drawn by hash, a lower bound":
        "全部行的近似重复：只在按哈希抽取的一部分中查找，所得为下限",
    "contamination of held-out rows: no side has a test split beside training rows of the other":
        "留出数据的泄漏：没有一方的测试数据可与另一方的训练数据对照",
}  # fmt: skip
_MEMBERSHIP: Mapping[str, str] = {
    "{a} was trained on {b}, or on rows that {b} was made of.": "{a} 曾在 {b}（或构成 {b} 的行）上训练。",
    "the model was trained on these rows: {found}": "模型曾在这些行上训练：{found}",
    "no exact test shows that the model was trained on these rows": "没有精确检验表明模型曾在这些行上训练",
    "no test with an exact p could be run": "没有一项具有精确 p 值的检验可以进行",
    "Spearman's rho {rho:+.3f} of log-likelihood with the step of last training, over {n:,} of {total:,} examples":
        "对数似然与最后一次训练所在步数的 Spearman 相关为 {rho:+.3f}，取 {total:,} 个样本中的 {n:,} 个",
    "{found}; logged with the run, and the input of this test: seed {seed}, batches of {batch}, {steps:,} steps, "
    "shuffled: {shuffled}":
        "{found}；本检验的输入是训练时的记录：种子 {seed}，批大小 {batch}，{steps:,} 步，是否打乱：{shuffled}",
    "{n:,} examples with a step, within the bound on cost: too few":
        "在开销上限内，有步数记录的样本只有 {n:,} 个，太少",
    "the logged order was drawn at random and without sight of the model "
    "(Nacre draws it from the seed of the run), and "
    "the log was not changed since":
        "所记录的次序是随机抽取的，抽取时未见模型（Nacre 由训练的种子抽取），且记录此后未被改动",
    "in {n} groups of {rows:.0f} rows the published order lies {value:+.2f} standard deviations above shuffled ones, "
    "{join}":
        "在 {n} 组（每组约 {rows:.0f} 行，{join}）中，公开次序的似然比打乱后平均高出 {value:+.2f} 个标准差",
    "each with its end token": "每行后接结束词元",
    "as lines of one text": "各行作为同一文本的行",
    "order of publication": "公开次序",
    "{found}; nobody answers for it that this order is random, so this decides nothing":
        "{found}；但无人担保这一次序是随机的，故不作判据",
    "{found}, if it is true that this order is random (--shuffled)":
        "{found}，前提是这一次序确为随机（--shuffled）",
    "{found}; the run did not shuffle, so this decides nothing": "{found}；但训练时未打乱，故不作判据",
    "{found}; but the text alone tells the order (p {control:.2g}), so this decides nothing":
        "{found}；但仅凭文本即可看出次序（p {control:.2g}），故不作判据",
    "{n} groups of {rows} or more rows fit a context of {context} tokens and the bound on cost: too few":
        "在 {context} 个词元的上下文与开销上限内，容得下 {rows} 行以上的组只有 {n} 个，太少",
    "the rows of the data set were put in their order at random": "数据集各行的次序是随机排定的",
    "{planted} planted canaries have a mean exposure of {mean:.2f} bits among {kept:,} kept back; no training: "
    "{null:.2f}":
        "{planted} 条已植入的暗记，在 {kept:,} 条未植入者中的平均暴露度为 {mean:.2f} 比特；未经训练时为 {null:.2f}",
    "it was drawn at random which of the canaries were planted, and the others were never published":
        "哪些暗记被植入是随机抽取的，其余的从未公开",
    "the order of training: it needs the record of the run (its seed, config and number of steps), and none lies with "
    "the model":
        "训练次序：需要训练的记录（种子、配置与步数），而模型旁没有",
    "{n:,} of {all:,} canaries stand in the data set":
        "{all:,} 条暗记中有 {n:,} 条见于数据集，须既有植入的也有未植入的",
    "a canary has {n:,} tokens, the context {context:,}": "有一条暗记长 {n:,} 个词元，而上下文只有 {context:,}",
    "the order is of {n:,} examples, the rows give {rows:,}": "次序记录了 {n:,} 个样本，而这些行得到 {rows:,} 个",
    "{ref} was made by {stage}": "{ref} 由 {stage} 产生，不是可用的训练阶段",
    "nobody knows what": "未知阶段",
    "the record of {ref} has no number of steps": "{ref} 的记录中没有步数",
    "{ref} grouped its examples by length, so their order is not random":
        "{ref} 训练时按长度把样本分组，次序并非随机",
    "{name} is no model folder": "{name} 不是模型文件夹",
    "{name} does not predict the next token (head {head}, {layout})":
        "{name} 不预测下一个词元（输出头 {head}，{layout}）",
    "the model gives {n:,} of {all:,} texts a likelihood that is no number":
        "模型对 {all:,} 条文本中的 {n:,} 条给出的似然不是数值",
    "canaries: none were given": "暗记：未提供",
    "an adapter is not scored: merge it into its base first": "不对适配器评分：请先把它并入底座模型",
    "rows that were trained on in another order and are no canaries: no exact test sees them":
        "以其他次序训练、又不是暗记的行：没有精确检验能发现",
    "a rank correlation of {rho:.3f} with the logged order would have been seen nine times of ten":
        "与所记录次序的等级相关若达 {rho:.3f}，十次中有九次会被发现",
    "training in the order of publication would have been seen nine times "
    "of ten from {lift:.2f} standard deviations on":
        "按公开次序训练若使似然高出 {lift:.2f} 个标准差，十次中有九次会被发现",
    "canaries: {found}": "暗记：{found}",
    "The chance of such a finding without that training is {chance} ({known}).":
        "若未曾如此训练，出现这种结果的概率{chance}（{known}）。",
    "No exact test shows that {a} was trained on {b}. This is no proof that it was not: {power}.":
        "没有精确检验表明 {a} 曾在 {b} 上训练。这不等于证明其未曾如此：{power}。",
}  # fmt: skip

MESSAGES: Mapping[str, str] = {**_SETS, **_MEMBERSHIP}
