"""Labelled sentences: the Chinese ones of our own writing, and the shared English set with its types as our kinds."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from masking_parts import held_out, tuned
from masking_parts.values import RIGHT, WRONG

SEED = 20261122
PER_TEMPLATE = 12
_SLOT = re.compile(r"\{([a-z_0-9]+)\}")
# The types of pii-en-synthetic that rules can find; the others (names, places, dates, ...) need a tagger.
ENGLISH = {
    "CREDIT_CARD": "card", "PHONE_NUMBER": "phone", "EMAIL_ADDRESS": "email", "IBAN_CODE": "iban", "US_SSN": "ssn",
    "IP_ADDRESS": "ip",
}  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """A text, and the (kind, start, end) of what it holds."""

    text: str
    spans: frozenset[tuple[str, int, int]]


def chinese(half: str) -> list[Sentence]:
    """Every template of `tuned` or `held_out`, filled several times with values drawn from a fixed seed."""
    templates = {"tuned": tuned, "held_out": held_out}[half]
    draw = random.Random(f"{SEED} {half}")
    return [_filled(one, draw) for one in (*templates.HAS, *templates.HAS_NOT) for _ in range(PER_TEMPLATE)]


def _filled(template: str, draw: random.Random) -> Sentence:
    text, spans, done = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[done : slot.start()].replace("{{", "{").replace("}}", "}")
        name, done = slot[1], slot.end()
        if name in RIGHT:
            kind, value = RIGHT[name][0], RIGHT[name][1](draw)
            spans.append((kind, len(text), len(text) + len(value)))
        else:
            value = WRONG[name](draw)
        text += value
    return Sentence(text + template[done:].replace("{{", "{").replace("}}", "}"), frozenset(spans))


NATURAL = {
    "zh": ("cls-zh-takeaway-reviews", "sft-zh-medical-qa", "qa-zh-cmrc2018", "ner-zh-resume"),
    "en": ("qa-en-squad2", "cls-en-banking77", "math-en-gsm8k"),
}


def natural(language: str) -> list[Sentence]:
    """Texts that nobody labelled and that hold next to nothing: whatever is found is printed, to be looked at."""
    found = []
    for name in NATURAL[language]:
        with gzip.open(_home() / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
            found += [Sentence(one, frozenset()) for line in file for one in _strings(json.loads(line))]
    return found


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        yield "".join(value)
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _home() -> Path:
    return Path(os.environ.get("NACRE_DATA") or Path(__file__).parents[2].parent / "shared" / "data")


def english(split: str) -> list[Sentence]:
    """A split of pii-en-synthetic; its other types are left out."""
    return list(_read(_home() / "pii-en-synthetic" / f"{split}.jsonl.gz"))


def _read(path: Path) -> Iterator[Sentence]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            spans = ((ENGLISH.get(one["type"]), one["start"], one["end"]) for one in row["spans"])
            yield Sentence(row["text"], frozenset((kind, start, end) for kind, start, end in spans if kind))
