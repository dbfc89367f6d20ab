"""Form and rhyme of Chinese regulated verse (quatrains and eight-line poems, five or seven characters a line).

Rhyme is judged by modern Mandarin: the fourteen classes of the Chinese New Rhymes over pinyin finals (package
`pypinyin`). Tang poets rhymed by Middle Chinese, so a true rhyme of theirs can fail here and the reverse: always
read the share beside that of poems by people, measured by the same function.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.lazy import require

_HAN = r"\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_BREAK = re.compile(r"[\s，。！？；、：,.!?;:]+")
_LINE = re.compile(f"[{_HAN}]+")

# (characters a line, lines) -> name of the form.
FORMS: dict[tuple[int, int], str] = {(5, 4): "五绝", (7, 4): "七绝", (5, 8): "五律", (7, 8): "七律"}

# Finals as pypinyin spells them in strict style (v for ü), by class of the Chinese New Rhymes.
_CLASSES = {
    "麻": "a ia ua",
    "波": "o e uo",
    "皆": "ie ve ê",
    "开": "ai uai",
    "微": "ei uei",
    "豪": "ao iao",
    "尤": "ou iou",
    "寒": "an ian uan van",
    "文": "en in uen vn",
    "唐": "ang iang uang",
    "庚": "eng ing ueng ong iong",
    "齐": "i v er",
    "姑": "u",
}
_CLASS_OF = {final: name for name, finals in _CLASSES.items() for final in finals.split()}
# The vowel of these syllables is spelt i and sounds otherwise: a class of its own.
_APICAL = frozenset({"zhi", "chi", "shi", "ri", "zi", "ci", "si"})


def lines_of(text: str) -> list[str]:
    """The verses: what stands between punctuation marks or line ends."""
    return [line for line in _BREAK.split(text) if line]


def form_of(text: str) -> str | None:
    """The regulated form (a value of FORMS), or None where lines differ in length, or count, or hold other signs."""
    lines = lines_of(text)
    if not lines or any(not _LINE.fullmatch(line) for line in lines):
        return None
    lengths = {len(line) for line in lines}
    return FORMS.get((lengths.pop(), len(lines))) if len(lengths) == 1 else None


def rhyme_classes(character: str) -> frozenset[str]:
    """Classes of every reading of the character; empty for one that has no reading. Needs `pypinyin`."""
    pypinyin = require("pypinyin")
    syllables = pypinyin.pinyin(character, style=pypinyin.Style.NORMAL, heteronym=True, errors="ignore")
    finals = pypinyin.pinyin(character, style=pypinyin.Style.FINALS, heteronym=True, errors="ignore", strict=True)
    if not syllables or not finals:
        return frozenset()
    apical = {"支"} if _APICAL & set(syllables[0]) else set()
    plain = {_CLASS_OF[final] for final in finals[0] if final in _CLASS_OF}
    # With apical readings only, the spelt i is not the 齐 class.
    if apical and set(syllables[0]) <= _APICAL:
        plain = set()
    return frozenset(plain | apical)


def rhymes(text: str) -> bool:
    """Whether the ends of the even lines share a rhyme class. The same character twice is repetition, no rhyme."""
    ends = [line[-1] for line in lines_of(text)[1::2]]
    if len(ends) < 2 or len(set(ends)) < len(ends):
        return False
    return bool(frozenset.intersection(*(rhyme_classes(end) for end in ends)))


@dataclass(frozen=True)
class PoemShares:
    """Over all texts: share of regulated form, share of rhyming texts among those, and how often each form occurs."""

    texts: int
    valid_form: float
    rhyming: float | None
    forms: dict[str, int]


def check_poems(texts: Sequence[str], rhyme: bool = True) -> PoemShares:
    """Form and rhyme shares; `rhyming` is None when nothing has a form or when `rhyme` is off."""
    named = [(text, form_of(text)) for text in texts]
    valid = [text for text, form in named if form]
    forms = Counter(form for _, form in named if form)
    return PoemShares(
        texts=len(texts),
        valid_form=len(valid) / len(texts) if texts else 0.0,
        rhyming=sum(map(rhymes, valid)) / len(valid) if rhyme and valid else None,
        forms={form: forms[form] for form in FORMS.values() if forms[form]},
    )
