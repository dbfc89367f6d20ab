"""Every word of the page in English and Chinese, one table per area, so that neither language can lag behind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "中文"}
TABLES = ("shell", "overview", "artifacts", "findings", "runs", "reports", "ladders", "audits", "chat", "usage", "keys")
_rows: dict[str, tuple[str, str]] = {}


def rows() -> Mapping[str, tuple[str, str]]:
    """All words by name: (English, Chinese). A name that two tables have is a fault."""
    if not _rows:
        for table in TABLES:
            more: Mapping[str, tuple[str, str]] = import_module(f"{__name__}.{table}").ROWS
            twice = _rows.keys() & more.keys()
            assert not twice, f"{table}: {sorted(twice)} are in another table as well"
            _rows.update(more)
    return _rows


class Words:
    """`words(name, **values)`: a word or sentence in the viewer's language, its `{places}` filled."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language

    def __call__(self, name: str, /, **values: object) -> str:
        said = rows()[name][self.language == "zh"]
        return said.format(**values) if values else said

    def has(self, name: str) -> bool:
        """Whether there is a word of this name: kinds and relations of others may be unknown."""
        return name in rows()

    def known(self, name: str, fallback: str) -> str:
        """The word for a term of ours, and the term itself where it is somebody else's."""
        return self(name) if name in rows() else fallback


def language_of(accepted: str) -> Language:
    """The better of our languages for an Accept-Language header (RFC 9110, section 12.5.4)."""
    best, weight = "en", 0.0
    for part in accepted.split(","):
        tag, _, parameter = part.strip().lower().partition(";")
        try:
            quality = float(parameter.strip().removeprefix("q=")) if parameter.strip() else 1.0
        except ValueError:
            quality = 0.0
        language = tag.partition("-")[0]
        if language in LANGUAGES and quality > weight:
            best, weight = language, quality
    return "zh" if best == "zh" else "en"
