"""The body of a prompt file: split into messages, checked against the declared inputs, rendered. Imports jinja2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import TracebackType
from typing import Any, cast

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError

from nacre.errors import ConfigError, closest
from nacre.tiers.prompt import sandbox
from nacre.tiers.prompt.file import PromptFile, Role

ROLES = ("system", "user", "assistant")
_HEADING = re.compile(r"# +(\w+)\s*")
_FENCE = re.compile(r"\s{0,3}(```+|~~~+)")

# What a template can raise: Jinja's own errors, and Python's about the values that it was given.
_FAILURES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Part:
    """One message: its role, its template, the line of the file where it begins."""

    role: Role
    line: int
    template: Template


def parts_of(prompt: PromptFile) -> Sequence[Part]:
    """The messages of a prompt. Raises ConfigError with file and line for every kind of mistake."""
    environment = sandbox.PromptEnvironment()
    sections = list(_sections(prompt))
    _check_order(prompt, sections)
    parts, used = [], dict[str, int]()
    for role, source, line in sections:
        try:
            tree = sandbox.parse(environment, source)
        except TemplateSyntaxError as error:
            place = f"{prompt.where}, line {line - 1 + error.lineno}"
            raise ConfigError(f"{place}: {error.message}", remedy=_remedy(error)) from None
        except RecursionError:
            raise ConfigError(f"{prompt.where}, line {line}: nested too deeply", remedy="write it flatter") from None
        for name, where in sandbox.undeclared(tree).items():
            used.setdefault(name, line - 1 + where)
        parts.append(Part(role, line, sandbox.compiled(environment, tree, prompt.where)))
    _check_inputs(prompt, used)
    return tuple(parts)


def rendered(prompt: PromptFile, part: Part, values: Mapping[str, Any]) -> str:
    """The text of one message, without blank lines at its ends. Raises ConfigError where the template fails."""
    try:
        text = sandbox.filled(part.template, values)
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        line = _line(error.__traceback__, prompt.where)
        place = f"{prompt.where}, line {part.line - 1 + line}" if line else prompt.where
        kind = "refused" if isinstance(error, SecurityError) else "cannot be rendered"
        remedy = "look at the value that stands there" if isinstance(error, UndefinedError) else "correct this line"
        raise ConfigError(f"{place}: {kind}: {error}", remedy=remedy) from error
    return text.strip("\n")


def _sections(prompt: PromptFile) -> Iterator[tuple[Role, str, int]]:
    """(role, template, line) of each message, in order."""
    role, begun, kept = "", prompt.body_line, list[str]()
    fence = ""
    for number, line in enumerate(prompt.body.split("\n"), prompt.body_line):
        mark = _FENCE.match(line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else _HEADING.fullmatch(line)
        if heading is None or not _names_role(heading[1], prompt, number):
            kept.append(line)
            continue
        if role:
            yield cast(Role, role), "\n".join(kept), begun
        elif any(one.strip() for one in kept):
            what = f"{prompt.where}, line {prompt.body_line}: text stands before the first heading"
            raise ConfigError(what, remedy="begin with # system or # user")
        role, begun, kept = heading[1], number + 1, []
    yield cast(Role, role or "user"), "\n".join(kept), begun


def _names_role(word: str, prompt: PromptFile, line: int) -> bool:
    if word in ROLES:
        return True
    near = get_close_matches(word.casefold(), ROLES, n=1, cutoff=0.8)
    if near:
        what = f"{prompt.where}, line {line}: the heading # {word} is nearly a role"
        raise ConfigError(what, remedy=f"write # {near[0]} for a message, ## {word} for a heading")
    return False


def _check_order(prompt: PromptFile, sections: Sequence[tuple[Role, str, int]]) -> None:
    roles = [role for role, _, _ in sections]
    if prompt.head.model.engine != "chat" and (len(roles) > 1 or roles[0] != "user"):
        raise ConfigError(
            f"{prompt.where}: a text to {prompt.head.model.engine} has no messages", remedy="take the headings out"
        )
    for role, source, line in sections:
        if not source.strip():
            raise ConfigError(f"{prompt.where}, line {line - 1}: nothing follows # {role}", remedy="write the message")
    for (role, _, line), first in zip(sections, [True, *[False] * len(sections)], strict=False):
        if role == "system" and not first:
            remedy = "put what it says into the first message"
            raise ConfigError(f"{prompt.where}, line {line - 1}: # system stands first or not at all", remedy=remedy)
    if roles[-1] != "user":
        what = f"{prompt.where}, line {sections[-1][2] - 1}: the last message is of the {roles[-1]}"
        raise ConfigError(what, remedy="end with # user: what the model answers")


def _check_inputs(prompt: PromptFile, used: Mapping[str, int]) -> None:
    for name, line in used.items():
        if name not in prompt.inputs:
            known = closest(name, prompt.inputs)
            remedy = f"declare it under inputs, or correct it ({known})"
            raise ConfigError(f"{prompt.where}, line {line}: {name!r} is not an input", remedy=remedy)
    for name in prompt.inputs:
        if name not in used:
            what = f"{prompt.where}: front matter.inputs.{name}: the template never uses it"
            raise ConfigError(what, remedy=f"write {{{{ {name} }}}} where it belongs, or take it out")


def _remedy(error: TemplateSyntaxError) -> str:
    message = error.message or ""
    if message.startswith("no filter"):
        return closest(message.split("'")[1], sandbox.PromptEnvironment().filters)
    if "not part of" in message:
        return "use {{ }}, if, for and set; write the text out instead"
    return "correct the template; a section's {% if %} and {% for %} end inside it"


def _line(trace: TracebackType | None, where: str) -> int | None:
    """The line of the template in which an error arose: Jinja gives its frames the template's name."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == where:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
