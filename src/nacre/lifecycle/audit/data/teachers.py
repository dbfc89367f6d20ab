"""Answers in which a model names who made it, and answers that refuse: counted by teacher, with samples.

Only what a model wrote is read: assistant turns and answer fields, never a user's. The patterns of `data/scrub.py` and
a few looser ones are tried; which of the answers found `scrub` itself would act on is counted beside. A name in an
answer says at most that the data are consistent with that teacher: anyone can write it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nacre.data.report import shorten
from nacre.data.rows import Row
from nacre.data.scrub import ANSWER_FIELDS, answers, find
from nacre.data.scrub_patterns import MODEL, NAMES, PATTERNS, SHARED_NAME, VENDOR

SAMPLES = 3
# Teacher -> how its maker and its models are called.
TEACHERS: Mapping[str, str] = {
    "OpenAI": r"open ?ai|gpt|instructgpt",
    "Anthropic": r"anthropic|claude",
    "Google": r"google|deepmind|gemini|bard|palm|lamda|谷歌",
    "Meta": r"meta|llama",
    "Microsoft": r"microsoft|copilot|微软",
    "Mistral": r"mistral",
    "xAI": r"xai|grok",
    "Cohere": r"cohere",
    "Alibaba": r"alibaba|tongyi|qwen|qwq|阿里|通义|千问",
    "Baidu": r"baidu|ernie|百度|文心",
    "Tencent": r"tencent|hunyuan|腾讯|混元",
    "ByteDance": r"bytedance|doubao|字节|豆包",
    "Huawei": r"huawei|华为|pangu|盘古",
    "DeepSeek": r"deepseek|深度求索",
    "Moonshot": r"moonshot|kimi|月之暗面",
    "Zhipu": r"zhipu|glm|z\.ai|智谱",
    "MiniMax": r"minimax",
    "StepFun": r"stepfun|阶跃",
    "Baichuan": r"baichuan|百川",
    "01.AI": r"01\.ai|\byi\b|零一万物",
    "iFlytek": r"iflytek|sparkdesk|讯飞",
    "SenseTime": r"sensetime|商汤",
    "Shanghai AI Lab": r"shanghai ai|internlm|书生|上海人工智能",
    "LMSYS": r"lmsys|vicuna",
    "Stability AI": r"stability",
}
_TEACHERS = {name: re.compile(pattern, re.I) for name, pattern in TEACHERS.items()}

# Other fields than scrub's in which a model's words lie; `from` and `value` are ShareGPT's names.
MORE_FIELDS = ("completion", "chosen", "rejected", "assistant", "bot", "reply")
_MODEL_ROLES = {"assistant", "gpt", "bot", "model", "chatgpt", "bing", "bard"}

_NAME = rf"(?:{MODEL}|{SHARED_NAME}|{VENDOR})"
_MADE = r"(?:made|built|trained|developed|created)"
_UNABLE = r"(?:can(?:no|['’])t|am (?:not able|unable)|won['’]t)"
_UNABLE_ZH = r"(?:无法|不能|不可以|没办法)"


def _any(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.I) for pattern in patterns)


# Looser than scrub's, for answers: the model speaks of "this model", of what it is based on, of who trained it.
_LOOSER = _any(
    rf"\bthis (?:model|assistant|AI) (?:is|was) [^.\n]{{0,40}}\b{_MADE} by {VENDOR}",
    rf"\b(?:my name['’]?s|I go by|call me|this is|(?:speaking|talking) (?:to|with)) {MODEL}",
    rf"\bI(?: am|['’]m) (?:based on|powered by|built on)[^.\n]{{0,30}}{_NAME}",
    rf"\bmy (?:underlying|base) model is[^.\n]{{0,30}}{_NAME}",
    rf"(?:训练|开发|研发|创造|打造)我的(?:公司|团队|机构|组织)?(?:是|叫)[“\"]?{VENDOR}",
    rf"(?:本助手|本模型|您正在使用的模型)(?:是|由|基于)[^。\n]{{0,20}}{_NAME}",
    rf"我(?:是)?基于[^。，\n]{{0,12}}{_NAME}",
)
_REFUSALS = _any(
    rf"\bI(?:['’]m| am) (?:really |very )?(?:sorry|afraid),? (?:but )?(?:I )?{_UNABLE}",
    rf"\bI {_UNABLE}(?: to)? (?:help|assist|comply|provide|fulfil|engage|create|support)",
    rf"\bas an AI(?: language)?(?: model| assistant)?,? I (?:{_UNABLE}|do not|don['’]t)",
    rf"(?:很|非常)?抱歉[，,]?(?:但)?(?:我|作为)[^。\n]{{0,20}}{_UNABLE_ZH}",
    rf"(?:对不起|不好意思)[，,]?(?:但)?我[^。\n]{{0,10}}{_UNABLE_ZH}",
    rf"作为(?:一个|一款|一名)?(?:人工智能|AI|大?语言模型)[^。\n]{{0,20}}(?:{_UNABLE_ZH}|没有)",
)


@dataclass
class Voices:
    """What was found in the answers of a data set. Counts are of rows; a row may name several teachers.

    `named`: rows in which a model names itself or its maker; `generic`: rows that only say that they are a model's;
    `scrubbed`: of the named ones, those that `data/scrub.py` would act on.
    """

    rows: int = 0
    rows_with_answers: int = 0
    named: int = 0
    generic: int = 0
    scrubbed: int = 0
    refusals: int = 0
    teachers: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def scrub_recall(self) -> float | None:
        """Share of the named rows that scrub would have acted on; None where none was found."""
        return self.scrubbed / self.named if self.named else None

    def add(self, row: Row) -> None:
        """Counts what the answers of a row say."""
        self.rows += 1
        texts = answers_of(row)
        if not texts:
            return
        self.rows_with_answers += 1
        _refusal(texts, self)
        hits = [hit for text in texts for hit in self_identifications(text)]
        by_scrub = [name for text in texts for name, _ in find(text)]
        if hits:
            self.named += 1
            self.scrubbed += bool(by_scrub)
            for teacher, sample in dict(hits).items():
                self.teachers[teacher] += 1
                _sample(self, teacher, sample)
        elif by_scrub:
            self.generic += 1

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "teachers": dict(self.teachers.most_common()), "scrub_recall": self.scrub_recall}


def listen(rows: Iterable[Row]) -> Voices:
    """Teachers and refusals in the answers of the rows, in one pass."""
    voices = Voices()
    for row in rows:
        voices.add(row)
    return voices


def self_identifications(text: str) -> list[tuple[str, str]]:
    """(teacher, the words) of every place where a text names its own maker or model; none for talk about others."""
    found = [match for name, match in find(text) if not PATTERNS[name].generic]
    found += [match for pattern in _LOOSER for match in pattern.finditer(text)]
    hits = []
    for match in found:
        words = text[match.start() : match.end()]
        around = text[max(0, match.start() - 10) : match.end() + 40]
        hits += [(teacher, around) for teacher in teachers_in(words)]
    return hits


def teachers_in(words: str) -> list[str]:
    """The teachers whose names occur in some words; `other` for a known name of none of them."""
    names = " ".join(match.group() for match in NAMES.finditer(words))
    return [name for name, pattern in _TEACHERS.items() if pattern.search(names)] or (["other"] if names else [])


def answers_of(row: Row) -> list[str]:
    """What a model wrote in a row: scrub's answer fields, and those of other layouts (ShareGPT, preference pairs)."""
    texts = answers(row)
    for name in MORE_FIELDS:
        texts += _written(row.get(name), plain=True)
    return texts + _written(row.get("conversations"), plain=False) + _written(row.get("conversation"), plain=False)


def _written(value: Any, *, plain: bool) -> list[str]:
    if isinstance(value, str):
        return [value] if plain else []
    if not isinstance(value, list):
        return []
    turns = [part for part in value if isinstance(part, dict)]
    return [
        str(turn.get("content", turn.get("value", "")))
        for turn in turns
        if str(turn.get("role", turn.get("from", ""))).lower() in _MODEL_ROLES
    ]


def _refusal(texts: list[str], voices: Voices) -> None:
    found = next((text for text in texts for pattern in _REFUSALS if pattern.search(text)), None)
    if found is not None:
        voices.refusals += 1
        _sample(voices, "refusals", found)


def _sample(voices: Voices, what: str, text: str) -> None:
    kept = voices.samples.setdefault(what, [])
    if len(kept) < SAMPLES:
        kept.append(shorten(text))


__all__ = ["ANSWER_FIELDS", "TEACHERS", "Voices", "answers_of", "listen", "self_identifications", "teachers_in"]
