"""What is personal data and what only looks like it, in Chinese and in English. All values are made up."""

from __future__ import annotations

import sys
from dataclasses import replace
from random import Random

import pytest

from nacre.data.masking import KINDS, Found, checks, find
from nacre.data.masking.find import RULES
from nacre.errors import ConfigError

ID = "11010519491231002X"
CREDIT = "91350100M000100Y43"
CARD = "6222020000000000001"
CARD = next(CARD[:-1] + digit for digit in "0123456789" if checks.is_luhn(CARD[:-1] + digit))
KEY = "sk-" + "a1B2c3D4e5F6g7H8i9J0"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc=\n-----END RSA PRIVATE KEY-----"


def seen(text: str, *kinds: str) -> list[tuple[str, str]]:
    return [(one.kind, one.value) for one in find(text, kinds or None)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (f"身份证{ID}已过期", "identity", ID),
        ("身份证110105 19491231 002x的", "identity", "110105 19491231 002x"),
        ("身份证１１０１０５１９４９１２３１００２Ｘ。", "identity", "１１０１０５１９４９１２３１００２Ｘ"),
        ("老号110105491231002还在用", "identity", "110105491231002"),
        (f"税号{CREDIT}。", "credit_code", CREDIT),
        (f"卡号{CARD}，工行", "card", CARD),
        ("刷了4111 1111 1111 1111两次", "card", "4111 1111 1111 1111"),
        ("amex 3782-822463-10005.", "card", "3782-822463-10005"),
        ("tel 138 00138000 or", "mobile", "138 00138000"),
        ("拨(+86)13800138000", "mobile", "(+86)13800138000"),
        ("Authorization: Bearer abc.def123456789012345", "api_key", "abc.def123456789012345"),
        ("打13800138000找我", "mobile", "13800138000"),
        ("打+86 138 0013 8000找我", "mobile", "+86 138 0013 8000"),
        ("电话（０１０）６２３４５６７８", "landline", "（０１０）６２３４５６７８"),
        ("总机0755-23456789转801", "landline", "0755-23456789转801"),
        ("ring +44 20 7946 0958 now", "phone", "+44 20 7946 0958"),
        ("or (212) 555-0123 x45", "phone", "(212) 555-0123 x45"),
        ("call me at 9472 7916? I wait", "phone", "9472 7916"),
        ("车牌京A·12345违停", "plate", "京A·12345"),
        ("粤BD12345是电车", "plate", "粤BD12345"),
        ("护照E12345678丢了", "passport", "E12345678"),
        ("E12345678是我的护照", "passport", "E12345678"),
        ("邮箱zhang.san@qq.com谢谢", "email", "zhang.san@qq.com"),
        ("mail bob+x@mail.example.org.", "email", "bob+x@mail.example.org"),
        ("来自203.0.113.7的请求", "ip", "203.0.113.7"),
        ("host 2001:db8::8a2e:370:7334 down", "ip", "2001:db8::8a2e:370:7334"),
        ("用postgres://app:s3cret@db.example.com/x连", "url_credentials", "postgres://app:s3cret@db.example.com/x"),
        (f"OPENAI_KEY={KEY}", "api_key", KEY),
        ("password: hunter2hunter2hunter2", "api_key", "hunter2hunter2hunter2"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", "api_key", "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK"),
        (f"转换{PEM}谢谢", "private_key", PEM),
        ("pay GB82 WEST 1234 5698 7654 32 today", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("pay gb82west12345698765432,", "iban", "gb82west12345698765432"),
        ("ssn 123-45-6789.", "ssn", "123-45-6789"),
    ],
)
def test_what_is_found_and_where_it_ends(text: str, kind: str, value: str) -> None:
    assert seen(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "110105194912310021的校验位不对", "11010519491331002X", "91350100M000100Y44", "4111111111111112",
        "订单号13800138000", "order no. 4111111111111111", "流水号：4111 1111 1111 1111", "A13800138000",
        "13800138000.5",
        "营收13800138000元", "￥13800138000", "138001380001", "2024-11-22 10:11:12", "1700000000000", "12,345,678.90",
        "版本1.2.3.4", "v1.2.3.4", "Chrome/120.1.2.3", "见4.2.1.3节", "127.0.0.1", "10:11:12", "std::cout", "256.1.1.1",
        "产品E12345678", "logo@2x.png", "react@18.2.0", "git@example.com:a/b.git", "@小王", "400-820-8820",
        "拨打400-820-8820", "京A级", "GB82WEST12345698765431", "000-45-6789", "call on 2024-01-15", "sk-learn",
        "mysql://db.example.com/x", "the token is here", "1111111111111111", "3.14159265358979",
        "00:1B:44:11:3A:B7", "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
    ],
)  # fmt: skip
def test_what_only_looks_like_it(text: str) -> None:
    assert seen(text) == []


def test_a_number_directly_beside_han_characters_is_found_where_a_word_boundary_is_none() -> None:
    assert seen("我13800138000他") == [("mobile", "13800138000")]
    assert seen("x13800138000y") == []


def test_eighteen_characters_are_tried_as_identity_then_credit_code_then_card() -> None:
    number = next(
        body + checks_digit
        for serial in range(1000)
        for body in [f"11010519900307{serial:03d}"]
        for checks_digit in "0123456789"
        if checks.is_identity_18(body + checks_digit) and checks.is_luhn(body + checks_digit)
    )
    assert seen(f"银行卡{number}") == [("identity", number)]
    assert seen(f"银行卡{number}", "card") == [("card", number)]


def test_the_longest_of_overlapping_findings_wins_and_nothing_sticks_out() -> None:
    assert seen("13800138000@qq.com") == [("email", "13800138000@qq.com")]
    assert [one.kind for one in find("https://u:13800138000@example.com/")] == ["url_credentials"]


def test_invisible_characters_do_not_hide_a_number() -> None:
    assert seen("号138\u200b0013\u200d8000码") == [("mobile", "138\u200b0013\u200d8000")]


def test_pasted_json_keeps_its_escapes_out_of_numbers() -> None:
    assert seen(r'{"a":"\n13800138000","b":"\u7535zhang@qq.com"}') == [
        ("mobile", "13800138000"), ("email", "zhang@qq.com"),
    ]  # fmt: skip


def test_only_the_kinds_asked_for_are_found_and_an_unknown_one_is_an_error() -> None:
    assert seen(f"{ID} a@b.cn", "email") == [("email", "a@b.cn")]
    with pytest.raises(ConfigError, match="'e-mail'") as error:
        find("", ["e-mail"])
    assert "email" in error.value.remedy


def test_a_half_private_key_is_a_secret_too() -> None:
    text = "-----BEGIN PRIVATE KEY-----\nMIIEabc\ndef"
    assert seen(text) == [("private_key", text)]
    assert [one.kind for one in find(f"{PEM} and {PEM}")] == ["private_key"] * 2


def test_a_model_finds_names_and_its_wrong_spans_are_left_out() -> None:
    def tagger(text: str) -> list[Found]:
        return [Found("name", 0, 2), Found("name", 5, 5), Found("address", 3, 999)]

    assert [(one.kind, one.value) for one in find("张三在北京", model=tagger)] == [("name", "张三")]
    assert find("张三在北京") == []


def test_a_finding_does_not_show_its_value() -> None:
    (found,) = find(f"身份证{ID}")
    assert found.value == ID
    assert ID not in repr(found)


def test_every_kind_has_a_label_and_words() -> None:
    assert all(kind.label.replace("_", "").isupper() and kind.words for kind in KINDS.values())


@pytest.mark.parametrize(("code", "is_right"), [("GB82WEST12345698765432", True), ("GB82WEST1234569876543", False)])
def test_iban_lengths_are_the_country_s(code: str, is_right: bool) -> None:
    assert checks.is_iban(code) is is_right


def test_dates_of_birth_are_those_of_the_calendar() -> None:
    assert not checks.is_date(2023, 2, 29)
    assert checks.is_date(2024, 2, 29)


def test_looking_around_digits_only_finds_what_looking_everywhere_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law: the regions around digits and what is asked of them leave nothing out."""
    pieces = (
        "4222222222222", "SSN 078051120",
        "13912345678", "+86 139 1234 5678", "(010) 6552-9988", "020-85661234 转 102", "11010519491231002X",
        "110105 19491231 0029", "4111 1111 1111 1111", "6222021234567890123", "91350100M000100Y43", "京A12345",
        "粤B12345学", "护照 E12345678", "passport number is E12345678", "GB82 WEST 1234 5698 7654 32",
        "MT84MALT011000012345MTLCAST001S",
        "078-05-1120", "203.0.113.7", "2001:db8::8a2e:370:7334", "call me at 555 0199 22", "order no. 13912345678",
        "订单号是13912345678", "Chrome/120.0.0.0", "a@b.example.org", "sk-abcdefghijklmnop12345", "version 1.2.3.4",
        "(((((", "12", "3", "v4.5", " 元", "¥", "card ", "护照", "abc", "x" * 15, "词语" * 9, " ", ". ", ", ", "\n",
    )  # fmt: skip
    random = Random(7)
    for _ in range(1500):
        text = "".join(
            random.choice(pieces) + random.choice(("", " ", "，", " " * random.randrange(150), "字母a" * 40))
            for _ in range(random.randrange(1, 9))
        )
        found = find(text)
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["nacre.data.masking.find"], "_MARGIN", 10**9)
            every = tuple(replace(rule, digits=min(rule.digits, 1), alone=0, han=False) for rule in RULES)
            patch.setattr(sys.modules["nacre.data.masking.find"], "RULES", every)
            assert found == find(text), text
