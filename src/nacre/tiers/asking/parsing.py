"""Reading what a model wrote, strictly: an answer that is not clearly one of those asked for is no answer.

Every answer that is none, or not a whole one, carries a problem that is counted:

    refused      the engine says that the model refused; or what it wrote cannot be read and begins as refusals do
    filtered     the upstream's content filter took the answer away
    cut          the answer ended at the token limit; of a written text (`generate`) the beginning is kept as the value
    unparsable   anything else that is not in the form that was asked for
    unmatched    entities were read, but some are not in the text or of no known type; the others are the value

Nothing here understands language: "not refund" names one known label, and is read as that label.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nacre.data.rows import is_han
from nacre.engine.protocol import Generation
from nacre.metrics.entities import Entity
from nacre.tiers.asking.wording import entity_kinds
from nacre.tiers.task import Row, Task

PROBLEMS = ("unparsable", "refused", "filtered", "cut", "unmatched", "rejected")

_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^```[\w-]*[ \t]*\n(.*?)\n?```$", re.DOTALL)
_NAMED = re.compile(
    r"^(?:the\s+)?(?:label|category|class|intent|answer|标签|类别|分类|意图|答案|回答)\s*(?:is\b|[:=]|为|是)\s*:?\s*",
    re.IGNORECASE,
)
_REFUSALS = re.compile(
    r"^\W*(?:(?:i['’]?\s*a?m\s+)?(?:very\s+)?(?:sorry|afraid)\b|i\s+(?:can(?:no|['’])t|can\s+not|won['’]t|will\s+not|"
    r"am\s+(?:un|not\s+)able)\b|as\s+an?\s+ai\b|sorry\b|(?:很|非常)?抱歉|对不起|我(?:不能|无法|没法)|作为(?:一个|一名)?(?:ai|人工智能))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Parsed:
    """An answer's value as in `metrics/quality.py`, and what is wrong with it. A value of None is no answer."""

    value: Any
    problem: str | None = None


def parse(task: Task, row: Row, written: Generation, *, candidates: Sequence[Row] | None = None) -> Parsed:
    """The answer to `row` in what a model wrote. `candidates` are the passages that `rank` was asked to rank."""
    if written.stopped in ("refused", "filtered"):
        return Parsed(None, written.stopped)
    text = bare(written.text)
    if written.stopped == "length":
        return Parsed(text if task.kind == "generate" and text else None, "cut")
    if task.kind == "classify":
        parsed = parse_label(text, task.labels)
    elif task.kind == "tag":
        parsed = parse_entities(text, row["tokens"], task.labels)
    elif task.kind == "generate":
        return Parsed(text) if text else Parsed(None, "unparsable")
    else:
        parsed = parse_ranking(text, [str(one["id"]) for one in candidates or ()])
    if parsed.problem == "unparsable" and _REFUSALS.match(text):
        return Parsed(None, "refused")
    return parsed


def bare(text: str) -> str:
    """The text without a leading block of thoughts (`<think>`), without a code fence around it, without edge blanks."""
    rest = _THOUGHT.sub("", text, count=1).strip()
    fenced = _FENCE.match(rest)
    return fenced[1].strip() if fenced else rest


def parse_label(text: str, labels: Sequence[str]) -> Parsed:
    """The one known label that the text is, or, failing that, the one that stands in it.

    In this order: the label letter by letter; as JSON (`"x"`, `["x"]`, `{"label": "x"}`); after `Label:`; each of these
    again with case, width (NFKC), quotes, `_` for blank and trailing punctuation set aside; at last a text in which
    exactly one known label occurs as a whole word (longer labels first: "card arrival" does not name "card").
    """
    said = _unwrapped(text)
    if said is None:
        return Parsed(None, "unparsable")
    forms = dict.fromkeys((text.strip(), said, _NAMED.sub("", said)))
    for form in forms:
        if form in labels:
            return Parsed(form)
    known = _by_key(labels)
    for form in forms:
        named = known.get(key_of(form), [])
        if len(named) == 1:
            return Parsed(named[0])
    inside = [known[key] for key in set(_occurring(key_of(said), known))]
    if len(inside) == 1 and len(inside[0]) == 1:
        return Parsed(inside[0][0])
    return Parsed(None, "unparsable")


def key_of(text: str) -> str:
    """What is compared of a label: NFKC, case folded, `_`, `-` and blanks as one blank, no quotes or marks around."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = re.sub(r"[\s_\-]+", " ", folded).strip()
    edges = [index for index, character in enumerate(spaced) if character.isalnum()]
    return spaced[edges[0] : edges[-1] + 1] if edges else folded.strip()


def parse_entities(text: str, tokens: Sequence[str], tags: Sequence[str]) -> Parsed:
    """Tags from a JSON list of `{"type", "text"}`: each is found in the tokens, as whole tokens, in reading order.

    An entity is looked for behind the one before it, then from the beginning; width, case and blanks do not matter.
    """
    listed = json_in(text)
    if isinstance(listed, Mapping) and len(listed) == 1:  # {"entities": [...]}
        listed = next(iter(listed.values()))
    if not isinstance(listed, list) or not all(_is_entity(one) for one in listed):
        return Parsed(None, "unparsable")
    kinds = {key_of(kind): kind for kind in entity_kinds(tags)}
    found: list[Entity] = []
    behind = 0
    for one in listed:
        kind = kinds.get(key_of(one["type"]))
        place = _place(one["text"], tokens, behind, found) if kind is not None else None
        if kind is not None and place is not None:
            found.append(Entity(kind, *place))
            behind = place[1]
    return Parsed(write_tags(found, len(tokens), tags), None if len(found) == len(listed) else "unmatched")


def write_tags(entities: Iterable[Entity], n_tokens: int, tags: Sequence[str]) -> list[str]:
    """Entities as one tag per token, with the letters that the tag set uses (BIO, BIOES, BMES, BILOU)."""
    written = ["O"] * n_tokens
    for one in entities:
        roles = {tag.partition("-")[0] for tag in tags if tag.partition("-")[2] == one.kind}
        inside = "M" if "M" in roles else "I"
        last = next((role for role in "EL" if role in roles), inside)
        single = next((role for role in "SU" if role in roles), "B")
        n = one.end - one.start
        letters = single if n == 1 else "B" + inside * (n - 2) + last
        written[one.start : one.end] = [f"{letter}-{one.kind}" for letter in letters]
    return written


def parse_ranking(text: str, candidates: Sequence[str]) -> Parsed:
    """Candidate ids from a JSON list of passage numbers (from 1). Unnamed candidates follow in the order they had.

    A number named twice counts once; a number of no passage makes the answer unparsable. (Sun et al. 2023, "Is ChatGPT
    Good at Search?", section 3.2, completes a permutation in the same way.)
    """
    numbers = json_in(text)
    if not isinstance(numbers, list) or not numbers or not all(type(one) is int for one in numbers):
        return Parsed(None, "unparsable")
    if not all(1 <= one <= len(candidates) for one in numbers):
        return Parsed(None, "unparsable")
    named = list(dict.fromkeys(candidates[one - 1] for one in numbers))
    return Parsed([*named, *(one for one in candidates if one not in set(named))])


def json_in(text: str) -> Any:
    """The JSON value that a text is, or that it holds between its first bracket and the last one; None where none."""
    for candidate in (text, *_bracketed(text)):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return None


def _bracketed(text: str) -> Iterable[str]:
    starts = [index for index in (text.find("["), text.find("{")) if index >= 0]
    if starts:
        first = min(starts)
        yield text[first : text.rfind("]" if text[first] == "[" else "}") + 1]


def _unwrapped(text: str) -> str | None:
    """The label inside JSON, or the text itself; None for JSON that holds no single text."""
    value = json_in(text) if text[:1] in ("{", "[", '"') else text
    while isinstance(value, list | Mapping):
        inside = list(value.values()) if isinstance(value, Mapping) else value
        if len(inside) != 1:
            return None
        value = inside[0]
    # Brackets that are no JSON ("[refund]") are punctuation, which `key_of` takes off.
    return value if isinstance(value, str) else (text if value is None else str(value))


def _by_key(labels: Sequence[str]) -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    for label in labels:
        known.setdefault(key_of(label), []).append(label)
    return known


def _occurring(text: str, keys: Iterable[str]) -> Iterable[str]:
    """The keys that stand in a text as whole words, the longest first at each place.

    A Latin word ends where a letter or digit does; beside a Han character there is no such border, so a Chinese label
    is found wherever its characters stand.
    """
    taken = [False] * len(text)
    for key in sorted((one for one in keys if one), key=len, reverse=True):
        start = text.find(key)
        while start >= 0:
            end = start + len(key)
            if _is_whole(text, start, end) and not any(taken[start:end]):
                taken[start:end] = [True] * len(key)
                yield key
            start = text.find(key, start + 1)


def _is_whole(text: str, start: int, end: int) -> bool:
    return not (_joined(text, start) or _joined(text, end))


def _joined(text: str, border: int) -> bool:
    """Whether a word goes on over a border between two characters."""
    if not 0 < border < len(text):
        return False
    left, right = text[border - 1], text[border]
    return left.isalnum() and right.isalnum() and not is_han(left) and not is_han(right)


def _is_entity(one: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(one.get("type"), str) and isinstance(one.get("text"), str)


def _place(text: str, tokens: Sequence[str], behind: int, found: Sequence[Entity]) -> tuple[int, int] | None:
    """Tokens `start` to `end` that spell `text`: the first such place from token `behind` on, else from the first."""
    wanted = _letters(text)
    if not wanted:
        return None
    pieces = [_letters(token) for token in tokens]
    for start in [*range(behind, len(tokens)), *range(behind)]:
        spelt, end = "", start
        while len(spelt) < len(wanted) and end < len(tokens):
            spelt += pieces[end]
            end += 1
        free = all(end <= one.start or start >= one.end for one in found)
        if spelt == wanted and pieces[start] and free:
            return start, end
    return None


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
