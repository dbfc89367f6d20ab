"""What stage 1 says, in English and Chinese side by side: see `messages.py`."""

from __future__ import annotations

from collections.abc import Mapping

MESSAGES: Mapping[str, str] = {
    "{found}; a shared design says nothing about weights": "{found}；设计相同并不说明权重的来源",
    "the same kernel: design ({family}) and all sizes{basis}": "内核相同：设计（{family}）与各项尺寸都一致{basis}",
    "the same design ({family}), {sizes}{basis}": "设计相同（{family}），{sizes}{basis}",
    "other sizes ({names})": "尺寸不同（{names}）",
    "no other size known to differ": "未见尺寸不同",
    "different designs: {n} operations differ between {ours} and {theirs}{basis}":
        "设计不同：{ours} 与 {theirs} 之间有 {n} 处运算不一样{basis}",
    " (by tensor names; sizes are declared)": "（依据张量名称；尺寸为自行声明）",
    " (declared by a config alone; nothing is proven)": "（仅由配置声明，未经证实）",
    "{n} operations differ": "{n} 处运算不同",
    "any layer whose operations differ by one": "任何一层中哪怕一处运算的差异",
    "what only configs declare differs (activation, positions, scales): tensors cannot confirm it":
        "仅由配置声明的内容不同（激活函数、位置编码、缩放）：张量无从证实",
    "the {side}'s sizes: no shapes are known": "{side}的尺寸：形状未知",
    "the {side}'s roles that shapes leave open: {roles}": "形状无法确定{side}中哪个张量是：{roles}",
    # what names and shapes tell
    "names say nothing": "张量名称不说明用途",
    "names contradict shapes": "张量名称与形状矛盾",
    "{why}: roles were solved from shapes": "{why}：改由形状推断各张量的用途",
    "shapes contradict names: {problem}": "形状与张量名称矛盾：{problem}",
    "none of {n} tensor names says what its tensor does, and {lacking}":
        "{n} 个张量名称都不说明张量的用途，且{lacking}",
    "their shapes fit no known design": "形状不符合任何已知设计",
    "no shapes are known": "形状未知",
    "shapes fit the layers of {family} best": "从形状看，各层与 {family} 最为相符",
    "names hold no layer numbers: layers were told by the order of tensors in the file":
        "张量名称中没有层号：依张量在文件中的次序划分各层",
    "more tensors than roles of the shape of {roles}": "形状与 {roles} 相同的张量多于应有的个数",
    "without shapes, that the feed-forward is gated is taken from the config (rmsnorm of GLM)":
        "形状未知，前馈层带门控一事取自配置（GLM 的 rmsnorm）",
    "{name} {shape} cannot be {role} beside hidden size {hidden}":
        "{name} {shape} 不可能是 {role}：隐藏维度为 {hidden}",
    "{name} gives {out} rows, other keys and values {key}": "{name} 有 {out} 行，其余的键与值投影则为 {key} 行",
    "{name} gives {out} rows where o reads {query}": "{name} 有 {out} 行，而输出投影 o 读取 {query} 列",
    "layer {layer}: gate, up and down disagree on the feed-forward's size {widths}":
        "第 {layer} 层：门投影、上投影与下投影的前馈层宽度不一致 {widths}",
    # heads
    "the head size was told by {source}": "注意力头的维度得自{source}",
    "the config, which fits the shapes": "与形状相符的配置",
    "nothing that fits the shapes": "无处（没有与形状相符的值）",
    "the width of the queries' norm": "查询归一化的宽度",
    "the rotary frequencies": "旋转位置编码的频率",
    # packed tensors
    "queries, keys and values lie in one tensor whose name does not tell the order of its rows: taken as all queries, "
    "all keys, all values":
        "查询、键、值合存于一个张量，其名称不说明各行的次序：按先查询、再键、后值的次序处理",
    "{role} is not split: its {rows} rows do not fit {query} of queries, {key} of keys":
        "未拆分 {role}：共 {rows} 行，与查询的 {query} 行、键的 {key} 行不符",
    "queries, keys and values are interleaved by head and the head size is unknown: not split":
        "查询、键、值按注意力头交错存放，而头的维度未知：未予拆分",
    "{n} matrices are packed integers: they have roles and are not read":
        "有 {n} 个矩阵以打包整数存放：用途已知，数值未读",
    "every packed matrix has a bias, which quantisers add: these biases are no part of the design":
        "每个打包的矩阵都带偏置，而量化工具会添加偏置：这些偏置不计入设计",
    # configs
    "the config declares {field} {theirs}, the tensors have {ours}: the tensors are taken":
        "配置声明的{field}为 {theirs}，张量中则为 {ours}：以张量为准",
    "the index gives no shapes: sizes but the number of layers are the config's word":
        "索引不含形状：除层数外，各项尺寸均为配置所声明",
    "a config alone: family and sizes are declared, nothing is proven by a tensor":
        "只有配置：模型系列与尺寸均为自行声明，没有张量可资证实",
    "neither a config nor tensor names": "既无配置也无张量名称",
    "the config alone names no known family (model_type {named})":
        "只有配置，且其中没有已知的模型系列（model_type {named}）",
}  # fmt: skip
