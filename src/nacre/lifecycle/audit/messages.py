"""What an audit says, in English and Chinese side by side: the template that `say` is given, then its Chinese.

A sentence without placeholders is found by itself. Both languages name the same placeholders with the same formats.
"""

from __future__ import annotations

from collections.abc import Mapping

from nacre.lifecycle.audit.messages_data import MESSAGES as DATA
from nacre.lifecycle.audit.messages_files import MESSAGES as FILES
from nacre.lifecycle.audit.messages_kernel import MESSAGES as KERNEL
from nacre.lifecycle.audit.messages_tokenizer import MESSAGES as TOKENIZER

_PAIR: Mapping[str, str] = {
    "The weights of {a} are those of {b}: every tensor is the same, value for value.":
        "{a} 的权重就是 {b} 的权重：每个张量的每个数值都相同。",
    "The weights of {a} derive from {b}: {kind}; {first}.": "{a} 的权重派生自 {b}：{kind}；{first}。",
    "The weights of {a} and {b} are of one descent; {first}.": "{a} 与 {b} 的权重同出一源；{first}。",
    "{a} and {b} began from the same initial weights and were trained apart: neither derives from the other.":
        "{a} 与 {b} 从相同的初始权重出发，各自训练：并非一方派生自另一方。",
    "No sign was found that the weights of {a} derive from {b}. This is no proof of independence: {power}.":
        "没有发现 {a} 的权重派生自 {b} 的迹象。这不等于证明两者独立：{power}。",
    "Whether the weights of {a} derive from {b} could not be decided: {reason}.":
        "{a} 的权重是否派生自 {b}，未能判定：{reason}。",
    "{a} and {b} hold the same rows of text.": "{a} 与 {b} 的文本行相同。",
    "{a} and {b} share more rows than chance explains: {share:.1%} of the rows of {a} stand in {b}. Both may have "
    "taken them from a third set.":
        "{a} 与 {b} 共有的文本行多于偶然：{a} 有 {share:.1%} 的行见于 {b}。两者也可能都取自第三个数据集。",
    "No row of {a} was found in {b}. This is no proof of independence: {power}.":
        "没有发现 {a} 的行见于 {b}。这不等于证明两者独立：{power}。",
    "Whether the rows of {a} come from {b} could not be decided: {reason}.":
        "{a} 的行是否来自 {b}，未能判定：{reason}。",
    "{a} and {b} share a design, which public recipes explain. Nothing is said about weights: they could not be "
    "compared.":
        "{a} 与 {b} 的设计相同，公开的做法足以解释。权重未能比较，因此对权重不作任何结论。",
    "Nothing could be decided about {a} and {b}: neither weights nor data could be compared.":
        "关于 {a} 与 {b} 无法判定：权重与数据都未能比较。",
    "{a} and {b} could not be compared at any stage: {reason}.": "{a} 与 {b} 在任何阶段都无法比较：{reason}。",
    "The chance of such agreement between unrelated models is {chance} ({known}).":
        "无关模型之间出现这种一致的概率{chance}（{known}）。",
    "Sharing a design alone would say nothing.": "仅仅设计相同不说明任何问题。",
    "Not tested: {stages}.": "未检验：{stages}。",
    "what would have been caught is not known": "可检出的范围未知",
    "below 1 in a million": "低于百万分之一",
    "at most {p:.2g}": "至多 {p:.2g}",
    "at most 1 in {n:,}": "至多 {n:,} 分之一",
    "calibrated on {n:,} pairs known to be independent": "以 {n:,} 对已知独立的模型校准",
    "not decided: p = {alone:.2g} for this reference alone, {p:.2g} for all {n}":
        "未能判定：仅就这一参照 p = {alone:.2g}，就全部 {n} 个参照 p = {p:.2g}",
}  # fmt: skip
_REASONS: Mapping[str, str] = {
    "could not be tested: {reason}": "无法检验：{reason}",
    "{where}: {reason}": "{where}：{reason}",
    "{stage}: {reason}.": "{stage}：{reason}。",
    "{stage}: {reason}": "{stage}：{reason}",
    "{stage}, {test}: {reason}.": "{stage}，{test}：{reason}。",
    "Services: this audit compares files; what an endpoint answers was not asked.":
        "服务：本次审计只比较文件，没有询问任何服务端点。",
    "An unrelated model of the reference's shape went through the same tests; none fired.":
        "与参照形状相同的无关模型经过同样的检验，无一触发。",
    "An unrelated model of the reference's shape set the tests off: the finding is void.":
        "与参照形状相同的无关模型也触发了检验：结论无效。",
    "No control was run: {why}.": "未作对照检验：{why}。",
    "there is neither a config nor a tensor to tell it from": "既无配置也无张量",
    "there is no tokenizer file": "没有分词器文件",
    "there are no weights": "没有权重",
    "there is no data set": "没有数据集",
    "it was not asked for": "未要求检验",
    "there is not enough memory for it": "内存不足",
    "the weights were not compared": "权重未作比较",
    "equal values need no control": "数值相等，无需对照",
    "no test fired, so there was nothing to refute": "没有检验触发，无需对照",
    "no test fired on an unrelated model of the reference's shape": "与参照形状相同的无关模型未触发任何检验",
}  # fmt: skip
_WEIGHTS: Mapping[str, str] = {
    # exact
    "{n} of {all} tensors ({share:.1%} of the parameters) are equal value for value":
        "{all} 个张量中有 {n} 个（占参数的 {share:.1%}）逐值相等",
    "two trainings that share nothing never end in the same 64 or more floating-point numbers":
        "毫无共同之处的两次训练，不会得到相同的 64 个以上浮点数",
    "tensor {name} holds {n:,} values that are not finite numbers (NaN or infinity)":
        "张量 {name} 有 {n:,} 个数值不是有限数（NaN 或无穷大）",
    # basis
    "no common basis: hidden sizes are {a} and {b}": "没有共同的基底：隐藏维度为 {a} 与 {b}",
    "neurons keep their order with a rank correlation of {rho:.3f} in {n} pairs of layers":
        "在 {n} 对层中，神经元次序的等级相关为 {rho:.3f}",
    "training is equivariant under permutations of hidden neurons (independent initialisation, any optimiser that "
    "treats them alike), and no one has sorted the neurons since":
        "训练对隐藏神经元的置换是等变的（独立初始化，优化器对各神经元一视同仁），且此后无人重排神经元",
    # invariant
    "there are too few shared tokens to ask both models about": "共有词元太少，不足以向两个模型提问",
    "gate and up projections agree on which neurons correspond: rho {rho:.3f} over {n} layer pairs":
        "门投影与上投影对神经元对应关系的判断，一致程度为 rho {rho:.3f}（{n} 对层）",
    # body
    "in the stack's own axes gate and up agree on which neurons correspond: rho {rho:.3f}":
        "在各层自身的坐标轴上，门投影与上投影对神经元对应关系的判断，一致程度为 rho {rho:.3f}",
    "hidden sizes are {a} and {b}": "隐藏维度为 {a} 与 {b}",
    "the hidden size {d} is above {most}, and eigenvectors would take minutes":
        "隐藏维度 {d} 超过 {most}，计算特征向量需要数分钟",
    "depths differ": "层数不同",
    # polar
    "no tokens are shared": "没有共有的词元",
    "embeddings are {a} and {b} wide": "词嵌入的宽度为 {a} 与 {b}",
    "the best rotation between the embeddings has a trace of {s:.3f} of its size":
        "两个词嵌入之间的最佳旋转，其迹为最大值的 {s:.3f}",
    # the stage's verdicts
    "nothing in {ref} tells for which weights it was made, and the finding rests on those of {base}: merge them "
    "and audit the result to ask about the two together":
        "{ref} 中没有任何内容表明它是为哪个模型的权重而训练的，所见结果取决于 {base} 的权重："
        "若要审计两者合成的模型，请先合并再审计",
    "{ref} has no weights that can be read": "{ref} 没有可读取的权重",
    "there are no weights to read": "没有可读取的权重",
    "different architectures: {a} and {b}": "架构不同：{a} 与 {b}",
    "one side has no feed-forward layers by whose neurons it could be known": "有一方没有前馈层，无从以神经元辨认",
    "different architectures: one feed-forward is gated, the other is not":
        "架构不同：一方的前馈层带门控，另一方不带",
    "a single layer: chance was measured on models of two layers and more":
        "只有一层：误判概率是在两层及以上的模型上测得的",
    "every tensor is the reference's, value for value": "每个张量的每个数值都与参照相同",
    "p = {p:.2g} for all {n} references: it would decide for one alone":
        "就全部 {n} 个参照 p = {p:.2g}：仅就一个参照则足以判定",
    "the control, an unrelated model of the reference's shape, fired in {tests}: this stage is void":
        "对照（与参照形状相同的无关模型）触发了 {tests}：本阶段结论无效",
    "{why}: a change of basis would not be seen": "{why}：若更换了基底则无法察觉",
    "neurons could not be asked": "无法向神经元提问",
    "the invariant test fired, and nothing is known of its chance of error: there is no calibration table":
        "不变量检验触发，但没有校准表，其误判概率未知",
    "the embeddings lie in one basis, and no test that may decide has fired":
        "两个词嵌入在同一基底中，但没有可作判据的检验触发",
    "the bank has not been measured: what would have been caught is not known": "尚未以样本库测量：可检出的范围未知",
    "no sign of common weights (p = {p:.2g}); {power}": "未见权重同源的迹象（p = {p:.2g}）；{power}",
    "would have been caught, of so many in the bank: {parts}":
        "以下派生方式可以检出（检出率 / 样本库中的模型对数量）：{parts}",
    "{kind} ({tpr:.1%} / {n})": "{kind}（{tpr:.1%} / {n}）",
    "embeddings retrained after further tuning": "再次训练之后又重训词嵌入",
    "a merge that keeps under about 40 % of the reference, in another basis":
        "在另一基底中、参照占比不足约四成的合并",
    "noise of more than about two standard deviations of the weights": "超过权重约两倍标准差的噪声",
    "distillation from outputs, which leaves no trace in weights": "仅凭输出的蒸馏，权重中不留痕迹",
    "a common start, trained apart: {words}": "起点相同，各自训练：{words}",
    "derived ({kind}): {words}": "派生（{kind}）：{words}",
    "{equal}; nothing else could be compared": "{equal}；其余无法比较",
    "the two were not brought into one basis ({why}), so that the kind is the most general one":
        "未能将两者变换到同一基底（{why}），因此只给出最宽泛的派生方式",
    "the rotation between the two was not computed": "未计算两者之间的旋转",
    "the feed-forward layers are the reference's, attention is another function":
        "前馈层与参照相同，注意力则是另一函数",
    "the layers are the reference's, seen in their own axes; the embedding is not":
        "就各层自身的坐标轴而言，各层与参照相同；词嵌入则不同",
    "their matrices are too far apart": "矩阵相差过大",
    "{n} of {all} matrices were trained on, by {relative:.1%} of their size":
        "{all} 个矩阵中有 {n} 个经过训练，变动幅度为其大小的 {relative:.1%}",
    "{new} experts stand where the reference has {old}": "参照有 {old} 个专家，此处有 {new} 个",
    "{new} layers were made of {old}": "由 {old} 层改为 {new} 层",
    "the feed-forward went from {old} to {new}": "前馈层宽度由 {old} 变为 {new}",
    "the hidden size went from {old} to {new}": "隐藏维度由 {old} 变为 {new}",
    "the queries went from {old} to {new}": "查询维度由 {old} 变为 {new}",
    "the stack is the reference's; these are not: {parts}": "各层与参照相同；不同的是：{parts}",
    "the stack is the reference's; trained on: {parts}": "各层与参照相同；经过训练的是：{parts}",
    "the weights are the reference's, for {new:,} tokens in place of {old:,}":
        "权重与参照相同，词元数由 {old:,} 变为 {new:,}",
    "every matrix is the reference's; only norms, biases or the like differ":
        "每个矩阵都与参照相同，仅归一化、偏置等有别",
    "the same weights in another basis, order or scale": "权重相同，只是换了基底、次序或缩放",
    "every tensor is the reference's, value for value, in another place": "每个张量都逐值与参照相同，只是位置不同",
    "the embedding is another one, the stack was trained on from the reference's":
        "词嵌入已被替换，各层由参照继续训练而来",
    "values lie on a grid of {bits} bits": "数值落在 {bits} 位的格点上",
    "values lie on a grid of {bits} bits per row": "数值按行落在 {bits} 位的格点上",
    "values lie on a grid of {bits} bits per matrix": "数值按矩阵落在 {bits} 位的格点上",
    "values lie on a grid of {bits} bits in groups of {group}": "数值按每组 {group} 个落在 {bits} 位的格点上",
    "{zeros:.0%} of the values are zero, {found}; {survivors:.0%} of the others are the reference's":
        "{zeros:.0%} 的数值为零（{found}）；其余数值中 {survivors:.0%} 与参照相同",
    "{zeros:.0%} of the values are zero, {survivors:.0%} of the others are the reference's":
        "{zeros:.0%} 的数值为零，其余数值中 {survivors:.0%} 与参照相同",
    "the difference has rank {rank} in {n} of {all} changed matrices":
        "在 {all} 个有变动的矩阵中，{n} 个的差异秩为 {rank}",
    "the difference is noise of {size:.1%} of the weights' size": "差异是噪声，幅度为权重大小的 {size:.1%}",
    # kinds, and merges of several references
    "the reference makes up {share:.0%} of a merge": "参照占合并结果的 {share:.0%}",
    "of what training made strongest {kept:.0%} is shared, of the rest {bulk:.0%}: they start alike and part":
        "训练所强化的部分共有 {kept:.0%}，其余部分共有 {bulk:.0%}：起点相同，此后分道",
    "every tensor of the reference is in the subject, value for value, beside {n} others":
        "参照的每个张量都逐值见于被审对象，此外另有 {n} 个张量",
    "{new:,} tokens stand where the reference has {old:,}, and the stack was trained on by {relative:.1%}":
        "参照有 {old:,} 个词元，此处有 {new:,} 个，各层又经训练，变动 {relative:.1%}",
    "no merge of these references alone: together they explain {explained:.0%} of its difference from the nearest of "
    "them, {nearest}":
        "并非仅由这些参照合并而成：它们合起来只能解释它与其中最近者 {nearest} 的差异的 {explained:.0%}",
    "shares were not computed: {reason}": "未计算占比：{reason}",
    "a merge of {parts}; {explained:.1%} explained": "由 {parts} 合并而成；可解释 {explained:.1%}",
    "derived (merged): {words}": "派生（合并）：{words}",
    "the references hold different matrices": "各参照的矩阵不一致",
    "no reference lies in one basis with the subject": "没有参照与被审对象处于同一基底",
    "the references' matrices have other shapes": "各参照的矩阵形状不同",
    "one reference alone lies in one basis with the subject": "只有一个参照与被审对象处于同一基底",
    "the references do not differ": "各参照之间没有差异",
    "the {side}'s record ({basis}) is dated {date}": "{side}的记录（{basis}）日期为 {date}",
    "the {side}'s record names {parent} ({relation}, {basis})": "{side}的记录称来自 {parent}（{relation}，{basis}）",
    # who was first
    "the subject": "被审对象",
    "the reference": "参照",
    "the files do not say who was first": "文件本身不说明孰先孰后",
    "the files do not say who was first: a difference of low rank is one in both directions":
        "文件本身不说明孰先孰后：低秩的差异从哪一方看都是低秩的",
    "{first} was first: {other} is its weights with some set to zero, which cannot be undone":
        "{first} 在先：{other} 是把它的一部分权重置零而成，这一步无法还原",
    "{first} was first: {other} is its weights rounded to fewer bits, which cannot be undone":
        "{first} 在先：{other} 是把它的权重舍入到更少的位数而成，这一步无法还原",
    "the references were first, as parents of a merge usually are: {other} lies between them":
        "各参照在先，合并的来源通常如此：{other} 介于它们之间",
    "{first} was first, if the vocabulary grew, as is usual; it could have been cut":
        "若词表是扩大的（通常如此），则 {first} 在先；但也可能是裁小的",
    # which tokens are the same
    "one side has no tokenizer": "有一方没有分词器",
    "a tokenizer cannot be read ({reason})": "有一个分词器无法读取（{reason}）",
    "{why}, and the vocabularies are of {a:,} and {b:,} tokens": "{why}，且词表大小为 {a:,} 与 {b:,}",
    "{why}: tokens of one id were taken to be the same": "{why}：编号相同的词元被视为同一词元",
    "the tokenizers share {n} tokens": "两个分词器共有 {n} 个词元",
    "{n:,} tokens are shared": "共有 {n:,} 个词元",
}  # fmt: skip

MESSAGES: Mapping[str, str] = {**_PAIR, **_REASONS, **FILES, **KERNEL, **TOKENIZER, **_WEIGHTS, **DATA}
