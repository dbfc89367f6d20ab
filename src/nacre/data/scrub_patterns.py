"""How models name themselves in Chinese and English: vendors, models, and the sentences that claim to be one.

Every pattern asks for a first person. Word boundaries are written out for Latin letters, because `\\b` does not hold
between a Latin and a Chinese character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

VENDOR = (
    r"(?:OpenAI|Open AI|Anthropic|Google(?: DeepMind| AI)?|DeepMind|Meta(?: AI)?|Microsoft|Mistral(?: AI)?|xAI|"
    r"Cohere|Alibaba(?: Cloud| Group)?|Tongyi(?: Lab)?|Baidu|Tencent|ByteDance|Huawei|DeepSeek|Moonshot(?: AI)?|"
    r"Zhipu(?: ?AI)?|Z\.ai|MiniMax|StepFun|Baichuan|01\.AI|iFlytek|SenseTime|Shanghai AI Lab(?:oratory)?|LMSYS|"
    r"Stability AI|阿里云|阿里巴巴(?:集团|云)?|阿里|通义实验室|百度|腾讯|字节跳动|华为|深度求索|月之暗面|"
    r"智谱(?: ?AI|清言|华章)?|科大讯飞|讯飞|商汤(?:科技)?|百川智能|零一万物|阶跃星辰|面壁智能|上海人工智能实验室|"
    r"谷歌|微软)(?![A-Za-z])"
)
# Names that no person has: "I am ChatGPT" suffices.
MODEL = (
    r"(?:ChatGPT|GPT-?[345](?:\.\d|o)?|InstructGPT|Qwen[\d.]*|QwQ|Tongyi Qianwen|ERNIE(?: Bot)?|"
    r"DeepSeek(?:-?(?:V|R)\d)?|ChatGLM\d?|GLM-?\d|InternLM\d?|Baichuan\d?|LLaMA[ -]?\d?|LaMDA|PaLM(?: 2)?|Vicuna|"
    r"Hunyuan|Doubao|SparkDesk|通义千问|千问|文心一言|文心大模型|智谱清言|讯飞星火|混元|豆包|书生)(?![A-Za-z])"
)
# Names that people, stars and plants have too: a word about models must stand with them.
SHARED_NAME = r"(?<![A-Za-z])(?:Claude|Gemini|Bard|Grok|Kimi|Copilot|Mistral|Llama|Alpaca|Yi)(?![A-Za-z])"
NAMES = re.compile(rf"(?P<model>{MODEL}|{SHARED_NAME})|(?P<vendor>{VENDOR})", re.I)

_MADE = r"(?:developed|trained|created|built|made|designed|provided|powered)"
_THING = r"(?:AI|artificial intelligence|(?:large )?language model|LLM|chat ?bot|(?:virtual |digital )?assistant)"
_AN = r"(?:an?|the|your|just an?|only an?|simply an?)"
_FEW_WORDS = r"[\w ,'-]{0,40}?"
_PHRASE = rf"(?:,? ?{_AN} {_FEW_WORDS}\b{_THING}\b{_FEW_WORDS})"
_I_AM = r"\b(?:I am|I['’]m|I was|my name is|you can call me)"

_MADE_ZH = r"(?:自主)?(?:研发|开发|训练|推出|创建|创造|打造|设计|构建|研制|提供)"
_THING_ZH = r"(?:人工智能|AI|大?语言模型|大模型|模型|聊天机器人|智能助手|助手|机器人|语言助手)"
_BY_ZH = rf"{VENDOR}(?:公司|集团|团队|旗下)?(?:所)?{_MADE_ZH}"
_A_ZH = r"(?:一个|一款|一名|一种)?"
_QUOTE = r"[“\"'「《]?"


@dataclass(frozen=True)
class Pattern:
    """A way in which a model names itself. `generic` ones tell that it is a model, not which."""

    regex: re.Pattern[str]
    generic: bool = False


def _pattern(*parts: str, generic: bool = False) -> Pattern:
    return Pattern(re.compile("".join(parts), re.I), generic)


PATTERNS: Mapping[str, Pattern] = {
    # I am a large language model, trained by ...
    "en.thing_made_by": _pattern(
        rf"{_I_AM}{_PHRASE},? ?(?:(?:that|which|who) (?:was|is) |and (?:was )?)?{_MADE} by {VENDOR}"
    ),
    # I was created by ...; people are trained and designed things too, so those end the sentence
    "en.made_by": _pattern(
        rf"\b(?:I am|I['’]m|I was) (?:(?:created|developed|built|made) by {VENDOR}|",
        rf"(?:trained|designed|powered|provided) by {VENDOR}(?=[.,;!]|$))",
    ),
    # I am ChatGPT; not: I am a ChatGPT user
    "en.named": _pattern(
        rf"{_I_AM},? (?:{_AN} )?(?:{_THING} (?:called |named )?)?{MODEL}",
        r"(?![\w'’]| (?:user|developer|fan|engineer|customer|subscriber)s?\b)",
    ),
    # I am Claude, an AI assistant; not: I am Claude, an engineer
    "en.shared_name": _pattern(rf"{_I_AM} {SHARED_NAME},? {_AN} {_FEW_WORDS}\b{_THING}\b"),
    "en.shared_name_made_by": _pattern(rf"{_I_AM} {SHARED_NAME}{_FEW_WORDS}\b{_MADE} by {VENDOR}"),
    # As an AI assistant developed by ..., I
    "en.as_thing_made_by": _pattern(
        rf"\bas {_AN} [\w -]{{0,30}}\b(?:model|AI|assistant)\b[\w ,-]{{0,20}}\b{_MADE} by {VENDOR},? (?:I|my)\b"
    ),
    # my creators at ..., ... trained me
    "en.maker": _pattern(
        rf"\b(?:my (?:creators?|developers?|makers?|trainers?)(?: at|,| is| are) {VENDOR}|",
        rf"{VENDOR} (?:created|developed|trained|built|made) me\b)",
    ),
    "en.as_ai": _pattern(
        rf"\bas {_AN} (?:(?:large |AI |artificial intelligence )*language model|",
        r"AI(?: (?:assistant|chatbot|model))?|artificial intelligence)",
        r"(?:,[\w '-]{0,40},|,)? (?:I\b|my\b|it is not appropriate for me)",
        generic=True,
    ),
    "en.cutoff": _pattern(
        r"\b(?:my (?:knowledge|training)(?: data)?(?:'s)? cut-?off|",
        r"as of my (?:last|latest|most recent) (?:knowledge |training )?(?:update|cut-?off))\b",
        generic=True,
    ),
    # 我是(由)……开发的大模型
    "zh.thing_made_by": _pattern(
        rf"我(?:是|叫|名叫)?{_A_ZH}(?:由|来自|被)?{_BY_ZH}的[^。！？\n]{{0,20}}?(?:{_THING_ZH}|{MODEL}|{SHARED_NAME})"
    ),
    # 我(是)由……开发
    "zh.made_by": _pattern(rf"我(?:是)?{_A_ZH}由{_BY_ZH}"),
    # 我是通义千问；不是：我是通义千问的用户
    "zh.named": _pattern(
        rf"我(?:是|叫|名叫|的名字(?:是|叫)){_QUOTE}(?:人工智能|AI|大模型|语言模型|智能助手|你的)?{MODEL}",
        r"(?!的|用户|粉丝|团队|研发|工程师|员工|产品)",
    ),
    # 我是人工智能助手，名叫……
    "zh.thing_named": _pattern(
        rf"我是{_A_ZH}(?:人工智能|大型?语言|AI)[^，。！？\n]{{0,8}}(?:模型|助手)[，,]?(?:我|名)?(?:叫做?|名为){_QUOTE}",
        rf"(?:{MODEL}|{SHARED_NAME})",
    ),
    # ……开发了我，我的开发者是……
    "zh.maker": _pattern(
        rf"{VENDOR}(?:公司|集团|团队)?{_MADE_ZH}了我(?![们的])|",
        rf"我的(?:开发者|创造者|研发者|开发团队|研发团队|训练者|开发公司)(?:是|来自|为){VENDOR}",
    ),
    # 作为一个人工智能语言模型，我……；不是：作为人工智能专业的学生，我……
    "zh.as_ai": _pattern(
        rf"作为{_A_ZH}(?:由[^，。\n]{{1,20}}的)?(?:人工智能|AI|大型?语言|自然语言处理|聊天)[^，。！？\n的]{{0,8}}?",
        rf"{_THING_ZH}?(?:[，,]|(?=我))\s*我(?!们|国|司|校)",
        generic=True,
    ),
    "zh.cutoff": _pattern(
        r"我的(?:知识|训练数据|知识库|数据)(?:库)?(?:仅|只)?(?:截止|截至|更新)(?:到|至|于|日期|时间)", generic=True
    ),
}
