"""Messages to ids, and which of the ids a model is taught: an answer and its end, nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nacre.data.chat import shipped
from nacre.data.chat.rendering import BEGINS, ENDS, Messages, Rendered, Template, Tools
from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError, DataError

Trained = Literal["assistant", "last", "all"]

TRAINING_DAY = datetime(2024, 7, 26)  # the day that Llama 3.1's template takes where it is told none
_PRIVATE = range(0xE001, 0xF8FF)
_PROBE = "\ue000"
_OTHER = f"name another template (template: {' | '.join(shipped.CONTROLS)})"


class Turned(NamedTuple):
    """A conversation as `ids` (T,) int32; `trained` (T,) bool says which of them are targets.

    `joined`: tokens that reach over the beginning or the end of an answer. They are trained, and at inference, where
    the prompt ends before the answer begins, the model does not meet them: report them. `spelled` (T,): the text that
    each token stands for, all together the rendered text; of tokens that share a character the first has it.
    """

    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    joined: int = 0
    spelled: tuple[str, ...] = ()


class Encoded(NamedTuple):
    """Ids with the characters [start, end) of the rendered text that each stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Forgets(DataError):
    """A template writes an answer otherwise once more turns follow it: they cannot be trained in one sequence."""


class ChatTemplate:
    """A chat template and the tokenizer that reads what it writes.

    Answers are found by the template's own marks (`{% generation %}`), else by rendering each beginning of the
    conversation. Text of a message never becomes a special token.
    """

    def __init__(
        self, source: str, tokenizer: Tokenizer, name: str = "the chat template", *, today: datetime | None = None
    ) -> None:
        self.source, self.tokenizer, self.name = source, tokenizer, name
        self.template = Template(source, tokenizer.roles, today)
        added = tokenizer.raw.get_added_tokens_decoder()
        spelled = {index: token.content for index, token in added.items() if token.special}
        spelled |= {index: text for text in tokenizer.roles.values() if (index := tokenizer.id_of(text)) is not None}
        self._controls = {text: index for index, text in spelled.items()}
        # Llama 2's first tokenizer.json finds `</s>` after a blank only, as its text is changed before it is searched.
        self._hides = any(added[index].normalized for index in spelled if index in added)

    @classmethod
    def open(cls, folder: Path, name: str | None = None, *, add_tokens: bool = False) -> ChatTemplate:
        """For training: the shipped template `name`, or the folder's own, with the folder's tokenizer; `add_tokens`
        gives it the control tokens that it lacks. A template that writes the date writes `TRAINING_DAY`, so that the
        same run is the same on another day. ConfigError where no template is named and the folder has none."""
        tokenizer = Tokenizer.load(folder)
        if name is not None:
            lacking = shipped.lacking(name, tokenizer) if add_tokens else []
            return cls.named(name, shipped.extended(tokenizer, lacking) if lacking else tokenizer)
        found = cls.find(folder, tokenizer)
        if found is None:
            raise ConfigError(f"{folder} has no chat template", remedy=_OTHER.replace("another", "a"))
        return cls(found.source, tokenizer, today=TRAINING_DAY)

    @classmethod
    def find(cls, folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
        """The template in `chat_template.jinja`, or in `tokenizer_config.json` (its `default`); None where none is."""
        file = folder / "chat_template.jinja"
        if file.is_file():
            return cls(file.read_text(encoding="utf-8"), tokenizer)
        source = tokenizer.settings.get("chat_template")
        if isinstance(source, list):
            source = {one.get("name"): one.get("template") for one in source}.get("default")
        return cls(source, tokenizer) if isinstance(source, str) else None

    @classmethod
    def named(cls, name: str, tokenizer: Tokenizer) -> ChatTemplate:
        """A template that is shipped. ConfigError names the tokens that the tokenizer lacks for it."""
        source = shipped.source(name)
        if lacking := shipped.lacking(name, tokenizer):
            raise ConfigError(
                f"the tokenizer lacks {', '.join(lacking)}, which the template {name} is made of",
                remedy="let them be added (add_tokens: true; the embeddings grow), or name another template",
            )
        return cls(source, tokenizer, name)

    # --- text

    def render(self, messages: Messages, tools: Tools | None = None) -> str:
        """The text of the conversation, up to where the answer begins."""
        return self.template.render(messages, tools, answering=True).text

    # --- ids

    def prompt(self, messages: Messages, tools: Tools | None = None) -> list[int]:
        """Ids of the conversation, up to where the answer begins."""
        marks = self._marks(messages, tools)
        rendered = self.template.render(*_hidden(messages, tools, marks), answering=True)
        return self._framed(self._encode(rendered.text, marks)).ids

    def tokens(self, messages: Messages, tools: Tools | None = None, trained: Trained = "assistant") -> Turned:
        """Ids of the whole conversation, and which are trained.

        `assistant`: every answer that its message does not exclude (`"trained": false`); `last`: the last answer;
        `all`: everything. Raises ConfigError when the template does not tell answers from prompts, Forgets when
        an earlier answer cannot be trained in this sequence: train each in one of its own, as the last.
        """
        marks = self._marks(messages, tools)
        hidden, hidden_tools = _hidden(messages, tools, marks)
        rendered = self.template.render(hidden, hidden_tools)
        spans = self._spans(hidden, hidden_tools, rendered, trained)
        encoded = self._framed(self._encode(rendered.text, marks))
        turned = _turned(encoded, spans)
        return turned._replace(spelled=_spelled(rendered.text, encoded.offsets, marks))

    def check(self) -> None:
        """Raises ConfigError unless the template tells answers, and their ends, from all else."""
        if not self.template.marked:
            _ = self._closing
            return
        answered = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
        rendered = self.template.render(answered)
        if len(rendered.answers) != 1:
            raise _unmarked(self.name, f"marks {len(rendered.answers)} answers where there is one")
        start, end = rendered.answers[0]
        if not rendered.text[start:end].partition(_PROBE)[2].strip():
            raise _unmarked(self.name, "marks answers without their end, so a model could not learn to stop")

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Ids of the special tokens that end an answer, and one that calls a tool; none where the ends are text."""
        call = {"type": "function", "function": {"name": "a", "arguments": {}}}
        answers = {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}
        found: list[int] = []
        for answer in answers:
            try:
                turned = self.tokens([{"role": "user", "content": "a"}, answer])
            except DataError:  # a template without a form for tools
                continue
            last = int(turned.ids[turned.trained][-1])
            found += [last] if last in self._controls.values() and last not in found else []
        return tuple(found)

    # --- where the answers are

    def _spans(self, messages: Messages, tools: Tools | None, whole: Rendered, trained: Trained) -> list[_Span]:
        if trained == "all":
            return [(0, len(whole.text))]
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        every = [index for index in answers if _is_trained(messages[index])]
        wanted = answers[-1:] if trained == "last" else every
        if not wanted:
            raise DataError("the conversation has no answer to train", remedy="end it with a turn of the assistant")
        if self.template.marked:
            return self._marked_spans(messages, tools, whole, answers, wanted)
        return [self._found_span(messages, tools, whole, index) for index in wanted]

    def _marked_spans(
        self, messages: Messages, tools: Tools | None, whole: Rendered, answers: list[int], wanted: list[int]
    ) -> list[_Span]:
        if len(whole.answers) != len(answers):
            raise ConfigError(
                f"{self.name} marks {len(whole.answers)} answers in a conversation that has {len(answers)}",
                remedy=f"put generation marks around each answer in it, or {_OTHER}",
            )
        spans = dict(zip(answers, whole.answers, strict=True))
        for index in wanted:
            end = spans[index][1]
            if index + 1 < len(messages) and (
                self.template.render(messages[: index + 1], tools).text[:end] != whole.text[:end]
            ):
                raise _forgets(self.name)
        return [spans[index] for index in wanted]

    def _found_span(self, messages: Messages, tools: Tools | None, whole: Rendered, index: int) -> _Span:
        """The answer at `index`: from where its prompt ends to the end of the turn that the template closes it with."""
        closing = self._closing
        before = self.template.render(messages[:index], tools).text
        prompt = self.template.render(messages[:index], tools, answering=True).text
        until = self.template.render(messages[: index + 1], tools).text if index + 1 < len(messages) else whole.text
        start = _common(prompt, until)
        end = len(until) - len(closing.text) + closing.kept
        if start < min(len(before), len(prompt)) or not until.endswith(closing.text) or start >= end:
            raise DataError(
                f"{self.name} does not write the answer of turn {index + 1} after its prompt, so it cannot be found",
                remedy=f"put generation marks around the answers in the template, or {_OTHER}",
            )
        if until[:end] != whole.text[:end]:
            raise _forgets(self.name)
        return start, end

    @cached_property
    def _closing(self) -> _Closing:
        """How the template ends an answer, seen on a probe. ConfigError when it does not tell answers apart."""
        asked, answered = {"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}
        before = self.template.render([asked]).text
        prompt = self.template.render([asked], answering=True).text
        head, found, closing = self.template.render([asked, answered]).text.partition(_PROBE)
        if not found or not head.startswith((before, prompt)):
            raise _unmarked(self.name, "does not write answers as they are")
        if prompt == before and head[len(before) :].strip():
            raise _unmarked(self.name, "does not say where an answer begins (add_generation_prompt changes nothing)")
        tokens = [token for token in self._controls if token in closing]
        if tokens:
            kept = min(closing.index(token) + len(token) for token in tokens)
        elif closing.strip():
            kept = len(closing.rstrip())
        else:
            raise _unmarked(self.name, "writes no end after an answer, so a model could not learn to stop")
        return _Closing(closing, kept)

    # --- text to ids

    def _marks(self, messages: Messages, tools: Tools | None) -> dict[str, str]:
        """A free character for each special token that a message spells, the longest first."""
        texts = list(_strings([list(messages), list(tools or [])]))
        everything = "".join(texts)
        spelled = [token for token in (*self._controls, BEGINS, ENDS) if token and token in everything]
        if not spelled:
            return {}
        free = (chr(code) for code in _PRIVATE if chr(code) not in everything)
        return {next(free): token for token in sorted(spelled, key=len, reverse=True)}

    def _encode(self, text: str, marks: Mapping[str, str]) -> Encoded:
        """Ids of rendered text: special tokens where the template wrote them, mere text where a message did."""
        apart = [*marks, *(sorted(self._controls, key=len, reverse=True) if self._hides else ())]
        if not apart:
            spans = self.tokenizer.spans(text, allow_special=True)
            return Encoded(spans.ids, spans.offsets)
        ids, offsets, start = list[int](), list[tuple[int, int]](), 0
        for piece in re.split(f"({'|'.join(map(re.escape, apart))})", text):
            if piece in marks:
                spelled = self._inside(marks[piece], first=start == 0, literal=True).ids
                found = Encoded(spelled, [(0, 1)] * len(spelled))
            elif piece in self._controls and self._hides:
                found = Encoded([self._controls[piece]], [(0, len(piece))])
            else:
                found = self._inside(piece, first=start == 0 or self._hides, literal=self._hides)
            ids += found.ids
            offsets += [(start + low, start + high) for low, high in found.offsets]
            start += len(piece)
        return Encoded(ids, offsets)

    def _inside(self, text: str, *, first: bool, literal: bool) -> Encoded:
        """Ids of a piece of a text. What is not its beginning is read after a line end, as `transformers` does:
        SentencePiece would put a blank before it."""
        if not text:
            return Encoded([], [])
        if not first:
            line = self.tokenizer.spans("\n").ids
            ids, offsets = self.tokenizer.spans(f"\n{text}", allow_special=not literal)
            if ids[: len(line)] == line:
                return Encoded(ids[len(line) :], [(low - 1, high - 1) for low, high in offsets[len(line) :]])
        return Encoded(*self.tokenizer.spans(text, allow_special=not literal))

    def _framed(self, encoded: Encoded) -> Encoded:
        """With one start token: the template's, or else the one with which the tokenizer begins every text."""
        framed, bos = self.tokenizer.frame([]), self.tokenizer.bos_id
        if bos is not None and framed[:1] == [bos] and encoded.ids[:1] != [bos]:
            return Encoded([bos, *encoded.ids], [(0, 0), *encoded.offsets])
        return encoded


_Span = tuple[int, int]


class _Closing(NamedTuple):
    """What follows an answer's text, and how much of it is the end of the turn."""

    text: str
    kept: int


def _turned(encoded: Encoded, spans: list[_Span]) -> Turned:
    """A token is trained that stands for a character of an answer; one that stands for none, with those before it."""
    trained = np.zeros(len(encoded.ids), dtype=np.bool_)
    reached = joined = at = 0
    for index, (low, high) in enumerate(encoded.offsets):
        begin = min(reached, low) if low == high else low  # blanks that the offsets leave out
        while at < len(spans) and spans[at][1] <= begin:
            at += 1
        if at < len(spans) and begin < spans[at][1] and spans[at][0] < high:
            trained[index] = True
            joined += min(begin, reached) < spans[at][0] or high > spans[at][1]
        reached = max(reached, high)
    return Turned(np.array(encoded.ids, dtype=np.int32), trained, joined)


def _spelled(text: str, offsets: list[tuple[int, int]], marks: Mapping[str, str]) -> tuple[str, ...]:
    """What lies between two tokens counts for the second, what follows the last for the last."""
    reached, pieces = 0, []
    for index, (_, high) in enumerate(offsets):
        until = len(text) if index + 1 == len(offsets) else max(reached, high)
        piece = text[reached:until]
        pieces.append("".join(marks.get(char, char) for char in piece) if marks else piece)
        reached = until
    return tuple(pieces)


def _common(first: str, second: str) -> int:
    """How many characters both texts begin with."""
    if second.startswith(first):
        return len(first)
    return next(index for index, (a, b) in enumerate(zip(first, f"{second}\0", strict=False)) if a != b)


def _is_trained(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and message.get("trained") is not False


def _hidden(messages: Messages, tools: Tools | None, marks: Mapping[str, str]) -> tuple[Messages, Tools | None]:
    return (_replaced(messages, marks), _replaced(tools, marks)) if marks else (messages, tools)


def _replaced(value: Any, marks: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for mark, token in marks.items():
            value = value.replace(token, mark)
        return value
    if isinstance(value, Mapping):
        return {name: item if name == "role" else _replaced(item, marks) for name, item in value.items()}
    return [_replaced(item, marks) for item in value] if isinstance(value, list | tuple) else value


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for item in inner for text in _strings(item)]


def _unmarked(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"{name} {why}: what a model should learn cannot be told from what it is given",
        remedy=f"put generation marks around the answers in it, or {_OTHER}",
    )


def _forgets(name: str) -> Forgets:
    return Forgets(
        f"{name} writes an answer otherwise once more turns follow it (it drops the thinking, say)",
        remedy="train each answer in a sequence of its own: trained: last, one row per answer",
    )
