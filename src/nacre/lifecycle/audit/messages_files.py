"""What is said of files that were opened for an audit, in English and Chinese side by side: see `messages.py`."""

from __future__ import annotations

from collections.abc import Mapping

_OPENING: Mapping[str, str] = {
    "nothing of {ref} can be read: {why}": "{ref} 的内容全部无法读取：{why}",
    "it holds no config, weights, tokenizer or data": "其中没有配置、权重、分词器或数据",
    "its lineage record is left out: {reason}": "未采用其谱系记录：{reason}",
    "{n} matrices lie in {all} tensors of their rows: read as matrices":
        "有 {n} 个矩阵按行拆存于 {all} 个张量：已合为矩阵读取",
    "{file} alone names {n} tensors and holds none": "只有 {file}，其中列出 {n} 个张量的名称，但不含张量",
    "{file} holds a vocabulary and no tensors": "{file} 只含词表，不含张量",
    "{file} cannot be read: {why}": "{file} 无法读取：{why}",
    "{ref} is an adapter itself": "{ref} 本身也是适配器",
    "an adapter without its base: {reason}; give it with --base, or merge the two and audit the result":
        "适配器缺少底座模型：{reason}；请用 --base 给出，或先合并再审计",
    "the adapter was made for a model with other weights than {ref}": "该适配器并非为 {ref} 的权重而训练",
    "{reason}: {remedy}": "{reason}：{remedy}",
    "give the base that the adapter was made for": "请给出训练该适配器时所用的底座模型",
    "give its base": "请给出其底座模型",
    "fetch it again": "请重新获取",
    "merge the adapter into its base, and audit the merged model": "请先把适配器并入底座模型，再审计合并后的模型",
    "audit its base: such an adapter stays beside the weights": "请审计其底座模型：这类适配器不改变权重",
    "the adapter's base: {reason}": "适配器的底座模型：{reason}",
    "read as the model that the adapter makes of {ref}": "按适配器并入 {ref} 之后的模型读取",
    "its config names none": "其配置未指明底座模型",
    "{ref} is not on this machine": "{ref} 不在本机上",
}  # fmt: skip
_FILES: Mapping[str, str] = {
    "the file name {name} leads out of its folder": "文件名 {name} 指向所在文件夹之外",
    "the file {name} cannot be followed: {why}": "文件 {name} 的链接无法解析：{why}",
    "{name} is a link out of its folder": "{name} 是指向所在文件夹之外的链接",
    "cannot be opened: {why}": "无法打开：{why}",
    "is no regular file": "不是普通文件",
    "cannot be listed: {why}": "无法列出内容：{why}",
    "holds {size:,} bytes, at most {limit:,} are read": "有 {size:,} 字节，至多读取 {limit:,} 字节",
    "cannot be read at byte {at:,}: {why}": "在第 {at:,} 字节处无法读取：{why}",
    "ends at byte {at:,}, inside a tensor or header": "在第 {at:,} 字节处中断，张量或文件头不完整",
    "changed while it was being read": "读取期间被改动",
    "{file} holds no bytes": "{file} 是空文件",
    "is in no known format of weights": "不是已知的权重格式",
    "{label} was passed over: {reason}": "未采用 {label}：{reason}",
    "{n} files {suffix}": "{n} 个 {suffix} 文件",
    "{n} further files of weights were not read, {name} first": "另有 {n} 个权重文件未读取，如 {name}",
    # JSON
    "{n} keys are given twice, {name} first; the last counts": "有 {n} 个键重复，如 {name}；以最后一个为准",
    "its JSON has {n:,} values, at most {most:,} are read": "JSON 含 {n:,} 个值，至多读取 {most:,} 个",
    "is not UTF-8 at byte {at:,}": "第 {at:,} 字节处不是 UTF-8",
    "its JSON is nested too deeply": "JSON 嵌套过深",
    "its JSON is nested deeper than {n}": "JSON 嵌套超过 {n} 层",
    "is not the JSON that was expected: {why}": "不是预期的 JSON：{why}",
    "holds no JSON object": "不含 JSON 对象",
    "its JSON holds half a character (a lone surrogate)": "JSON 含有半个字符（孤立的代理项）",
    # an index and its shards
    "has no weight_map": "没有 weight_map",
    "its weight_map names something else than files": "weight_map 所指不是文件",
    "names more than {n:,} files": "所列文件超过 {n:,} 个",
    "the shard {shard} that {index} names is missing": "缺少 {index} 所列的分片 {shard}",
    "the shard {shard} holds no bytes": "分片 {shard} 是空文件",
    "{shard} lacks {n} tensors that the index names, {name} first": "{shard} 缺少索引所列的 {n} 个张量，如 {name}",
    "the tensor {name} lies in {other} and in {shard}": "张量 {name} 同时见于 {other} 与 {shard}",
    "{shard} holds {n} tensors that the index does not name": "{shard} 含有 {n} 个索引未列的张量",
    "{name} lies in {shard}, the index says {other}": "{name} 位于 {shard}，而索引称其位于 {other}",
}  # fmt: skip
_TENSORS: Mapping[str, str] = {
    "holds no tensors": "不含张量",
    "holds {size} bytes: no safetensors file": "只有 {size} 字节，不是 safetensors 文件",
    "its header claims {n:,} bytes, the file has {size:,}": "文件头自称有 {n:,} 字节，而文件只有 {size:,} 字节",
    "its __metadata__ is no table of strings": "__metadata__ 不是字符串表",
    "{n:,} bytes belong to no tensor": "有 {n:,} 字节不属于任何张量",
    "the tensor {name} is not described by dtype, shape and data_offsets":
        "张量 {name} 的描述不是 dtype、shape 与 data_offsets",
    "the tensor {name} has the unknown dtype {dtype}": "张量 {name} 的数据类型 {dtype} 未知",
    "the tensor {name} has the shape {shape}": "张量 {name} 的形状为 {shape}，不合规范",
    "the tensor {name} lies at {offsets}, outside the file's {n:,} bytes of values":
        "张量 {name} 位于 {offsets}，超出文件中 {n:,} 字节的数值区",
    "the tensor {name} of {dtype} and shape {shape} does not fill its {n:,} bytes":
        "张量 {name}（{dtype}，形状 {shape}）与其所占的 {n:,} 字节不符",
    "the tensors {a} and {b} share bytes": "张量 {a} 与 {b} 的字节重叠",
    "{name} is a single value and has no rows": "{name} 只是单个数值，没有行",
    "{name}: {n:,} values at once are too many": "{name}：一次读取 {n:,} 个数值，过多",
    "{name}: values of {dtype} cannot be read": "{name}：无法读取 {dtype} 类型的数值",
    "{name} is too large for its order in the file": "{name} 过大，无法按其在文件中的次序读取",
    "{name}: its values lie too far apart in the file": "{name}：数值在文件中过于分散",
    # GGUF
    "does not begin as GGUF does": "开头不符合 GGUF 格式",
    "is GGUF of version {n}; 2 and 3 are read": "是第 {n} 版 GGUF；可读取第 2、3 版",
    "claims {tensors:,} tensors and {keys:,} keys in {size:,} bytes":
        "自称在 {size:,} 字节中有 {tensors:,} 个张量与 {keys:,} 个键",
    "the key {name} is given twice": "键 {name} 重复",
    "its header claims {n:,} bytes at {at:,} of {size:,}":
        "文件头自称在第 {at:,} 字节起有 {n:,} 字节，而文件只有 {size:,} 字节",
    "ends at byte {at:,}, inside its header": "在第 {at:,} 字节处中断，文件头不完整",
    "its header claims a text of {n:,} bytes at {at:,}": "文件头自称在第 {at:,} 字节起有 {n:,} 字节的文本",
    "has a name that is not UTF-8 at byte {at:,}": "第 {at:,} 字节处的名称不是 UTF-8",
    "has a value of the unknown kind {kind} at byte {at:,}": "第 {at:,} 字节处的值类型为 {kind}，无法识别",
    "its arrays claim more than {n:,} values": "数组自称的值超过 {n:,} 个",
    "the tensor {name} has {n} dimensions": "张量 {name} 有 {n} 维，过多",
    "its alignment is {n}": "对齐值为 {n}，不合规范",
    "the tensor {name} is given twice": "张量 {name} 重复",
    "the tensor {name} lies at {at:,}, off the alignment {n}": "张量 {name} 位于 {at:,}，未按 {n} 字节对齐",
    "the tensor {name} has the unknown type {kind}": "张量 {name} 的类型为 {kind}，无法识别",
    "the tensor {name} of {dtype} and shape {shape} does not fit the file":
        "张量 {name}（{dtype}，形状 {shape}）与文件不符",
    "the block format {name} cannot be decoded": "无法解码分块格式 {name}",
}  # fmt: skip
_TORCH: Mapping[str, str] = {
    "is no PyTorch checkpoint": "不是 PyTorch 检查点",
    "its zip cannot be read: {why}": "zip 无法读取：{why}",
    "its zip is not that of a PyTorch checkpoint": "zip 的内容不是 PyTorch 检查点",
    "was written on a machine of the other byte order": "写入该文件的机器字节序不同",
    "its part {name} is compressed or encrypted": "其中 {name} 经过压缩或加密",
    "its part {name} lies outside the file": "其中 {name} 超出文件范围",
    "its table of tensors claims {n:,} bytes": "张量表自称有 {n:,} 字节，过大",
    "is a pickle, and not one of a PyTorch checkpoint": "是 pickle 文件，但不是 PyTorch 检查点",
    "is a PyTorch checkpoint of an unknown kind": "是未知类型的 PyTorch 检查点",
    "holds bytes at {at:,} that belong to no tensor": "第 {at:,} 字节起有不属于任何张量的字节",
    "the bytes of a storage at {at:,} are missing": "第 {at:,} 字节起应有的存储内容缺失",
    "the bytes of the tensor {name} are missing": "张量 {name} 的内容缺失",
    "the tensor {name} of shape {shape} does not fit its {n:,} bytes":
        "张量 {name}（形状 {shape}）与其所占的 {n:,} 字节不符",
    "holds no named tensors": "不含具名的张量",
    "{n} entries beside the tensors were passed over": "略过了张量之外的 {n} 项",
    "its pickle ends before its end": "pickle 不完整",
    "its pickle is damaged: {why}": "pickle 已损坏：{why}",
    "was not opened: {reason}": "未予打开：{reason}",
    "it has more than {n:,} instructions": "指令超过 {n:,} 条",
    "it holds the instruction {opcode}, which no table of tensors needs": "含有张量表用不到的指令 {opcode}",
    "it names {name}, code that was not run": "其中引用了代码 {name}，未予执行",
    "it holds a table whose keys are no plain values": "其中有的表以非普通值为键",
    "it holds a storage of the kind {kind}": "含有类型为 {kind} 的存储",
    "it rebuilds a tensor with {name}": "其中以 {name} 重建张量",
    "it calls {name} in a way that no table of tensors needs": "其中对 {name} 的调用是张量表用不到的",
}  # fmt: skip
_ADAPTERS: Mapping[str, str] = {
    "{name} is no part of a plain LoRA": "{name} 不属于普通的 LoRA",
    "the adapter of {name} has no lora_A": "{name} 的适配器缺少 lora_A",
    "the adapter of {name} has no lora_B": "{name} 的适配器缺少 lora_B",
    "the base has no {name}, which the adapter changes": "适配器所改动的 {name} 不在底座模型中",
    "the adapter of {name} has the shapes {a} and {b}, its base {held}":
        "{name} 的适配器形状为 {a} 与 {b}，而底座模型为 {held}",
    "the adapter of {name} has two ranks": "{name} 的适配器两个矩阵的秩不一致",
    "the adapter is of the kind {kind}": "适配器的类型为 {kind}，无法读取",
    "its alpha_pattern is no table": "其 alpha_pattern 不是表",
    "its lora_alpha is {alpha}": "其 lora_alpha 为 {alpha}，不合规范",
}  # fmt: skip

MESSAGES: Mapping[str, str] = {**_OPENING, **_FILES, **_TENSORS, **_TORCH, **_ADAPTERS}
