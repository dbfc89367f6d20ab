"""What a stated licence asks attention for. A reading aid over free text, not legal advice."""

from __future__ import annotations

import re

_NONCOMMERCIAL = re.compile(r"\bNC\b|non-?commercial|research use|research only|academic use", re.IGNORECASE)
_UNCLEAR = re.compile(r"none stated|not stated|unclear|unknown|unspecified|noassertion|^other$|^custom$", re.IGNORECASE)


def concern(licence: str | None) -> str | None:
    """`noncommercial`, `unclear`, or None where the licence raises neither; nothing stated is unclear."""
    if licence is None or not licence.strip() or _UNCLEAR.search(licence):
        return "unclear"
    return "noncommercial" if _NONCOMMERCIAL.search(licence) else None
