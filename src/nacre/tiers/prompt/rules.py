"""Rewriting without a model: what a request tells is found by patterns and put into a scaffold; the rest is asked back.

Rules understand nothing. They recognise the usual kinds of work and the usual ways to state length, form, reader, tone
and language in English and Chinese; every aspect that was not found becomes an optional input and a question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nacre.data.rows import is_han
from nacre.tiers.prompt.file import PromptInput
from nacre.tiers.prompt.instruction import literal, prompt_name


@dataclass(frozen=True)
class Work:
    """A kind of work: how requests name it, who does it, and whether it is done on a text."""

    pattern: str
    role: str
    on_text: bool = True


@dataclass(frozen=True)
class Aspect:
    """What a request may tell: how it is recognised, how the prompt says it, what is asked where it is missing.

    `kinds`: of the work for which it matters; empty for all.
    """

    pattern: str
    says: str
    question: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wording:
    """One language's patterns and words."""

    works: Mapping[str, Work]
    aspects: Mapping[str, Aspect]
    role: str
    rules: str
    honest: str
    task: str
    text: str
    text_about: str
    unknown: str


_LANGUAGES = "english|chinese|french|german|spanish|italian|japanese|korean|russian|portuguese|arabic|dutch"
_HAN_LANGUAGES = "中文|汉语|英文|英语|法语|德语|日语|日文|韩语|俄语|西班牙语|葡萄牙语|意大利语|阿拉伯语"
_COUNT = r"(?:\d+|one|two|three|four|five|six|ten|a few|a single)"
_SIZE = r"(?:words?|sentences?|paragraphs?|characters?|lines?|pages?|(?:bullet )?points?|items?)"
_HAN_COUNT = "[0-9一二两三四五六七八九十百千几]+"

ENGLISH = Wording(
    works={
        "translate": Work(r"\btranslat\w*", "You are a careful translator."),
        "summarise": Work(r"\bsummar\w*|\bshorten\b|\bcondense\b|\btl;?dr\b", "You write exact summaries."),
        "classify": Work(r"\bclassif\w*|\bcategori\w*|\bsort\b.{1,40}\binto\b", "You put texts into classes."),
        "extract": Work(r"\bextract\w*|\bpull out\b|\bfind all\b|\blist all\b", "You take facts out of texts."),
        "rewrite": Work(r"\bre(?:write|phrase|word)\w*|\bpolish\b|\bproofread\b|\bimprove\b", "You edit texts."),
        "answer": Work(r"\banswer\w*|\bexplain\w*|^\s*(?:what|why|how)\b", "You explain things rightly.", False),
        "write": Work(r"\bwrite\b|\bdraft\b|\bcompose\b|\bcreate\b|\bgenerate\b", "You write for a living.", False),
    },
    aspects={
        "target_language": Aspect(
            rf"\b(?:in|into|to)\s+(?:{_LANGUAGES})\b", "Language", "Which language should the answer be in?"
        ),
        "audience": Aspect(
            r"\bfor\s+(?:(?:an?|the|my|our|your)\s+)?(?:\w+\s+){0,2}?(?:readers?|audience|people|children|kids|beginners?"
            r"|experts?|students?|customers?|users?|managers?|team|colleagues?|developers?|doctors?|patients?|boss)\b",
            "Readers",
            "Who will read it, and what do they know already?",
        ),
        "length": Aspect(
            rf"(?:\b(?:in|under|within|about|at most|up to|no more than)\s+)?\b{_COUNT}[- ]{_SIZE}\b"
            r"|\b(?:short|brief(?:ly)?|concise(?:ly)?|detailed|in detail)\b",
            "Length",
            "How long may it be?",
        ),
        "format": Aspect(
            r"\b(?:json|csv|yaml|html|markdown|tables?|bullet(?:s| points?)|(?:numbered )?list|e-?mail|letter|essay"
            r"|report|outline|poem|blog post|slides?)\b",
            "Form",
            "What form should the answer have: running text, a list, a table, JSON?",
        ),
        "tone": Aspect(
            r"\b(?:in)?formal(?:ly)?\b|\bfriendly\b|\bpolite(?:ly)?\b|\bprofessional(?:ly)?\b|\bcasual(?:ly)?\b|\bneutral\b"
            r"|\bhumorous\b|\bwarm\b|\bserious\b",
            "Tone",
            "What tone should it have?",
            ("write", "rewrite", "translate"),
        ),
        "classes": Aspect(
            r"\b(?:into|as)\s+[\w' -]+(?:,\s*[\w' -]+)*,?\s+(?:and|or)\s+[\w'-]+",
            "Classes",
            "Which classes are there, and what does each of them mean?",
            ("classify",),
        ),
        "facts": Aspect(
            r"\b(?:names?|dates?|amounts?|prices?|address(?:es)?|numbers?|e-?mails?|deadlines?|people|places|companies)\b",
            "Facts",
            "Which facts should be found, and what should stand where one is missing?",
            ("extract",),
        ),
        "sources": Aspect(
            r"\b(?:from|based on|according to|using) (?:the|these|this|given)\b.{0,40}",
            "Sources",
            "May general knowledge be used, or only what is given?",
            ("answer", "write"),
        ),
    },
    role="Role",
    rules="Rules",
    honest="Say so where something is unknown or missing; do not make anything up.",
    task="Task",
    text="Text",
    text_about="the text to work on",
    unknown="You do carefully what is asked.",
)
CHINESE = Wording(
    works={
        "translate": Work("翻译|译成|译为|翻成", "你是严谨的译者。"),
        "summarise": Work("摘要|总结|概括|归纳|缩写|提炼", "你负责写准确的摘要。"),
        "classify": Work("分类|归类|打标签|分成.{1,20}类", "你负责给文本分类。"),
        "extract": Work("抽取|提取|找出|列出|摘出", "你负责从文本中抽取信息。"),
        "rewrite": Work("改写|润色|改进|校对|修改|优化", "你负责修改文本。"),
        "answer": Work("回答|解释|说明|讲解|什么是|为什么|怎么|如何", "你负责准确地讲解问题。", False),
        "write": Work("撰写|起草|编写|生成|写", "你以写作为业。", False),
    },
    aspects={
        "target_language": Aspect(
            f"(?:译成|译为|翻成|翻译成|用|以)\\s*(?:{_HAN_LANGUAGES})", "语言", "答案用哪种语言？"
        ),
        "audience": Aspect(
            "(?:面向|写给|适合|针对)[^，。；、\\s]{1,12}|给[^，。；、\\s]{1,10}?(?:看|读|用|听)",
            "读者",
            "谁来读？他们已经了解哪些内容？",
        ),
        "length": Aspect(
            f"(?:不超过|少于|大约|约|控制在)?\\s*{_HAN_COUNT}\\s*(?:个)?(?:字|句话|句|段|行|页|条|点)(?:以内|左右|以上)?"
            "|简短|简洁|简要|详细",
            "长度",
            "答案可以有多长？",
        ),
        "format": Aspect(
            "JSON|json|CSV|Markdown|表格|列表|清单|邮件|信件|报告|文章|大纲|要点|诗|帖子|幻灯片",
            "形式",
            "答案是什么形式：连续的文字、列表、表格，还是 JSON？",
        ),
        "tone": Aspect(
            "正式|友好|礼貌|专业|口语|中性|幽默|亲切|严肃|活泼",
            "语气",
            "用什么语气？",
            ("write", "rewrite", "translate"),
        ),
        "classes": Aspect(
            "(?:分为|分成|归入|归为)[^，。；]+[、和或][^，。；]+", "类别", "有哪些类别，各是什么意思？", ("classify",)
        ),
        "facts": Aspect(
            "姓名|人名|日期|时间|金额|价格|地址|电话|号码|公司|地点|邮箱",
            "信息",
            "要找哪些信息？找不到时写什么？",
            ("extract",),
        ),
        "sources": Aspect(
            "(?:根据|依据|基于|按照)[^，。；]{1,20}",
            "依据",
            "可以用一般知识，还是只能依据给出的材料？",
            ("answer", "write"),
        ),
    },
    role="角色",
    rules="要求",
    honest="不知道或缺少的内容要说明，不要编造。",
    task="任务",
    text="文本",
    text_about="要处理的文本",
    unknown="你认真完成交给你的任务。",
)
WORDINGS: Mapping[str, Wording] = {"en": ENGLISH, "zh": CHINESE}
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}|\{(\w+)\}|<(\w[\w ]{0,40})>|\[(\w[\w ]{0,40})\]|【(\w{1,40})】")
_ABOUT_CHARACTERS = 160


@dataclass(frozen=True)
class Scaffold:
    """A filled scaffold. `kind` of the work, or `request` where none was recognised; `told`: aspects found in it."""

    kind: str
    name: str
    about: str
    body: str
    inputs: Mapping[str, PromptInput]
    questions: tuple[str, ...]
    told: Mapping[str, str] = field(default_factory=dict)


def language_of(text: str) -> str:
    """`zh` where a fifth or more of the letters are Chinese characters, else `en`."""
    letters = [character for character in text if character.isalpha()]
    return "zh" if letters and sum(map(is_han, letters)) * 5 >= len(letters) else "en"


def fill(request: str, language: str) -> Scaffold:
    """The scaffold of a request, with an optional input and a question for everything that it leaves open."""
    words = WORDINGS[language]
    kind, work = _work(request, words)
    task, inputs = _placeholders(request)
    told, open_ = dict[str, str](), dict[str, Aspect]()
    for name, aspect in words.aspects.items():
        if aspect.kinds and kind not in aspect.kinds:
            continue
        found = re.search(aspect.pattern, request, re.IGNORECASE)
        if found:
            told[name] = found[0].strip()
        else:
            open_[name] = aspect
    colon = ": " if language == "en" else "："
    rules = [f"- {words.aspects[name].says}{colon}{literal(said)}" for name, said in told.items()]
    rules += [f"{{% if {name} %}}\n- {one.says}{colon}{{{{ {name} }}}}\n{{% endif %}}" for name, one in open_.items()]
    inputs |= {
        name: PromptInput(one.question, required=False, default="") for name, one in open_.items() if name not in inputs
    }
    user = f"## {words.task}\n{task}"
    if work.on_text and not any(one.required for one in inputs.values()):
        inputs["text"] = PromptInput(words.text_about)
        user += f"\n\n## {words.text}\n{{{{ text }}}}"
    listed = "\n".join([*rules, f"- {words.honest}"])
    body = f"# system\n## {words.role}\n{work.role}\n\n## {words.rules}\n{listed}\n# user\n{user}"
    about = " ".join(request.split())[:_ABOUT_CHARACTERS]
    questions = tuple(one.question for one in open_.values())
    return Scaffold(kind, _name(request, kind, language), about, body, inputs, questions, told)


def _work(request: str, words: Wording) -> tuple[str, Work]:
    """The kind of work that the request names first."""
    found = {
        kind: match.start()
        for kind, work in words.works.items()
        if (match := re.search(work.pattern, request, re.IGNORECASE))
    }
    if not found:
        return "request", Work("", words.unknown, on_text=False)
    kind = min(found, key=lambda one: found[one])
    return kind, words.works[kind]


def _placeholders(request: str) -> tuple[str, dict[str, PromptInput]]:
    """The request as a template, with what stands in brackets as inputs."""
    inputs: dict[str, PromptInput] = {}
    pieces, end = [], 0
    for match in _PLACEHOLDER.finditer(request):
        said = next(one for one in match.groups() if one)
        name = re.sub(r"\W+", "_", said.strip()).casefold()
        if not (name.isascii() and name.isidentifier()) or name in ("range", "loop") or name.startswith("_"):
            known = [one for one, value in inputs.items() if value.about == said.strip()]
            name = known[0] if known else f"input_{len(inputs) + 1}"
        inputs.setdefault(name, PromptInput(said.strip()))
        pieces += [literal(request[end : match.start()], edges=True), f"{{{{ {name} }}}}"]
        end = match.end()
    return "".join([*pieces, literal(request[end:], edges=True)]), inputs


def _name(request: str, kind: str, language: str) -> str:
    words = re.findall(r"[a-z0-9]+", request.casefold())[:4]
    return prompt_name("-".join(words)) if words and language == "en" else f"{kind}-{language}"
