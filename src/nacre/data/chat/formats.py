"""Conversations and preferences out of rows of any common format, and which format a file looks like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nacre.data.chat.messages import (
    BadRow,
    Message,
    bad,
    check_answer,
    check_conversation,
    check_prompt,
    message_of,
    text_of,
    tools_of,
)
from nacre.data.rows import Row
from nacre.errors import ConfigError, DataError, closest


@dataclass(frozen=True)
class Conversation:
    """Turns in OpenAI's form, the last an answer."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None

    def row(self) -> Row:
        """As a row of a dataset artifact."""
        return {"messages": self.messages} | ({"tools": self.tools} if self.tools else {})


@dataclass(frozen=True)
class Pair:
    """Two answers to the same prompt, the better and the worse."""

    messages: list[Message]
    chosen: str
    rejected: str
    tools: list[dict[str, Any]] | None = None

    def row(self) -> Row:
        sides = {"messages": self.messages, "chosen": self.chosen, "rejected": self.rejected}
        return sides | ({"tools": self.tools} if self.tools else {})


@dataclass(frozen=True)
class Judged:
    """One answer to a prompt, and whether it is good (KTO)."""

    messages: list[Message]
    answer: str
    good: bool
    tools: list[dict[str, Any]] | None = None

    def row(self) -> Row:
        sides = {"messages": self.messages, "answer": self.answer, "good": self.good}
        return sides | ({"tools": self.tools} if self.tools else {})


Kind = Literal["conversations", "preference pairs", "judged answers"]


@dataclass(frozen=True)
class Format:
    """A dialect: what it is called, the fields that make it (alternatives in a tuple, the most telling field first),
    how its rows are read."""

    name: str
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Row], Any]

    def has(self, row: Row) -> list[bool]:
        return [any(name in row for name in names) for names in self.needs]


# --- conversations


def _openai(row: Row) -> Conversation:
    return Conversation(_messages(row["messages"]), tools_of(row.get("tools")))


def _sharegpt(row: Row) -> Conversation:
    turns = _with_system(row, _messages(row["conversations"]))
    return Conversation(turns, tools_of(row.get("tools")))


def _alpaca(row: Row) -> Conversation:
    return Conversation([*_instructed(row), _answer(text_of(row["output"]))], tools_of(row.get("tools")))


_ASKED = ("question", "prompt", "query", "source")
_ANSWERED = ("answer", "completion", "response", "target")


def _answered(row: Row) -> Conversation:
    asked, answer = _first(row, _ASKED), _first(row, _ANSWERED)
    prompt = _messages(asked) if isinstance(asked, list) else [{"role": "user", "content": text_of(asked)}]
    said = _messages(answer) if isinstance(answer, list) else [_answer(text_of(answer))]
    return Conversation(_with_system(row, [*prompt, *said]), tools_of(row.get("tools")))


# --- preferences


def _pair_of_messages(row: Row) -> Pair:
    given = _first(row, ("messages", "prompt", "conversations"))
    prompt = _messages(given) if isinstance(given, list) else [{"role": "user", "content": text_of(given)}]
    tools = tools_of(row.get("tools"))
    return Pair(_with_system(row, prompt), _side(row["chosen"]), _side(row["rejected"]), tools)


def _pair_of_alpaca(row: Row) -> Pair:
    return Pair(_instructed(row), _side(row["chosen"]), _side(row["rejected"]), tools_of(row.get("tools")))


def _pair_of_transcripts(row: Row) -> Pair:
    """HH: two transcripts, or two lists of messages, that differ in the last answer only."""
    sides = [_transcript(row[name]) for name in ("chosen", "rejected")]
    prompts = [side[:-1] for side in sides]
    if prompts[0] != prompts[1]:
        bad("two transcripts that differ before the last answer", "keep pairs with a common prompt")
    if any(not side or side[-1]["role"] != "assistant" for side in sides):
        bad("a transcript that does not end with the assistant")
    return Pair(prompts[0], sides[0][-1]["content"], sides[1][-1]["content"])


_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")


def _transcript(given: Any) -> list[Message]:
    if isinstance(given, list):
        return _messages(given)
    pieces = _SPEAKER.split(text_of(given))
    if len(pieces) < 3 or pieces[0].strip():
        bad("a transcript without 'Human:' and 'Assistant:'", "begin it with a blank line and Human:")
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return [{"role": roles[who], "content": text.strip()} for who, text in turns]


# --- single answers that were judged


def _judged(row: Row) -> Judged:
    good = row["good"] if "good" in row else _first(row, ("label", "kto_tag"))
    if not isinstance(good, bool):
        bad("a judgement that is not true or false", "write good: true or good: false")
    if any(name in row for name in _ANSWERED):
        given = _first(row, ("messages", "prompt", "question", "conversations"))
        prompt = _messages(given) if isinstance(given, list) else [{"role": "user", "content": text_of(given)}]
        return Judged(_with_system(row, prompt), _side(_first(row, _ANSWERED)), good, tools_of(row.get("tools")))
    turns = _with_system(row, _messages(_first(row, ("messages", "conversations"))))
    if turns[-1]["role"] != "assistant":
        bad("a judged conversation that does not end with the assistant")
    return Judged(turns[:-1], turns[-1]["content"], good, tools_of(row.get("tools")))


# Adding a format: one function and one line. The first whose fields are all there is taken.
JUDGED = (
    Format("judged answers", (("messages", "prompt", "question", "conversations"), _ANSWERED, ("good",)), _judged),
    Format("KTO", (("messages", "prompt", "conversations"), ("label", "kto_tag")), _judged),
)
PAIRS = (
    Format("alpaca pairs", (("instruction",), ("chosen",), ("rejected",)), _pair_of_alpaca),
    Format("pairs", (("messages", "prompt", "conversations"), ("chosen",), ("rejected",)), _pair_of_messages),
    Format("HH transcripts", (("chosen",), ("rejected",)), _pair_of_transcripts),
)
CONVERSATIONS = (
    Format("OpenAI messages", (("messages",),), _openai),
    Format("ShareGPT", (("conversations",),), _sharegpt),
    Format("Alpaca", (("instruction",), ("output",)), _alpaca),
    Format("questions and answers", (_ASKED, _ANSWERED), _answered),
)
_KINDS: Mapping[Kind, tuple[Format, ...]] = {
    "conversations": CONVERSATIONS,
    "preference pairs": PAIRS,
    "judged answers": JUDGED,
}
# A file of one kind that was given where another is wanted: what to do.
_USE = {
    "conversations": "conversations are trained by tune.sft",
    "preference pairs": "pairs are trained by tune.preference and tune.reward",
    "judged answers": "judged answers are trained by tune.preference with kind: kto",
}


def conversations(
    rows: Iterable[Row], dropped: Counter[str] | None = None, *, fill: Mapping[str, str] | None = None
) -> Iterator[Conversation]:
    """The conversations of rows of one format. `fill` replaces `{{name}}` in their texts.

    A bad row raises DataError with its number; with `dropped` it is counted there by its reason and passed over.
    """
    return _read(rows, "conversations", dropped, fill)


def pairs(
    rows: Iterable[Row], dropped: Counter[str] | None = None, *, fill: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    """The preference pairs of rows of one format; bad rows as in `conversations`."""
    return _read(rows, "preference pairs", dropped, fill)


def judged(
    rows: Iterable[Row], dropped: Counter[str] | None = None, *, fill: Mapping[str, str] | None = None
) -> Iterator[Judged]:
    """The judged answers of rows of one format; bad rows as in `conversations`."""
    return _read(rows, "judged answers", dropped, fill)


def conversation(row: Row) -> Conversation:
    """The conversation of one row. BadRow, or DataError where the format is none of conversations."""
    read = RowReader("conversations").read(row)
    assert isinstance(read, Conversation)
    return read


def require_conversations(rows: Iterable[Row], where: str) -> None:
    """Raises DataError unless the first row looks like a conversation; bad content is no matter here."""
    first = next(iter(rows), None)
    if first is not None:
        try:
            _format(first, "conversations")
        except DataError as error:
            raise DataError(f"{where}: {error.message}", remedy=error.remedy) from error


def kind_of(row: Row) -> tuple[Kind, Format]:
    """The kind (`conversations`, `preference pairs`, `judged answers`) and the format that a row looks like.

    DataError says which format comes closest and what it lacks.
    """
    for kind, formats in reversed([*_KINDS.items()]):
        for one in formats:
            if all(one.has(row)):
                return kind, one
    everything = [one for formats in _KINDS.values() for one in formats]
    nearest = max(everything, key=lambda one: (one.has(row)[0], sum(one.has(row)) / len(one.needs)))
    given = ", ".join(map(repr, row)) or "(none)"
    if not nearest.has(row)[0]:
        known = "; ".join(f"{one.name}: {_spelled(one)}" for one in everything)
        raise DataError(f"the fields {given} are of no known format", remedy=f"known: {known}")
    lacking = [names for names, there in zip(nearest.needs, nearest.has(row), strict=True) if not there]
    raise DataError(
        f"the fields {given} look like {nearest.name}, without {' and without '.join(map(_either, lacking))}",
        remedy=f"give every row {_spelled(nearest)}, or map the fields (config: fields)",
    )


class RowReader:
    """Reads rows of one format, that of the first row. `kind`: one of the kinds, or `auto` for that of the first row.

    `fill` replaces `{{name}}` in texts by its value; `used` names those that were found.
    """

    def __init__(self, kind: Kind | Literal["auto"], fill: Mapping[str, str] | None = None) -> None:
        self.kind, self.fill = kind, dict(fill or {})
        self.used: set[str] = set()
        self.format: Format | None = None

    def read(self, row: Row) -> Conversation | Pair | Judged:
        """What the row holds. BadRow where the row is at fault, DataError where the format is."""
        if self.format is None:
            if self.kind == "auto":
                self.kind = kind_of(row)[0]
            self.format = _format(row, self.kind)
        if not all(self.format.has(row)):
            bad(f"not {self.format.name}, as the first row is", "give one file per format")
        read: Conversation | Pair | Judged = self.format.read(_filled(row, self.fill, self.used) if self.fill else row)
        _check(read)
        return read

    def check_fill(self) -> None:
        """Raises ConfigError for a placeholder that no text had."""
        if unused := sorted(set(self.fill) - self.used):
            raise ConfigError(
                f"fill: no text has the placeholder {{{{{unused[0]}}}}}", remedy=closest(unused[0], self.used)
            )


def _read(
    rows: Iterable[Row], kind: Kind, dropped: Counter[str] | None, fill: Mapping[str, str] | None
) -> Iterator[Any]:
    reader = RowReader(kind, fill)
    for number, row in enumerate(rows, 1):
        try:
            read = reader.read(row)
        except BadRow as error:
            if dropped is None:
                raise DataError(f"row {number}: {error.message}", remedy=error.remedy) from error
            dropped[error.message] += 1
            continue
        yield read
    reader.check_fill()


def _format(row: Row, kind: Kind) -> Format:
    found, chosen = kind_of(row)
    if found == kind:
        return chosen
    raise DataError(f"these rows are {found} ({chosen.name}), not {kind}", remedy=_USE[found])


def _check(read: Conversation | Pair | Judged) -> None:
    if isinstance(read, Conversation):
        check_conversation(read.messages)
        return
    check_prompt(read.messages)
    for side in (read.chosen, read.rejected) if isinstance(read, Pair) else (read.answer,):
        check_answer(side)
    if isinstance(read, Pair) and read.chosen.strip() == read.rejected.strip():
        bad("equal sides", "leave out pairs whose answers are the same: they prefer nothing")


def _spelled(one: Format) -> str:
    return " + ".join(_either(names) for names in one.needs)


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names))


def _messages(given: Any) -> list[Message]:
    if not isinstance(given, list) or not given:
        bad("the turns are no list" if not isinstance(given, list) else "no turns")
    theirs = isinstance(given[0], Mapping) and "from" in given[0]
    return [message_of(one, "from", "value") if theirs else message_of(one) for one in given]


def _with_system(row: Row, turns: list[Message]) -> list[Message]:
    system = text_of(row.get("system"))
    return [{"role": "system", "content": system}, *turns] if system.strip() else turns


def _instructed(row: Row) -> list[Message]:
    """Alpaca's prompt: the turns of `history`, then the instruction, and under it its input."""
    asked = "\n\n".join(text for name in ("instruction", "input") if (text := text_of(row.get(name))).strip())
    history: list[Message] = []
    for turn in row.get("history") or []:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            bad("a 'history' that is no list of [question, answer]")
        history += [{"role": "user", "content": text_of(turn[0])}, _answer(text_of(turn[1]))]
    return _with_system(row, [*history, {"role": "user", "content": asked}])


def _side(given: Any) -> str:
    """An answer of a pair: a text, a turn, or a list of one turn."""
    if isinstance(given, list):
        if len(given) != 1:
            bad("an answer of several turns", "keep pairs of single answers")
        given = given[0]
    if isinstance(given, Mapping):
        said: str = message_of(given, *(("role", "content") if "role" in given else ("from", "value")))["content"]
        return said
    return text_of(given)


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _first(row: Row, names: Sequence[str]) -> Any:
    return next(row[name] for name in names if name in row)


def _filled(value: Any, fill: Mapping[str, str], used: set[str]) -> Any:
    if isinstance(value, str):
        for name, text in fill.items():
            if (placeholder := f"{{{{{name}}}}}") in value:
                used.add(name)
                value = value.replace(placeholder, text)
        return value
    if isinstance(value, Mapping):
        return {name: _filled(item, fill, used) for name, item in value.items()}
    return [_filled(item, fill, used) for item in value] if isinstance(value, list) else value
