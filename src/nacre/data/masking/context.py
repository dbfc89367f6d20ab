"""Words beside a number that say what it is, or that it is something else. All look a bounded way back or ahead."""

from __future__ import annotations

import re

REACH = 32  # characters that are looked at on one side

_GAP = r"[\s:#=\-('\"“「【\[,]{0,3}(?:(?:是|为|is|was|are|no\.?|number|num|at|on|to)[\s:]{0,2}){0,2}"
# Directly before a number: it counts or names a thing, not a person.
_THING = re.compile(
    r"(?:订单|单号|流水|运单|快递|批次|批号|(?<![卡证机话])编号|型号|货号|版本|票号|发票|序列号|交易号|合同|凭证|工单|条形?码"
    r"|商品|产品|案号|文号|样本|编码|设备号|\border|\binvoice|\btracking|\bserial|\bsku|\bversion|\bbuild|\bmodel|\bpart|\bticket"
    r"|\bref(?:erence)?|\bbatch|\btransaction|\bcase|\bisbn|\bimei|\bitem|\bparcel|\bfirmware)"
    r"(?:号码|编号|编码|号|码|\sid|id)?" + _GAP + r"\Z",
    re.IGNORECASE,
)
_CURRENCY = re.compile(r"(?:[¥￥$€£]|(?:金额|价格|总价|共计|合计|销量|浏览量|阅读量|播放量)" + _GAP + r")\s?\Z")
_AMOUNT = re.compile(
    r"\s?(?:[元万亿块个件次条份名吨米步年%％‰]|美元|欧元|人民币|公斤|千克|字节|毫秒|rmb\b|cny\b|usd\b|eur\b|kg\b|bytes\b|ms\b)",
    re.IGNORECASE,
)
_SECTION = re.compile(r"\s?[节章条款]")

PHONE = re.compile(
    r"(?:手机|电话|座机|固话|热线|传真|联系方式|致电|拨打|回电|\bphone|\btel|\btelephone|\bmobile|\bcell|\bfax|\bdesk|\boffice"
    r"|\bcall(?:\s(?:me|us|him|her|them|back))?|\bwhatsapp|\bring(?:\sme)?|\breach(?:\sme)?|\banswering|\bmessages?"
    r"|\bregistered|\btext(?:\sme)?)(?:号码|号)?" + _GAP + r"\Z",
    re.IGNORECASE,
)  # fmt: skip
CARD = re.compile(r"卡|账号|帐号|账户|\bcard|\bcredit|\bdebit|\bvisa|\bmastercard|\bamex", re.IGNORECASE)
PASSPORT = re.compile(r"护照|通行证|\bpassport", re.IGNORECASE)
SOCIAL_SECURITY = re.compile(r"\bssn\b|social security", re.IGNORECASE)


def names_a_thing(text: str, start: int) -> bool:
    """Whether the words directly before `start` announce an order, a version, a part: no person's number."""
    return _THING.search(text, max(0, start - REACH), start) is not None


def counts(text: str, start: int, end: int) -> bool:
    """Whether the number is an amount: a currency before it, a unit after it."""
    return (
        _AMOUNT.match(text, end) is not None or _CURRENCY.search(text, max(0, start - REACH), start) is not None
    )  # fmt: skip


def is_section(text: str, start: int, end: int) -> bool:
    """Whether the dotted number is a chapter's or a clause's."""
    return _SECTION.match(text, end) is not None or text[max(0, start - 2) : start].strip().endswith(("第", "§"))


def before(word: re.Pattern[str], text: str, start: int) -> bool:
    """Whether the word stands within reach before `start`."""
    return word.search(text, max(0, start - REACH), start) is not None


def beside(word: re.Pattern[str], text: str, start: int, end: int) -> bool:
    """Whether the word stands within reach on either side."""
    return before(word, text, start) or word.search(text, end, end + REACH // 2) is not None
