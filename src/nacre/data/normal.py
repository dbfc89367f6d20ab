"""The normal form under which two texts count as the same: compatibility forms, case and spacing do not matter."""

from __future__ import annotations

import re
import unicodedata

_HAN_SPACE = re.compile(
    r"(?<=[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]) | (?=[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)


def normal(text: str) -> str:
    """NFKC, case folded, runs of white space as one space, no space beside a Chinese character.

    Idempotent (tested). Punctuation stays, in its compatibility form: `好，` is `好,` but `好!` is not `好?`.
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _HAN_SPACE.sub("", " ".join(folded.split()))
