"""Chat templates as text: Jinja in a sandbox, rendered as `transformers` renders them, with the answers marked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from nacre.errors import CheckpointError, DataError
from nacre.lazy import require

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]

# What encloses an answer in the rendered text. Noncharacters: where a message holds one, it is marked like a token.
BEGINS, ENDS = "\ufdd0", "\ufdd1"
_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and the characters [start, end) that the template says the model writes."""

    text: str
    answers: tuple[tuple[int, int], ...] = ()


class Template:
    """One Jinja template. `roles` spells the special tokens by role (`bos`, `eos`, `pad`, `unk`); `today` is what
    templates write that name a day (None: the day it is)."""

    def __init__(self, source: str, roles: Mapping[str, str], today: datetime | None = None) -> None:
        self.marked = _MARKERS.search(source) is not None
        """Whether the template itself says what the model writes: `{% generation %} ... {% endgeneration %}`."""
        self._source, self._roles, self._today = source, dict(roles), today
        self._tokens = {f"{role}_token": roles.get(role, "") for role in ("bos", "eos", "pad", "unk")}
        sandbox = require("jinja2.sandbox")
        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_marking(), "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": self._date}
        try:
            self._template = environment.from_string(source)
        except require("jinja2").TemplateError as error:
            raise CheckpointError(f"the chat template is broken: {error}", remedy="fetch the model again") from error

    def __reduce__(self) -> tuple[type[Template], tuple[str, dict[str, str], datetime | None]]:
        return Template, (self._source, self._roles, self._today)

    def _date(self, form: str) -> str:
        return (self._today or datetime.now()).strftime(form)

    def render(self, messages: Messages, tools: Tools | None = None, *, answering: bool = False) -> Rendered:
        """The text of the conversation; `answering` ends it where the next answer begins. DataError if refused."""
        given = [{name: value for name, value in message.items() if value is not None} for message in messages]
        try:
            text: str = self._template.render(
                messages=given,
                add_generation_prompt=answering,
                tools=[dict(tool) for tool in tools] if tools else None,
                documents=None,
                **self._tokens,
            )
        except (require("jinja2").TemplateError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"the chat template refuses these messages: {error}",
                remedy="give roles and an order of turns that the template knows, or choose another template",
            ) from error
        return _unmarked(text)


def _unmarked(text: str) -> Rendered:
    """Takes the marks out; nested or repeated marks give their outermost spans."""
    pieces = re.split(f"([{BEGINS}{ENDS}])", text)
    position = depth = start = 0
    answers = []
    for piece in pieces:
        if piece == BEGINS:
            start = position if depth == 0 else start
            depth += 1
        elif piece == ENDS:
            depth -= 1
            answers += [(start, position)] if depth == 0 else []
        else:
            position += len(piece)
    return Rendered("".join(piece for piece in pieces if piece not in (BEGINS, ENDS)), tuple(answers))


@cache
def _marking() -> type[Any]:
    """The Jinja tag `generation`, an extension of `transformers`; jinja2 is imported when first asked for."""
    nodes, base = require("jinja2.nodes"), require("jinja2.ext").Extension

    class Marking(base):  # type: ignore[misc, valid-type]
        tags = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller: Any) -> str:
            return f"{BEGINS}{caller()}{ENDS}"

    return Marking


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options), indent=indent)


def _refuse(message: str) -> NoReturn:
    raise require("jinja2").TemplateError(message)
