"""Made-up values, right and almost right. Nobody's: drawn from a seeded generator, check digits computed here."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping

REGIONS = ("110101", "310115", "440305", "330106", "510107", "320583", "420106", "610113", "370202", "350203", "230102")
CREDIT = "0123456789ABCDEFGHJKLMNPQRTUWXY"
PLATE = "ABCDEFGHJKLMNPQRSTUVWXYZ"
Draw = Callable[[random.Random], str]


def digits(draw: random.Random, n: int) -> str:
    return "".join(draw.choice("0123456789") for _ in range(n))


def letters(
    draw: random.Random, n: int, of: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
) -> str:
    """At least one of them a digit, as random keys have it."""
    text = "".join(draw.choice(of) for _ in range(n - 1))
    place = draw.randrange(n)
    return text[:place] + draw.choice("23456789") + text[place:]


def _born(draw: random.Random) -> str:
    return f"{draw.randint(1950, 2012)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}"


def _identity_check(body: str) -> str:
    return "10X98765432"[sum(int(one) * (1 << (17 - place)) for place, one in enumerate(body)) % 11]


def identity(draw: random.Random) -> str:
    body = draw.choice(REGIONS) + _born(draw) + digits(draw, 3)
    return body + _identity_check(body)


def identity_spaced(draw: random.Random) -> str:
    number = identity(draw)
    return f"{number[:6]} {number[6:14]} {number[14:]}"


def identity_wide(draw: random.Random) -> str:
    return "".join(chr(ord(one) + 0xFEE0) for one in identity(draw))


def identity_15(draw: random.Random) -> str:
    return draw.choice(REGIONS) + _born(draw)[2:] + digits(draw, 3)


def identity_wrong(draw: random.Random) -> str:
    """18 characters of the form, another last one than the right one, and no credit code or card by accident."""
    while True:
        body = draw.choice(REGIONS) + _born(draw) + digits(draw, 3)
        number = body + draw.choice([one for one in "0123456789" if one != _identity_check(body)])
        if _credit_check(number[:17]) != number[17] and _luhn_check(number[:17]) != number[17]:
            return number


def _credit_check(body: str) -> str:
    total = sum(CREDIT.index(one) * pow(3, place, 31) for place, one in enumerate(body))
    return CREDIT[-total % 31]


def credit_code(draw: random.Random) -> str:
    body = draw.choice(("91", "92", "52", "12", "11")) + draw.choice(REGIONS) + "".join(draw.choices(CREDIT, k=9))
    return body + _credit_check(body)


def credit_code_wrong(draw: random.Random) -> str:
    code = credit_code(draw)[:17]
    return code + draw.choice([one for one in "ABCDEFGH" if one != _credit_check(code)])


def _luhn_check(body: str) -> str:
    total = sum(sum(divmod(int(one) * (2 - place % 2), 10)) for place, one in enumerate(reversed(body)))
    return str(-total % 10)


def card(draw: random.Random) -> str:
    prefix, length = draw.choice((("6222", 19), ("6217", 19), ("6228", 19), ("4392", 16), ("5187", 16), ("62533", 16)))
    body = prefix + digits(draw, length - len(prefix) - 1)
    return body + _luhn_check(body)


def card_spaced(draw: random.Random) -> str:
    number = card(draw)
    return " ".join(number[place : place + 4] for place in range(0, len(number), 4))


def card_wrong(draw: random.Random) -> str:
    number = card(draw)
    return number[:-1] + str((int(number[-1]) + draw.randint(1, 9)) % 10)


def mobile(draw: random.Random) -> str:
    return draw.choice(("133", "138", "150", "159", "166", "177", "186", "191", "199")) + digits(draw, 8)


def mobile_spaced(draw: random.Random) -> str:
    number, mark = mobile(draw), draw.choice(" -")
    return f"{number[:3]}{mark}{number[3:7]}{mark}{number[7:]}"


def mobile_abroad(draw: random.Random) -> str:
    return draw.choice(("+86 ", "+86-", "+86", "0086 ", "86-")) + mobile(draw)


def mobile_wide(draw: random.Random) -> str:
    return "".join(chr(ord(one) + 0xFEE0) for one in mobile(draw))


def landline(draw: random.Random) -> str:
    area, n = draw.choice((("010", 8), ("021", 8), ("0755", 8), ("0571", 8), ("0471", 7), ("028", 8)))
    number = draw.choice("2345678") + digits(draw, n - 1)
    return draw.choice((f"{area}-{number}", f"({area}){number}", f"{area} {number}", f"（{area}）{number}"))


def landline_extension(draw: random.Random) -> str:
    return landline(draw) + draw.choice(("转", "-")) + digits(draw, 3)


def phone(draw: random.Random) -> str:
    return draw.choice(
        (
            f"+1 {draw.randint(201, 989)}-{draw.randint(201, 989)}-{digits(draw, 4)}",
            f"+44 20 {digits(draw, 4)} {digits(draw, 4)}",
            f"+852 {draw.randint(5, 9)}{digits(draw, 3)} {digits(draw, 4)}",
            f"+81-90-{digits(draw, 4)}-{digits(draw, 4)}",
        )
    )


def plate(draw: random.Random) -> str:
    head = draw.choice("京沪粤苏浙川鲁豫鄂湘") + draw.choice("ABCDEFGH")
    tail = draw.choice(
        (digits(draw, 5), draw.choice(PLATE.replace("I", "")) + digits(draw, 4), f"{digits(draw, 3)}K{digits(draw, 1)}")
    )
    return head + draw.choice(("", "", "·")) + tail


def plate_new_energy(draw: random.Random) -> str:
    head = draw.choice("京沪粤苏浙川") + draw.choice("ABCDEF")
    return head + draw.choice((f"D{digits(draw, 5)}", f"F{digits(draw, 5)}", f"{digits(draw, 5)}D"))


def passport(draw: random.Random) -> str:
    return draw.choice((f"E{digits(draw, 8)}", f"G{digits(draw, 8)}", f"E{draw.choice('ABCDEFGH')}{digits(draw, 7)}"))


def email(draw: random.Random) -> str:
    name = draw.choice(("zhangwei", "li.na", "wang_fang", "chen-jie", "liu2008", "13900001111", "hr+cv"))
    return f"{name}{draw.randint(1, 99)}@{draw.choice(('qq.com', '163.com', 'example.com.cn', 'mail.example.org'))}"


def ip(draw: random.Random) -> str:
    return f"{draw.randint(1, 223)}.{draw.randint(0, 255)}.{draw.randint(0, 255)}.{draw.randint(1, 254)}".replace(
        "127.", "128.", 1
    )


def ip6(draw: random.Random) -> str:
    return "2408:8" + ":".join(f"{draw.randrange(4096, 65536):x}" for _ in range(7))[1:]


def url_credentials(draw: random.Random) -> str:
    scheme = draw.choice(("mysql", "redis", "https", "postgresql"))
    return f"{scheme}://app:{letters(draw, 10)}@db{draw.randint(1, 9)}.example.com:3306/shop"


def api_key(draw: random.Random) -> str:
    middle = base64.urlsafe_b64encode(bytes(draw.randrange(256) for _ in range(24))).decode().rstrip("=")
    return draw.choice(
        (
            f"sk-{letters(draw, 40)}", f"ghp_{letters(draw, 36)}",
            f"AKIA{letters(draw, 16, 'ABCDEFGHJKLMNPQRSTUVWXYZ234567')}",
            f"xoxb-{digits(draw, 11)}-{letters(draw, 24)}", f"LTAI{letters(draw, 20)}",
            f"eyJhbGciOiJIUzI1NiJ9.eyJ{middle}.{letters(draw, 40)}",
        )
    )  # fmt: skip


def private_key(draw: random.Random) -> str:
    lines = "\n".join(letters(draw, 64) for _ in range(3))
    return f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----"


RIGHT: Mapping[str, tuple[str, Draw]] = {
    "identity": ("identity", identity), "identity_spaced": ("identity", identity_spaced),
    "identity_wide": ("identity", identity_wide), "identity_15": ("identity", identity_15),
    "credit_code": ("credit_code", credit_code), "card": ("card", card), "card_spaced": ("card", card_spaced),
    "mobile": ("mobile", mobile), "mobile_spaced": ("mobile", mobile_spaced),
    "mobile_abroad": ("mobile", mobile_abroad),
    "mobile_wide": ("mobile", mobile_wide), "landline": ("landline", landline),
    "landline_extension": ("landline", landline_extension), "phone": ("phone", phone), "plate": ("plate", plate),
    "plate_new_energy": ("plate", plate_new_energy), "passport": ("passport", passport), "email": ("email", email),
    "ip": ("ip", ip), "ip6": ("ip", ip6), "url_credentials": ("url_credentials", url_credentials),
    "api_key": ("api_key", api_key), "private_key": ("private_key", private_key),
}  # fmt: skip

# What looks like it and is not.
WRONG: Mapping[str, Draw] = {
    "identity_wrong": identity_wrong,
    "credit_wrong": credit_code_wrong,
    "card_wrong": card_wrong,
    "order_like_mobile": mobile,
    "order_like_card": card,
    "n4": lambda draw: digits(draw, 4), "n5": lambda draw: digits(draw, 5), "n6": lambda draw: digits(draw, 6),
    "n8": lambda draw: draw.choice("123456789") + digits(draw, 7),
    "n9": lambda draw: draw.choice("123456789") + digits(draw, 8),
    "n10": lambda draw: draw.choice("123456789") + digits(draw, 9), "n12": lambda draw: "7" + digits(draw, 11),
    "n14": lambda draw: f"2024{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}{digits(draw, 6)}",
    "n20": lambda draw: digits(draw, 20), "n28": lambda draw: "2024" + digits(draw, 24),
    "milliseconds": lambda draw: "17" + digits(draw, 11),
    "date": lambda draw: f"{draw.randint(1990, 2030)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}",
    "time": lambda draw: f"{draw.randint(0, 23):02d}:{draw.randint(0, 59):02d}:{draw.randint(0, 59):02d}",
    "version": lambda draw: ".".join(str(draw.randint(0, 30)) for _ in range(4)),
    "amount": lambda draw: f"{draw.randint(1, 999_999_999):,}.{draw.randint(0, 99):02d}",
    "code": lambda draw: f"{draw.choice('EGDS')}{digits(draw, 8)}",
    "decimal": lambda draw: f"3.1{draw.choice('358')}{digits(draw, 9)}",
    "hex": lambda draw: "".join(draw.choices("0123456789abcdef", k=40)),
    "mac": lambda draw: ":".join(f"{draw.randrange(256):02X}" for _ in range(6)),
}  # fmt: skip
