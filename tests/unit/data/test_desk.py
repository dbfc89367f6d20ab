"""The embedded support desk: counts, hygiene, and a test split that shares no template with training."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from datetime import date
from importlib.resources import files
from itertools import islice
from typing import Any

import pytest
import yaml

DESK = files("nacre") / "data" / "desk"
TRAIN_ROWS, TEST_ROWS = 30, 7  # per intent and language
SIMILARITY_LIMIT = 0.5
# Greetings and product names that a test utterance may share with training; compared after `_units`. None is needed.
SHARED_RUNS_ALLOWED: frozenset[tuple[str, ...]] = frozenset()
ORDER_NUMBER = re.compile(r"TW-[0-9]{5}")


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DESK / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def utterances() -> list[dict[str, Any]]:
    return _rows("utterances.jsonl")


@pytest.fixture(scope="module")
def labels() -> list[str]:
    return [entry["label"] for entry in json.loads((DESK / "intents.json").read_text(encoding="utf-8"))]


def _units(text: str, lang: str) -> list[str]:
    """Words of an English text, characters of a Chinese one, lower case and without punctuation."""
    text = text.lower().replace("’", "'")
    return re.findall(r"[a-z0-9']+", text) if lang == "en" else re.findall(r"[^\W_]", text)


def _runs(text: str, lang: str) -> set[tuple[str, ...]]:
    """All runs of 5 words (en) or 7 characters (zh)."""
    units, length = _units(text, lang), 5 if lang == "en" else 7
    return {tuple(units[i : i + length]) for i in range(len(units) - length + 1)} - SHARED_RUNS_ALLOWED


def _ngrams(text: str, lang: str) -> frozenset[str]:
    """Character 3-grams (en) or 2-grams (zh)."""
    joined, length = (" ".join(_units(text, "en")), 3) if lang == "en" else ("".join(_units(text, "zh")), 2)
    return frozenset(joined[i : i + length] for i in range(max(1, len(joined) - length + 1)))


def _near_duplicates(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs above the limit. Sorted by size, since a set twice as large as another cannot be half the same."""
    grams = sorted(((row["text"], _ngrams(row["text"], row["lang"])) for row in rows), key=lambda pair: len(pair[1]))
    found = []
    for i, (a, x) in enumerate(grams):
        for b, y in islice(grams, i + 1, None):
            if len(x) < SIMILARITY_LIMIT * len(y):
                break
            if len(x & y) >= SIMILARITY_LIMIT * len(x | y):
                found.append((a, b))
    return found


def test_desk_counts_per_intent_language_and_split(utterances: list[dict[str, Any]], labels: list[str]) -> None:
    counts = Counter((row["label"], row["lang"], row["split"]) for row in utterances)
    sizes = {"train": TRAIN_ROWS, "test": TEST_ROWS}
    assert counts == {(label, lang, split): n for label in labels for lang in LANGUAGES for split, n in sizes.items()}


def test_desk_intents_are_described_in_both_languages(labels: list[str]) -> None:
    entries = json.loads((DESK / "intents.json").read_text(encoding="utf-8"))
    assert len(entries) == 30
    assert labels == sorted(set(labels))
    for entry in entries:
        assert set(entry) == {"label", "en", "zh"}
        assert re.search(r"[a-z]", entry["en"])
        assert re.search(r"[\u4e00-\u9fff]", entry["zh"])
    for lang in ("en", "zh"):
        assert len({entry[lang] for entry in entries}) == len(entries)


def test_desk_rows_are_sorted_and_have_exactly_four_fields(utterances: list[dict[str, Any]]) -> None:
    assert all(set(row) == {"text", "label", "lang", "split"} for row in utterances)
    keys = [(row["label"], row["lang"], row["split"]) for row in utterances]
    assert keys == sorted(keys)


def test_desk_language_field_matches_the_script(utterances: list[dict[str, Any]]) -> None:
    for row in utterances:
        assert bool(re.search(r"[\u4e00-\u9fff]", row["text"])) == (row["lang"] == "zh"), row["text"]


@pytest.mark.parametrize("name", ["utterances.jsonl", "questions.jsonl"])
def test_desk_text_is_clean_nfc(name: str) -> None:
    for row in _rows(name):
        text = row.get("text") or row["query"]
        assert text == unicodedata.normalize("NFC", text).strip()
        assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cn")], text


@pytest.mark.parametrize("name", ["utterances.jsonl", "questions.jsonl"])
def test_desk_holds_no_personal_data(name: str) -> None:
    """No e-mail address, link, or digit run long enough for a phone, card or identity number."""
    for row in _rows(name):
        text = row.get("text") or row["query"]
        rest = ORDER_NUMBER.sub("", text)
        assert not re.search(r"@|https?:|www\.", rest), text
        assert not re.search(r"(?:[0-9][ -]?){5}", rest), text


def test_desk_order_numbers_are_never_reused(utterances: list[dict[str, Any]]) -> None:
    numbers = Counter(number for row in utterances for number in ORDER_NUMBER.findall(row["text"]))
    assert [number for number, n in numbers.items() if n > 1] == []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_desk_has_no_duplicates_and_no_near_duplicates(utterances: list[dict[str, Any]], lang: str) -> None:
    assert _near_duplicates([row for row in utterances if row["lang"] == lang]) == []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_desk_test_split_shares_no_run_of_words_with_training(utterances: list[dict[str, Any]], lang: str) -> None:
    rows = [row for row in utterances if row["lang"] == lang]
    seen: dict[tuple[str, ...], str] = {}
    for row in rows:
        if row["split"] == "train":
            seen.update(dict.fromkeys(_runs(row["text"], lang), row["text"]))
    shared = [
        (row["text"], seen[run])
        for row in rows
        if row["split"] == "test"
        for run in _runs(row["text"], lang) & set(seen)
    ]
    assert shared == []


def test_desk_utterances_vary_in_length_and_opening(utterances: list[dict[str, Any]]) -> None:
    """A guard against template writing: fragments and long messages exist, and no opening dominates an intent."""
    openings: dict[tuple[str, str], Counter[tuple[str, ...]]] = defaultdict(Counter)
    lengths: dict[str, list[int]] = defaultdict(list)
    for row in utterances:
        units = _units(row["text"], row["lang"])
        lengths[row["lang"]].append(len(units))
        openings[row["label"], row["lang"]][tuple(units[:3])] += 1
    for lang, shortest, longest in (("en", 4, 40), ("zh", 6, 60)):
        assert sum(n <= shortest for n in lengths[lang]) >= 20
        assert sum(n >= longest for n in lengths[lang]) >= 20
    assert {key: counts.most_common(1) for key, counts in openings.items() if counts.most_common(1)[0][1] > 4} == {}


# The knowledge base and its questions.

LANGUAGES = ("en", "zh")
MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


def _article(lang: str, slug: str) -> tuple[dict[str, Any], str]:
    text = (DESK / "kb" / lang / f"{slug}.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body.strip()


def _slugs(lang: str) -> list[str]:
    return sorted(path.name.removesuffix(".md") for path in (DESK / "kb" / lang).iterdir())


SLUGS = _slugs("en")


def _numbers(text: str) -> set[str]:
    """All figures of a text: thousands without comma, an English date such as 24 December as day and month."""
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", text)
    for number, month in enumerate(MONTHS, start=1):
        text = re.sub(rf"(?<=[0-9]) {month}\b", f" / {number}", text)
    return set(re.findall(r"[0-9]+(?:\.[0-9]+)*", text))


def test_kb_has_the_same_articles_in_both_languages() -> None:
    assert _slugs("zh") == SLUGS
    assert len(SLUGS) >= 60


@pytest.mark.parametrize("slug", SLUGS)
def test_kb_front_matter_agrees_between_languages(slug: str, labels: list[str]) -> None:
    (en, _), (zh, _) = _article("en", slug), _article("zh", slug)
    assert set(en) == set(zh) == {"title", "topic", "intents", "updated"}
    assert [en[key] for key in ("topic", "intents", "updated")] == [zh[key] for key in ("topic", "intents", "updated")]
    assert isinstance(en["updated"], date)
    assert en["intents"]
    assert set(en["intents"]) <= set(labels)


@pytest.mark.parametrize("slug", SLUGS)
def test_kb_articles_have_the_promised_length_and_script(slug: str) -> None:
    (en_front, en), (zh_front, zh) = _article("en", slug), _article("zh", slug)
    assert 110 <= len(en.split()) <= 220
    assert 180 <= len(re.sub(r"\s", "", zh)) <= 350
    assert not re.search(r"[\u4e00-\u9fff]", en_front["title"] + en)
    assert len(re.findall(r"[\u4e00-\u9fff]", zh)) > 140
    for text in (en_front["title"], en, zh_front["title"], zh):
        assert text == unicodedata.normalize("NFC", text)
        assert not re.search(r"@|https?:|www\.|[0-9]{5}", text)


@pytest.mark.parametrize("slug", SLUGS)
def test_kb_states_the_same_figures_in_both_languages(slug: str) -> None:
    (en_front, en), (zh_front, zh) = _article("en", slug), _article("zh", slug)
    assert _numbers(en_front["title"] + "\n" + en) == _numbers(zh_front["title"] + "\n" + zh)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_kb_titles_differ_and_every_intent_has_an_article(lang: str, labels: list[str]) -> None:
    fronts = [_article(lang, slug)[0] for slug in SLUGS]
    assert len({front["title"] for front in fronts}) == len(SLUGS)
    assert {intent for front in fronts for intent in front["intents"]} == set(labels)


def test_questions_ask_every_article_once_per_language() -> None:
    questions = _rows("questions.jsonl")
    assert all(set(row) == {"id", "query", "lang", "relevant"} for row in questions)
    assert len({row["id"] for row in questions}) == len(questions)
    asked = Counter((row["lang"], slug) for row in questions for slug in row["relevant"])
    assert asked == {(lang, slug): 1 for lang in LANGUAGES for slug in SLUGS}
    assert all(len(row["relevant"]) == 1 for row in questions)
    for row in questions:
        assert bool(re.search(r"[\u4e00-\u9fff]", row["query"])) == (row["lang"] == "zh"), row["query"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_questions_repeat_neither_an_utterance_nor_a_sentence_of_their_article(
    utterances: list[dict[str, Any]], lang: str
) -> None:
    questions = [row for row in _rows("questions.jsonl") if row["lang"] == lang]
    known = {run for row in utterances if row["lang"] == lang for run in _runs(row["text"], lang)}
    assert [row["query"] for row in questions if _runs(row["query"], lang) & known] == []
    for row in questions:
        front, body = _article(lang, row["relevant"][0])
        assert not _runs(row["query"], lang) & _runs(f"{front['title']}\n{body}", lang), row["query"]
