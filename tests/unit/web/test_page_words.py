"""Every word of the page is there in both languages, and none is left over."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Formatter

import nacre.web
from nacre.web.words import TABLES, rows
from nacre.web.words.shell import ROWS

WEB = Path(str(nacre.web.__file__)).parent
TEMPLATES = sorted((WEB / "templates").glob("*.html"))
# Beginnings that templates and code complete (`words('theme_' ~ theme)`, `words(f"tier_{tier}")`) are read from them;
# of areas whose every word begins alike, what completes it stands here.
COMPLETED = re.compile(r"""["'](\w+_)["']\s*~|f["'](\w+_)\{""")
WHOLE_AREAS = {"usage_": r"(key|model|day)$", "keys_": r"(requests_per_minute|tokens_per_minute|concurrent)$"}
IN_SCRIPTS = re.compile(r"^chat_js_(error_|upstream$|tokenizer$|nobody$|offline$)")
SCRIPT = "chat_js_"  # begins the names of the words that the script of the chat says, without it


def used() -> str:
    """The text of everything that may ask for a word."""
    sources = [*TEMPLATES, *WEB.glob("*.py"), *(WEB / "areas").glob("*.py"), *(WEB / "static").glob("*.js")]
    return "\n".join(one.read_text(encoding="utf-8") for one in sources)


def test_every_table_is_listed() -> None:
    names = {one.stem for one in (WEB / "words").glob("*.py")} - {"__init__"}
    assert names == set(TABLES)
    assert (files("nacre.web") / "templates").is_dir()


def test_both_languages_have_the_same_places() -> None:
    for name, (english, chinese) in rows().items():
        assert places(english) == places(chinese), name
        assert english.strip() == english, name
        assert chinese.strip() == chinese, name


def test_no_word_is_left_over() -> None:
    text = used()
    begun = {one or other for one, other in COMPLETED.findall(text)}
    built = re.compile("|".join(f"^{one}{WHOLE_AREAS.get(one, '')}" for one in sorted(begun)))
    left = [
        name
        for name in rows().keys() - ROWS.keys()
        if not built.match(name)
        and not IN_SCRIPTS.match(name)
        and not re.search(rf"[\"']{re.escape(name)}[\"']", text)
        and not (name.startswith(SCRIPT) and re.search(rf"\bwords\.{name.removeprefix(SCRIPT)}\b", text))
    ]
    assert left == []


def test_templates_ask_only_for_words_that_are_there() -> None:
    for template in TEMPLATES:
        text = template.read_text(encoding="utf-8")
        asked = re.findall(r"\bwords\('(\w+)'[,)]", text)
        assert set(asked) <= rows().keys(), template.name


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}
