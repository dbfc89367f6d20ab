"""Every label of a report in English and Chinese. One table, so that neither language can lag behind."""

from __future__ import annotations

from nacre.errors import ConfigError, closest

WORDS: dict[str, tuple[str, str]] = {
    # figures
    "accuracy": ("Accuracy", "准确率"),
    "precision": ("Precision", "精确率"),
    "recall": ("Recall", "召回率"),
    "f1": ("F1", "F1"),
    "macro_f1": ("Macro F1", "宏平均 F1"),
    "weighted_f1": ("Weighted F1", "加权 F1"),
    "entity_f1": ("Entity F1", "实体 F1"),
    "entity_precision": ("Entity precision", "实体精确率"),
    "entity_recall": ("Entity recall", "实体召回率"),
    "auc": ("AUC", "AUC"),
    "auc_macro": ("AUC, one against the rest", "AUC（一对其余）"),
    "calibration_error": ("Calibration error", "校准误差"),
    "perplexity": ("Perplexity per token", "困惑度（每词元）"),
    "bits_per_byte": ("Bits per byte", "每字节比特数"),
    "tokens": ("Tokens", "词元数"),
    "bytes": ("Bytes", "字节数"),
    "bleu": ("BLEU", "BLEU"),
    "chrf": ("chrF", "chrF"),
    "rougeL": ("ROUGE-L", "ROUGE-L"),
    "valid_form": ("Poems of valid form", "格式合规的诗"),
    "rhyming": ("of these, rhyming", "其中押韵的"),
    "human_valid_form": ("Valid form, held-out poems", "格式合规（人写的测试集）"),
    "human_rhyming": ("of these, rhyming, held-out", "其中押韵（人写的测试集）"),
    "parses": ("Samples that parse", "可解析的样本"),
    "compiles_clean": ("Compile without warning", "编译无警告"),
    "sound_lines": ("Lines before the first error", "首个错误前的行"),
    "copied_lines": ("Lines copied from training", "抄自训练集的行"),
    "copied_texts": ("Whole texts copied", "整篇照抄的样本"),
    "longest_shared": ("Longest shared run, median", "最长相同片段（中位数）"),
    "distinct_2": ("Distinct bigrams", "不同的二元组"),
    "majority": ("Most frequent class", "最多类占比"),
    "pairs_right": ("Pairs ranked rightly", "排序正确的偏好对"),
    "margin": ("Margin of rewards", "奖励差"),
    "reward_chosen": ("Reward of chosen answers", "所选回答的奖励"),
    "reward_rejected": ("Reward of rejected answers", "被拒回答的奖励"),
    "longer_chosen": ("Pairs whose chosen answer is longer", "所选回答更长的偏好对"),
    "average_accuracy": ("Average accuracy after the last task", "最后一个任务后的平均准确率"),
    "backward_transfer": ("Backward transfer", "后向迁移"),
    "forgetting": ("Forgetting", "遗忘"),
    "average_accuracy_told": ("Average accuracy, the task told", "平均准确率（已知任务）"),
    "backward_transfer_told": ("Backward transfer, the task told", "后向迁移（已知任务）"),
    "forgetting_told": ("Forgetting, the task told", "遗忘（已知任务）"),
    "stacking": ("Stacking", "堆叠"),
    # sections
    "tables": ("Side by side", "逐项对照"),
    "systems": ("Each system on the same rows", "各系统在相同样本上的结果"),
    "after_stages": ("Accuracy on each task after each stage", "每个阶段之后各任务的准确率"),
    "after_stages_told": (
        "The same where the task is told: the answer is one of its classes",
        "同上，但已知任务：只在该任务的类别中选择",
    ),
    "results": ("Results", "结果"),
    "comparison": ("Against the baseline", "与基线对比"),
    "training": ("Training", "训练过程"),
    "roc": ("ROC", "ROC 曲线"),
    "confusion": ("Confusion matrix", "混淆矩阵"),
    "confused": ("Most confused pairs", "最易混淆的类别对"),
    "classes": ("Class by class", "各类别"),
    "kinds": ("Kind by kind", "各实体类型"),
    "calibration": ("Calibration", "校准"),
    "mistakes": ("Most confident mistakes", "最自信的错误"),
    "samples": ("Samples", "样本"),
    "data": ("What happened to the data", "数据处理报告"),
    "lineage": ("Where it comes from", "来源谱系"),
    "anatomy": ("Anatomy of the kernel", "模型结构"),
    "settings": ("How it was measured", "测量方式"),
    "notes": ("To know", "须知"),
    # columns and axes
    "system": ("System", "系统"),
    "after": ("After", "阶段之后"),
    "over_first": ("This minus the first", "该系统减去第一个"),
    "against_ensemble": ("Ensemble minus this", "集成减去该系统"),
    "class": ("Class", "类别"),
    "support": ("Examples", "样本数"),
    "true": ("True", "真实"),
    "predicted": ("Predicted", "预测"),
    "count": ("Count", "数量"),
    "share": ("Share of the true class", "占真实类别的比例"),
    "text": ("Text", "文本"),
    "confidence": ("Confidence", "置信度"),
    "source": ("Source", "源文"),
    "reference": ("Reference", "参考"),
    "step": ("Step", "步数"),
    "loss": ("Loss", "损失"),
    "valid_loss": ("Loss on validation data", "验证集损失"),
    "lr": ("Learning rate", "学习率"),
    "false_positive_rate": ("False positive rate", "假阳性率"),
    "true_positive_rate": ("True positive rate", "真阳性率"),
    "chance": ("chance", "随机"),
    "perfect": ("perfect calibration", "完美校准"),
    "model": ("Model", "模型"),
    "baseline": ("Baseline", "基线"),
    "difference": ("Difference", "差值"),
    "p_value": ("p-value", "p 值"),
    "interval": ("Interval", "区间"),
    "metric": ("Metric", "指标"),
    "rows_in": ("Rows in", "输入行"),
    "rows_out": ("Rows out", "输出行"),
    "dropped": ("Dropped", "丢弃"),
    "changed": ("Changed", "修改"),
    "noted": ("Noted", "备注"),
    "data_step": ("Step", "步骤"),
    "reason": ("Reason", "原因"),
    "example": ("Example", "示例"),
    "part": ("Part", "部分"),
    "parameters": ("Parameters", "参数量"),
    "part_share": ("Share", "占比"),
    "licence": ("licence", "许可证"),
    "licence_unknown": ("licence unknown", "许可证未知"),
    "micro": ("all classes pooled", "全部类别合并"),
    "micro_roc": ("All classes pooled", "全部类别合并"),
    "show_all": ("Show all {n}", "显示全部 {n} 项"),
    "report": ("Evaluation report", "评测报告"),
    "contents": ("Contents", "目录"),
    "interval_note": ("{level} % interval {low} to {high}", "{level}% 区间 {low} 至 {high}"),
    "remaining": ("all rows kept", "全部保留"),
    "rhymes": ("rhymes", "押韵"),
    "no_form": ("no regulated form", "格式不合"),
    "is_code": ("parses", "可解析"),
    "n": ("Examples", "样本数"),
    "bootstrap": ("Bootstrap resamples", "自助重采样"),
    "seed": ("Seed", "随机种子"),
    "scheme": ("Tag scheme", "标注体系"),
    "tokenizer": ("Tokenizer", "分词器"),
    "family": ("Family", "模型家族"),
    "layers": ("Layers", "层数"),
    "heads": ("Heads, key heads", "注意力头 / 键头"),
    "context_length": ("Longest text in tokens", "最长文本（词元）"),
    "memory": ("Memory of the weights", "权重占用内存"),
    "flops_per_token": ("FLOPs per token, forward", "每词元浮点运算（前向）"),
    "cache_per_token": ("KV cache per token", "每词元 KV 缓存"),
    "embedding": ("embedding", "嵌入"),
    "attention": ("attention", "注意力"),
    "cross_attention": ("cross attention", "交叉注意力"),
    "feed_forward": ("feed-forward", "前馈"),
    "norm": ("norms", "归一化"),
    "head": ("head", "输出头"),
    "hidden_size": ("Width", "隐藏维度"),
    "vocab_size": ("Vocabulary", "词表大小"),
    # relations and bases
    "trained_on": ("trained on", "训练数据"),
    "finetuned_from": ("fine-tuned from", "微调自"),
    "distilled_from": ("distilled from", "蒸馏自"),
    "aligned_with": ("aligned with", "对齐依据"),
    "quantized_from": ("quantized from", "量化自"),
    "pruned_from": ("pruned from", "剪枝自"),
    "merged_from": ("merged from", "合并自"),
    "tokenized_by": ("tokenized by", "分词器"),
    "made_from": ("made from", "制作自"),
    "evaluated_on": ("evaluated on", "评测数据"),
    "evaluates": ("evaluates", "评测对象"),
    "calls": ("calls", "调用"),
    "indexes": ("indexes", "索引"),
    "witnessed": ("witnessed", "亲历"),
    "declared": ("declared", "声明"),
    "inferred": ("inferred", "推断"),
    # captions
    "about_roc": (
        "How many positives are found (up) at the price of how many false alarms (right), for every threshold.",
        "不同阈值下，找到多少正例（纵轴）以及付出多少误报（横轴）。",
    ),
    "about_confusion": (
        "A row is a true class. Blue on the diagonal is right, orange off it wrong; strength is the share of the row.",
        "每行是一个真实类别。对角线上的蓝色为正确，其外的橙色为错误；颜色深浅表示占该行的比例。",
    ),
    "about_calibration": (
        "Where the dots meet the line, stated confidence is earned. The size of a dot is the number of examples.",
        "点落在线上说明置信度名副其实；点的大小表示样本数。",
    ),
    "about_training": ("{drawn} of {total} logged steps are drawn.", "共记录 {total} 步，绘制 {drawn} 步。"),
    "about_comparison": (
        "Both systems predicted the same {n} examples and were resampled together.",
        "两个系统预测同样的 {n} 个样本，并一起重采样。",
    ),
    # verdicts and notes
    "verdict_classify": (
        "{value} of {n} test examples are classified rightly ({interval}).",
        "{n} 个测试样本中有 {value} 分类正确（{interval}）。",
    ),
    "verdict_better": (
        "That is {points} points above {baseline} (p = {p}).",
        "比 {baseline} 高 {points} 个百分点（p = {p}）。",
    ),
    "verdict_worse": (
        "That is {points} points below {baseline} (p = {p}).",
        "比 {baseline} 低 {points} 个百分点（p = {p}）。",
    ),
    "verdict_even": (
        "No difference from {baseline} can be shown ({points} points, p = {p}).",
        "与 {baseline} 没有可证实的差别（{points} 个百分点，p = {p}）。",
    ),
    "verdict_tag": (
        "Entity F1 is {value} over {n} sentences ({interval}).",
        "{n} 个句子上的实体 F1 为 {value}（{interval}）。",
    ),
    "verdict_preference": (
        "{value} of {n} pairs of answers are ranked as people ranked them ({interval}).",
        "{n} 对回答中有 {value} 的排序与人的偏好一致（{interval}）。",
    ),
    "verdict_chance": (
        "That cannot be told from a coin.",
        "与掷硬币没有可证实的差别。",
    ),
    "verdict_language": (
        "The model needs {value} bits per byte of unseen text ({interval}).",
        "在未见过的文本上，模型每字节需要 {value} 比特（{interval}）。",
    ),
    "verdict_translate": (
        "BLEU is {value} over {n} sentences ({interval}).",
        "{n} 个句子上的 BLEU 为 {value}（{interval}）。",
    ),
    "verdict_generate_poem": (
        "{value} of {n} generated poems have a valid form ({interval}).",
        "生成的 {n} 首诗中有 {value} 格式合规（{interval}）。",
    ),
    "verdict_generate_python": (
        "{value} of {n} generated samples are Python that parses ({interval}).",
        "生成的 {n} 个样本中有 {value} 是可解析的 Python（{interval}）。",
    ),
    "verdict_generate_text": (
        "{n} texts were generated; {value} of their bigrams are distinct.",
        "共生成 {n} 段文本，其中 {value} 的二元组互不相同。",
    ),
    "note_truncated": (
        "{n} texts were longer than {limit} tokens: what came after was not read.",
        "{n} 段文本超过 {limit} 个词元，其后内容未读取。",
    ),
    "note_windowed": (
        "{n} texts were longer than {limit} tokens and were read in windows.",
        "{n} 段文本超过 {limit} 个词元，按窗口读取。",
    ),
    "note_unseen": (
        "{n} test examples carry labels the model was not trained on ({labels}); they count as wrong.",
        "{n} 个测试样本的标签不在模型的类别中（{labels}），按错误计。",
    ),
    "note_absent": (
        "{n} classes of the model do not occur in the test data: {labels}.",
        "模型有 {n} 个类别未出现在测试数据中：{labels}。",
    ),
    "note_malformed": (
        "{n} predicted entities are malformed (they open without a B tag, or do not close).",
        "有 {n} 个预测实体形式不完整（没有以 B 开头或没有结束标签）。",
    ),
    "note_perplexity": (
        "Perplexity depends on the tokenizer. Compare models with different tokenizers by bits per byte only.",
        "困惑度取决于分词器；分词器不同的模型只能用每字节比特数比较。",
    ),
    "note_rhyme": (
        "Rhyme is judged by modern Mandarin, while Tang poems rhyme by Middle Chinese: "
        "compare with the share of held-out poems by people.",
        "押韵按现代汉语判断，而唐诗依中古音押韵，请与人写的测试集所占比例对照。",
    ),
    "note_no_rhyme": (
        "Rhyme was not judged: the package pypinyin is not installed.",
        "未判断押韵：没有安装 pypinyin。",
    ),
    "note_no_training": ("Copies were not looked for: no training data was given.", "未检查抄袭：没有提供训练数据。"),
    "note_no_scores": (
        "The predictions carry no scores: ROC and calibration are not drawn.",
        "预测结果没有分数，未绘制 ROC 与校准曲线。",
    ),
    "note_reward_model": (
        "Rewards are those of a reward model; only their differences mean something.",
        "奖励来自奖励模型，只有差值有意义。",
    ),
    "note_implicit_reward": (
        "Rewards are implicit: beta times the log-ratio of the model to its reference.",
        "奖励为隐式奖励：beta 乘以模型与参考模型的对数概率比。",
    ),
    "note_per_token_reward": (
        "Without a reference model the reward is beta times the log-probability per token.",
        "未提供参考模型，奖励为 beta 乘以每词元的对数概率。",
    ),
    "note_ties": (
        "{n} pairs have equal rewards and count as wrong.",
        "{n} 对的奖励相等，按错误计。",
    ),
    "verdict_ensemble": (
        "{value} of {n} test examples are classified rightly by the mean of {members} models ({interval}).",
        "{members} 个模型取平均后，{n} 个测试样本中有 {value} 分类正确（{interval}）。",
    ),
    "verdict_forgetting": (
        "After {tasks} tasks the average accuracy is {value} ({interval}); {lost} points were forgotten on average.",
        "学完 {tasks} 个任务后平均准确率为 {value}（{interval}），平均遗忘 {lost} 个百分点。",
    ),
    "note_best_member": (
        "The best single model was chosen on the split {split}, not on the rows measured here.",
        "最好的单个模型按 {split} 集选出，而不是按这里测量的样本。",
    ),
    "note_stacking": (
        "Stacking is a logistic regression over log-probabilities, fitted on {n} rows of the split {split}.",
        "堆叠是在 {split} 集的 {n} 个样本上拟合的、以对数概率为输入的逻辑回归。",
    ),
    "about_systems": (
        "All systems predicted the same rows and were resampled together; the p-values are not corrected for their "
        "number.",
        "各系统预测同样的样本并一起重采样；p 值未按比较次数校正。",
    ),
    "about_forgetting": (
        "Backward transfer: what the last stage changed on earlier tasks. Forgetting: the best that any stage reached "
        "on a task, minus what is left of it; it can be below 0.",
        "后向迁移：最后阶段使先前任务的准确率改变多少。遗忘：各阶段在该任务上达到的最好成绩减去最终成绩，可以小于 0。",
    ),
    "note_dropped": ("{n} test rows were not used: {reason}.", "{n} 条测试数据未使用：{reason}。"),
    "note_undefined": (
        "{n} classes have no test example and are left out of the AUC.",
        "{n} 个类别没有测试样本，未计入 AUC。",
    ),
}

LANGUAGES = ("en", "zh")


class Words:
    """Labels in one language: `words("accuracy")`, `words("note_unseen", n=3, labels="a")`."""

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise ConfigError(f"no report language {language!r}", remedy=closest(language, LANGUAGES))
        self.language = language
        self._column = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a known key."""
        return WORDS[key][self._column].format(**values)

    def name(self, key: str) -> str:
        """The text of `key`, or `key` itself: for names that may come from a user (a metric, a fact)."""
        return WORDS[key][self._column] if key in WORDS else key
