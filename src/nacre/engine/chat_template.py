"""Messages to one text, by the Jinja template of a tokenizer folder, in a sandbox; then to ids without injection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from nacre.data.tokenizer import Tokenizer
from nacre.engine.protocol import Message
from nacre.errors import CheckpointError, DataError
from nacre.lazy import require

_PRIVATE = range(0xE000, 0xF8FF)


class ChatTemplate:
    """The template of a folder, rendered as `transformers` renders it, ready for an answer."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        sandbox = require("jinja2.sandbox")
        environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": datetime.now().strftime}
        try:
            self._template = environment.from_string(source)
        except require("jinja2").TemplateError as error:
            raise CheckpointError(f"the chat template is broken: {error}", remedy="fetch the model again") from error

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

    def render(self, messages: Sequence[Message]) -> str:
        """The text of the conversation, up to where the answer begins."""
        roles = self.tokenizer.roles
        try:
            text: str = self._template.render(
                messages=[{"role": one.role, "content": one.content} for one in messages],
                add_generation_prompt=True,
                bos_token=roles.get("bos", ""),
                eos_token=roles.get("eos", ""),
                pad_token=roles.get("pad", ""),
                unk_token=roles.get("unk", ""),
                tools=None,
                documents=None,
            )
        except require("jinja2").TemplateError as error:
            raise DataError(
                f"the chat template refuses these messages: {error}",
                remedy="give a user message last, and no roles that the model does not know",
            ) from error
        return text

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the rendered text: control tokens where the template puts them, never where a message spells one.

        One start token: the template's, or else the one with which the tokenizer begins every text.
        """
        controls = [self.tokenizer.token(index) for index in sorted(self.tokenizer.special_ids)]
        spelled = [token for token in controls if any(token in message.content for message in messages)]
        everything = "".join(message.content for message in messages)
        free = (chr(code) for code in _PRIVATE if chr(code) not in everything)
        marks = {next(free): token for token in sorted(spelled, key=len, reverse=True)}
        text = self.render([Message(one.role, _marked(one.content, marks)) for one in messages])
        ids: list[int] = []
        piece = ""
        for char in text:
            if char in marks:
                ids += self._encode(piece, literal=False) + self._encode(marks[char], literal=True)
                piece = ""
            else:
                piece += char
        ids += self._encode(piece, literal=False)
        framed, bos = self.tokenizer.frame([]), self.tokenizer.bos_id
        begins = bos is not None and framed[:1] == [bos] and ids[:1] != [bos]
        return [*framed[:1], *ids] if begins else ids

    def _encode(self, text: str, *, literal: bool) -> list[int]:
        return self.tokenizer.encode(text, add_special=False, allow_special=not literal) if text else []


def _marked(content: str, marks: dict[str, str]) -> str:
    for mark, token in marks.items():
        content = content.replace(token, mark)
    return content


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    raise require("jinja2").TemplateError(message)
