"""Words beside a number that say what it is, or that it is something else. All look a bounded way back or ahead.

Plain `endswith` over the text before a number: a pattern that is searched there costs ten times as much.
"""

from __future__ import annotations

import re

REACH = 32  # characters that are looked at on one side

_SIGNS = " \t\r\n:#=-('\"“「【[,"
_BEING = ("是", "为", " is", " was", " are", " will be")
_NUMBER = ("号码", "编号", "编码", "号", "码", " no.", " no", " number", " num", " id")
_TOWARDS = (" at", " on", " to", " me", " us", " him", " her", " them", " back")

# Before a number these say that it names a thing, not a person; the second group only with a word for number between.
_THINGS = (
    "订单", "运单", "流水", "批次", "版本", "批号", "order", "invoice", "tracking", "serial", "sku", "version",
    "build", "firmware", "isbn", "imei", "release", "ref", "transaction",
)  # fmt: skip
_NUMBERED = (
    *_THINGS, "单", "快递", "批", "型", "货", "票", "发票", "序列", "交易", "合同", "凭证", "条", "条形", "商品",
    "产品", "案", "文", "样本", "设备", "楼盘", "房源", "课程", "项目", "model", "part", "ticket", "reference",
    "batch", "case", "item", "parcel",
)  # fmt: skip
_NUMBER_ALONE = ("编号", "编码")  # unless a word before says card, paper or phone
_PERSONAL = ("卡", "证", "机", "话", "身份")
_PHONES = (
    "手机", "电话", "座机", "固话", "热线", "传真", "联系方式", "致电", "拨打", "回电", "call", "phone", "tel",
    "telephone", "mobile", "cell", "fax", "desk", "office", "whatsapp", "ring", "reach", "answering", "message",
    "messages", "registered", "text", "contact",
)  # fmt: skip
_CURRENCIES = ("¥", "￥", "$", "€", "£")
_SUMS = ("金额", "价格", "总价", "共计", "合计", "销量", "浏览量", "阅读量", "播放量", "访问量")
_AMOUNT = re.compile(
    r"\s?(?:[元万亿块个件次份名吨米步年%％‰]|美元|欧元|人民币|公斤|千克|字节|毫秒|(?:rmb|cny|usd|eur|kg|bytes|ms)\b)",
    re.IGNORECASE,
)
_SECTION = re.compile(r"\s?[节章条款]")

CARD = re.compile(r"卡|账号|帐号|账户|\bcard|\bcredit|\bdebit|\bvisa|\bmastercard|\bamex|\bcc\b", re.IGNORECASE)
PASSPORT = re.compile(r"护照|通行证|\bpassport", re.IGNORECASE)
SOCIAL_SECURITY = re.compile(r"\bssn\b|social security", re.IGNORECASE)


def names_a_thing(text: str, start: int) -> bool:
    """Whether the words directly before `start` announce an order, a version, a part: no person's number."""
    said = _without(_left(text, start), _BEING)
    named = _without(said, _NUMBER)
    if said.endswith(_NUMBER_ALONE) and not named.endswith(_PERSONAL):
        return True
    return _ends_with_word(said, _THINGS) or (named != said and _ends_with_word(named, _NUMBERED))


def names_a_phone(text: str, start: int) -> bool:
    """Whether the words directly before `start` announce a telephone number."""
    return _ends_with_word(_without(_left(text, start), _BEING + _NUMBER + _TOWARDS), _PHONES)


def counts(text: str, start: int, end: int) -> bool:
    """Whether the number is an amount: a currency before it, a unit after it."""
    if _AMOUNT.match(text, end):
        return True
    left = text[max(0, start - REACH) : start].rstrip()
    return left.endswith(_CURRENCIES) or _without(_left(text, start), _BEING).endswith(_SUMS)


def is_section(text: str, start: int, end: int) -> bool:
    """Whether the dotted number is a chapter's or a clause's."""
    return _SECTION.match(text, end) is not None or text[max(0, start - 2) : start].rstrip().endswith(("第", "§"))


def before(word: re.Pattern[str], text: str, start: int) -> bool:
    """Whether the word stands within reach before `start`."""
    return word.search(text, max(0, start - REACH), start) is not None


def beside(word: re.Pattern[str], text: str, start: int, end: int) -> bool:
    """Whether the word stands within reach on either side."""
    return before(word, text, start) or word.search(text, end, end + REACH // 2) is not None


def _left(text: str, start: int) -> str:
    return text[max(0, start - REACH) : start].rstrip(_SIGNS).lower()


def _without(left: str, fillers: tuple[str, ...]) -> str:
    """Without the small words at its end: `订单号是` is `订单`, `call me at` is `call`."""
    for _ in range(4):
        if not left.endswith(fillers):
            break
        longest = max((one for one in fillers if left.endswith(one)), key=len)
        left = left[: -len(longest)].rstrip(_SIGNS)
    return left


def _ends_with_word(left: str, words: tuple[str, ...]) -> bool:
    """Whether one of the words ends the text; an English one as a whole word (`recall` is no `call`)."""
    for word in words if left.endswith(words) else ():
        if left.endswith(word):
            letter = left[-len(word) - 1 : -len(word)]
            if not (word.isascii() and letter.isascii() and letter.isalpha()):
                return True
    return False
