"""Whether two questions may have the same answer: what decides it must be equal, in English as in Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_TOKENS = re.compile(r"[a-z]+(?:['’][a-z]+)?|\d+(?:[.,:/-]\d+)*|[\u3400-\u9fff]|[^\w\s]")
_NUMBER_WORDS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half quarter
third double twice triple once first second dozen last next
"""
_DECIDING_WORDS = """
not no never none nothing nobody neither nor without cannot except unless but only hardly any all every always before
after more less most least above below over under max min maximum minimum increase decrease up down on off open close
enable disable start stop buy sell send receive import export add remove allow deny include exclude from to in out left
right yes or and if since until today tomorrow yesterday true false can must should may old new his her my your their
our he she
"""
_DECIDING = frozenset([*_NUMBER_WORDS.split(), *_DECIDING_WORDS.split()])
_HAN_NUMBERS = "零〇一二两三四五六七八九十百千万亿半壹贰叁肆伍陆柒捌玖拾佰仟倍首末"
_HAN_DECIDING_WORDS = (
    "不没无未非别勿莫否禁前后上下大小多少高低增减加开关进出入买卖收发升降内外左右早晚新旧男女你我他她它全只仅都且或如若"
    "昨今明东南西北真假必须应"
)
_HAN_DECIDING = frozenset(_HAN_NUMBERS + _HAN_DECIDING_WORDS)
_SIGNS = frozenset("%<>=+-*/$€£¥")
_NEGATED = re.compile(r"(?:un|dis|non|in|im|ir)[a-z]{4,}")
# No \b: there is none between a digit and a Han character.
_CODE = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z]{2,}[A-Z0-9]*|[A-Za-z]*\d[A-Za-z0-9.-]*|[A-Z][a-z]+)(?![A-Za-z0-9])")


def may_be_same(first: str, second: str) -> bool:
    """Whether nothing that decides an answer differs: numbers, negations, opposites, names and codes, and the order of
    the same words. Errs towards no."""
    one, other = _folded(first), _folded(second)
    if _deciding(one.lower()) != _deciding(other.lower()) or _codes(one) != _codes(other):
        return False
    words, others = _words(one), _words(other)
    return Counter(words) != Counter(others) or words == others


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("’", "'")


def _deciding(text: str) -> list[str]:
    """What decides, in its order: `30 days` is not `31 days`, nor is A before B the same as B before A."""
    return [
        token
        for token in _TOKENS.findall(text)
        if token[0].isdigit()
        or token in _DECIDING
        or token in _HAN_DECIDING
        or token in _SIGNS
        or token.endswith("n't")
        or _NEGATED.match(token)
    ]


def _codes(text: str) -> Counter[str]:
    """Names in capitals, codes, and words that begin with one inside a sentence."""
    found: Counter[str] = Counter()
    for match in _CODE.finditer(text):
        word = match[0]
        starts_sentence = not text[: match.start()].rstrip() or text[: match.start()].rstrip()[-1] in '.!?:。！？："“'
        if starts_sentence and word[1:].islower() and word.isalpha():
            continue  # any sentence begins with a capital
        found[word.lower()] += 1
    return found


def _words(text: str) -> list[str]:
    return [token for token in _TOKENS.findall(text.lower()) if token[0].isalnum()]
