"""What full text is indexed by: folded words, and pairs of characters where a script writes no blanks.

Chinese, Japanese and Korean runs become overlapping bigrams, which need no dictionary and miss no word; the last
character of a run is a term of its own, so that a query of one character finds it by prefix wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import combining, normalize

_CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"(?P<cjk>[{_CJK}]+)|(?P<word>[^\W_{_CJK}]+)")
# Latin, Greek and Cyrillic letters lose their accents; marks of other scripts are letters.
_ACCENTED = re.compile("[\u0300-\u036f\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff\u1e00-\u1fff]")


def folded(text: str) -> str:
    """Full-width and compatibility forms resolved, case folded, accents off."""
    text = normalize("NFKC", text).casefold()
    if text.isascii():
        return text
    return _ACCENTED.sub(lambda found: _bare(found[0]), text)


def _bare(character: str) -> str:
    return "".join(one for one in normalize("NFD", character) if not combining(one))


def terms(text: str) -> Iterator[str]:
    """The terms of a document, in order, repeated as they occur."""
    for run in _RUN.finditer(folded(text)):
        if run["word"]:
            yield _stem(run["word"])
        else:
            yield from _bigrams(run["cjk"])
            yield run["cjk"][-1]


def query_terms(text: str) -> tuple[list[str], list[str]]:
    """(whole terms, prefixes) of a query, each once. A character that stands alone is looked for as a prefix."""
    whole: dict[str, None] = {}
    prefixes: dict[str, None] = {}
    for run in _RUN.finditer(folded(text)):
        if run["word"]:
            whole[_stem(run["word"])] = None
        elif len(run["cjk"]) == 1:
            prefixes[run["cjk"]] = None
        else:
            whole.update(dict.fromkeys(_bigrams(run["cjk"])))
    return list(whole), list(prefixes)


def _bigrams(run: str) -> Iterator[str]:
    return (run[at : at + 2] for at in range(len(run) - 1))


def _stem(word: str) -> str:
    """English plurals to singulars (Harman 1991, the S stemmer)."""
    if len(word) < 4 or not word.isascii() or not word.endswith("s"):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]
