"""Check digits and dates: pure functions over ASCII strings without separators."""

from __future__ import annotations

from calendar import monthrange
from ipaddress import IPv4Address, IPv6Address

# Provinces by the first two digits of GB/T 2260; 91 begins foreigners' permanent residence cards.
PROVINCES = frozenset(
    map(
        str,
        [
            *range(11, 16),
            *range(21, 24),
            *range(31, 38),
            *range(41, 47),
            *range(50, 55),
            *range(61, 66),
            71,
            81,
            82,
            83,
            91,
        ],
    )
)
_IDENTITY_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CREDIT_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS = tuple(pow(3, place, 31) for place in range(17))
# GB 32100-2015, table 1: registering department, then the categories that it has.
_CREDIT_CATEGORIES = {
    "1": "12359", "2": "19", "3": "123459", "4": "19", "5": "1239", "6": "129", "7": "129", "8": "19", "9": "123",
    "A": "19", "N": "1239", "Y": "1",
}  # fmt: skip
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
# Length by country, SWIFT's IBAN registry.
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24,
    "XK": 20,
}  # fmt: skip


def is_date(year: int, month: int, day: int) -> bool:
    """Whether the calendar has this day, and somebody alive may be born on it."""
    return 1880 <= year <= 2099 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]


def is_identity_18(number: str) -> bool:
    """GB 11643-1999: a province, a date of birth, ISO 7064 MOD 11-2."""
    if number[:2] not in PROVINCES or not is_date(int(number[6:10]), int(number[10:12]), int(number[12:14])):
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_IDENTITY_WEIGHTS, number, strict=False))
    return "10X98765432"[total % 11] == number[17].upper()


def is_identity_15(number: str) -> bool:
    """The form issued until 1999: a province and a date of birth in 19yy; it has no check digit."""
    return number[:2] in PROVINCES and is_date(1900 + int(number[6:8]), int(number[8:10]), int(number[10:12]))


def is_credit_code(code: str) -> bool:
    """GB 32100-2015: department and category, a region, the check character (MOD 31)."""
    code = code.upper()
    if code[1] not in _CREDIT_CATEGORIES.get(code[0], "") or not (code[2:4] in PROVINCES or code[2:4] == "10"):
        return False
    values = [_CREDIT_ALPHABET.find(character) for character in code]
    if min(values) < 0:
        return False
    total = sum(weight * value for weight, value in zip(_CREDIT_WEIGHTS, values, strict=False))
    return (31 - total % 31) % 31 == values[17]


def is_luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B. A number of one repeated digit is no card."""
    digits = [int(digit) for digit in number]
    return (sum(digits[-1::-2]) + sum(_DOUBLED[digit] for digit in digits[-2::-2])) % 10 == 0 and len(set(digits)) > 1


def is_card_prefix(number: str) -> bool:
    """Whether a network issues numbers that begin so and have this length (12 to 19 digits)."""
    length, two, four = len(number), int(number[:2]), int(number[:4])
    if number[0] == "4":
        return length in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return length == 16
    if two in (34, 37):
        return length == 15
    if two in (36, 38, 39) or 300 <= int(number[:3]) <= 305 or four == 3095:
        return length in (14, 16)
    if two in (62, 60, 65) or 644 <= int(number[:3]) <= 649 or 3528 <= four <= 3589 or four in (8171, 8172):
        return length >= 16
    if four in (9558, 9559, 4367, 9400, 9111, 9988):  # issued by Chinese banks before they took to 62
        return length in (16, 17, 18, 19)
    return four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763)


def is_iban(code: str) -> bool:
    """ISO 13616: the country's length, and MOD 97 = 1."""
    code = code.upper()
    if IBAN_LENGTHS.get(code[:2]) != len(code):
        return False
    turned = code[4:] + code[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def is_social_security(number: str) -> bool:
    """Nine digits that the US Social Security Administration may have issued."""
    return number[:3] not in ("000", "666") and number[0] != "9" and number[3:5] != "00" and number[5:] != "0000"


def is_host_address(address: str) -> bool:
    """An IPv4 or IPv6 address that may be somebody's: neither loopback, unspecified, multicast nor broadcast."""
    try:
        parsed: IPv4Address | IPv6Address = IPv6Address(address) if ":" in address else IPv4Address(address)
    except ValueError:
        return False
    return not (
        parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast or address in ("255.255.255.255", "0.0.0.0")
    ) and not address.startswith(("0.", "255."))
