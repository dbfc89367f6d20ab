"""A vague request becomes a structured prompt: by an engine that understands it, or by rules that only fill a scaffold.

Which of the two ran is said in `Rewritten.method`; neither ever stands in for the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.engine.protocol import Engine, EngineError, Usage, unsupported
from nacre.errors import ConfigError
from nacre.tiers.asking.parsing import bare, json_in
from nacre.tiers.prompt.file import Head, PromptFile, PromptInput, compose
from nacre.tiers.prompt.instruction import literal
from nacre.tiers.prompt.library import Library
from nacre.tiers.prompt.rules import Scaffold, fill, language_of

_MARK = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_TEXTS = ("name", "about", "role", "context", "task", "output_format")
_LISTS = ("constraints", "examples", "questions")
_HEADINGS: Mapping[str, Mapping[str, str]] = {
    "en": {"role": "Role", "context": "Context", "constraints": "Constraints", "output_format": "Output",
           "examples": "Examples", "task": "Task", "inputs": "Given"},
    "zh": {"role": "角色", "context": "背景", "constraints": "要求", "output_format": "输出", "examples": "示例",
           "task": "任务", "inputs": "已知"},
}  # fmt: skip


@dataclass(frozen=True)
class Rewritten:
    """A prompt made from a request. `method` is `rules`, or `engine NAME (MODEL)`. `questions` are what is still open;
    `remarks` what was put right in the engine's answer."""

    prompt: PromptFile
    method: str
    language: str
    questions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "method": self.method,
            "language": self.language,
            "questions": list(self.questions),
            "remarks": list(self.remarks),
            "prompt": self.prompt.to_dict(),
            "source": self.prompt.source.decode(),
        }


def rewrite(request: str, engine: Engine | None = None, *, language: str | None = None) -> Rewritten:
    """A structured prompt for a request, in its language (`en` or `zh`; found from the request unless given).

    Without an engine a scaffold is filled by rules. With one, its answer is parsed strictly: EngineError where it is
    not what was asked for, Unsupported where the engine cannot chat. ConfigError for an empty request.
    """
    if not request.strip():
        raise ConfigError("the request is empty", remedy="say in a few words what the model should do")
    language = language or language_of(request)
    if language not in _HEADINGS:
        raise ConfigError(f"no wording for the language {language!r}", remedy="give en or zh")
    if engine is not None:
        return _by_engine(request.strip(), engine, language)
    scaffold = fill(request.strip(), language)
    return Rewritten(_from_scaffold(scaffold, language), "rules", language, scaffold.questions)


def _from_scaffold(scaffold: Scaffold, language: str) -> PromptFile:
    head = Head(scaffold.name, 1, scaffold.about, language, tags=(scaffold.kind, "rewritten"))
    return compose(head, scaffold.inputs, scaffold.body, "the rewritten request")


def _by_engine(request: str, engine: Engine, language: str) -> Rewritten:
    if not engine.capabilities.chat:
        raise unsupported(engine, "chat")
    meta = Library().get(f"rewrite-{language}")
    written = engine.generate([meta.render(request=request)], meta.head.model.sampling())[0]
    if written.stopped != "end" and written.stopped != "stop":
        raise _unusable(engine, f"it ended early ({written.stopped})", written.text)
    try:
        values = _checked(json_in(bare(written.text)))
        inputs = {name: PromptInput(about) for name, about in values["inputs"].items()}
        body, remarks = _body(values, language)
        head = Head(values["name"], 1, values["about"], language, tags=("rewritten",))
        prompt = compose(head, inputs, body, "the rewritten request")
    except (ValueError, ConfigError) as error:
        why = error.message if isinstance(error, ConfigError) else str(error)
        raise _unusable(engine, why, written.text) from error
    method = f"engine {engine.name} ({written.model})"
    return Rewritten(prompt, method, language, tuple(values["questions"]), remarks, written.usage)


def _checked(value: Any) -> dict[str, Any]:
    """The object that the meta prompt asks for; ValueError says what is wrong with it."""
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    wanted = {*_TEXTS, *_LISTS, "inputs"}
    wrong = sorted(wanted ^ set(value))
    if wrong:
        raise ValueError(f"its keys are not those that were asked for ({', '.join(wrong)})")
    for name in _TEXTS:
        if not isinstance(value[name], str) or (name in ("name", "about", "task") and not value[name].strip()):
            raise ValueError(f"{name} is no text")
    for name in _LISTS:
        if not isinstance(value[name], list) or not all(isinstance(one, str) for one in value[name]):
            raise ValueError(f"{name} is no list of texts")
    inputs = value["inputs"]
    if not isinstance(inputs, dict) or not all(isinstance(about, str) for about in inputs.values()):
        raise ValueError("inputs is no object of texts")
    return value


def _body(values: Mapping[str, Any], language: str) -> tuple[str, tuple[str, ...]]:
    """The template, and what had to be put right: inputs that stand nowhere are listed before the task."""
    headings, inputs = _HEADINGS[language], list(values["inputs"])
    every = [*(values[name] for name in _TEXTS if name != "name"), *values["constraints"], *values["examples"]]
    named = {found for text in every for found in _MARK.findall(text)}
    unknown = sorted(named - set(inputs))
    if unknown:
        raise ValueError(f"it uses the inputs {', '.join(unknown)} and does not declare them")
    system = [_section(headings[name], values[name], inputs) for name in ("role", "context")]
    system.append(_section(headings["constraints"], _bullets(values["constraints"]), inputs))
    system.append(_section(headings["output_format"], values["output_format"], inputs))
    system.append(_section(headings["examples"], _bullets(values["examples"]), inputs))
    about_only = set(_MARK.findall(values["about"]))
    used = {found for text in every[1:] for found in _MARK.findall(text)}
    left = [name for name in inputs if name not in used]
    given = "\n".join(f"- {name}: {{{{ {name} }}}}" for name in left)
    user = [_section(headings["inputs"], given, inputs), _section(headings["task"], values["task"], inputs)]
    said = "\n\n".join(part for part in system if part)
    body = (f"# system\n{said}\n" if said else "") + "# user\n" + "\n\n".join(part for part in user if part)
    remarks = (f"inputs that stood in no section were listed: {', '.join(left)}",) if left else ()
    return body, (*remarks, "the sentence about the prompt names inputs") if about_only else remarks


def _section(heading: str, text: str, inputs: Sequence[str]) -> str:
    return f"## {heading}\n{_template(text.strip(), inputs)}" if text.strip() else ""


def _template(text: str, inputs: Sequence[str]) -> str:
    """The text as a template in which only the inputs are filled in: all else is literal, whatever an engine wrote."""
    pieces = [
        f"{{{{ {part} }}}}" if index % 2 and part in inputs else literal(part, edges=True)
        for index, part in enumerate(_MARK.split(text))
    ]
    return "".join(pieces)


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text.strip()}" for text in texts if text.strip())


def _unusable(engine: Engine, why: str, text: str) -> EngineError:
    beginning = " ".join(text.split())[:120]
    return EngineError(
        f"{engine.name} did not write a prompt: {why}; it wrote: {beginning or '(nothing)'}",
        remedy="try a stronger model, or rewrite without an engine: rules then fill a scaffold",
    )
