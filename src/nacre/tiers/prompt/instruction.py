"""Between an instruction as an engine is asked and a prompt file: either can be made from the other.

The file is the truth of a rung: it holds the whole chat, and `{{ question }}` where the row stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nacre.engine.protocol import Message
from nacre.errors import ConfigError
from nacre.tiers.asking.wording import Demonstration, Instruction, frame_of, is_chinese
from nacre.tiers.prompt.file import Head, ModelHints, PromptFile, PromptInput, compose
from nacre.tiers.task import Task

QUESTION = "question"
_TEMPLATE = re.compile(r"\{[{%#]|\{\Z|\r")
_LINE = re.compile(r"^(#|\s{0,3}[`~])", re.MULTILINE)
_ABOUT_CHARACTERS = 160


def to_prompt(task: Task, instruction: Instruction, tags: Sequence[str] = ()) -> PromptFile:
    """The prompt file that asks as `wording.messages` asks with this instruction."""
    frame = frame_of(task) if instruction.frame is None else instruction.frame
    system = "\n\n".join(part for part in (instruction.text.strip(), frame.strip()) if part)
    turns = [("system", system)] if system else []
    for one in instruction.demonstrations:
        turns += [("user", one.asked), ("assistant", one.answered)]
    body = "\n".join(f"# {role}\n{literal(text)}" for role, text in turns)
    about = " ".join(task.about.split())[:_ABOUT_CHARACTERS] or task.name
    chinese = is_chinese(task.language)
    question = "标记之间的文本" if chinese else "the text, between marks, as the instruction says"
    head = Head(
        name=prompt_name(task.name),
        version=1,
        about=about,
        language=task.language,
        model=ModelHints(temperature=0.0),
        tags=(task.kind, *tags),
    )
    return compose(head, {QUESTION: PromptInput(question)}, f"{body}\n# user\n{{{{ {QUESTION} }}}}", "prompt.md")


def from_prompt(prompt: PromptFile) -> Instruction:
    """The instruction that a prompt file holds. Raises ConfigError for one of another shape."""
    mark = "\u0000"
    messages = prompt.render(**{QUESTION: mark})
    if isinstance(messages, str) or messages[-1].content != mark:
        what = f"{prompt.where}: the last message is not {{{{ {QUESTION} }}}} alone"
        raise ConfigError(what, remedy=f"end with # user and {{{{ {QUESTION} }}}}")
    system = messages[0].content if messages[0].role == "system" else ""
    turns = messages[bool(system) : -1]
    if [one.role for one in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise ConfigError(f"{prompt.where}: examples are no pairs", remedy="write # user, # assistant in turns")
    return Instruction(system, tuple(_pairs(turns)), frame="")


def literal(text: str, *, edges: bool = False) -> str:
    """A template that renders to this very text, whatever stands in it; line breaks at its ends stay with `edges`."""
    text = text if edges else text.strip("\n")
    safe = _TEMPLATE.sub(lambda found: f'{{{{ "{_QUOTED.get(found[0], found[0])}" }}}}', text)
    return _LINE.sub(lambda found: f'{found[1][:-1]}{{{{ "{found[1][-1]}" }}}}', safe)


def prompt_name(text: str) -> str:
    """A name for a prompt, from any text."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-._") or "prompt"


_QUOTED = {"\r": "\\r"}


def _pairs(turns: Sequence[Message]) -> list[Demonstration]:
    return [Demonstration(turns[at].content, turns[at + 1].content) for at in range(0, len(turns), 2)]
