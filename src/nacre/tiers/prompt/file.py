"""A prompt file: Markdown with a YAML front matter, the body a template of one text or of a chat.

    ---
    name: sort-mail
    version: 1
    about: Say what a letter is about.
    language: en
    inputs:
      letter: {about: the letter as it came}
      topics: {about: what to choose from, type: list}
    model: {engine: chat, temperature: 0, max_tokens: 16}
    tags: [classify]
    ---
    # system
    Answer with one of: {{ topics | join(", ") }}.
    # user
    {{ letter }}

Lines that are `# system`, `# user` or `# assistant` and nothing else, outside of code fences, begin the messages of a
chat; a body without them is one message of the user, or a plain text for `engine: complete`. The *file* is split, never
what was rendered: an input that holds such a line stays inside its message.

Close to dotprompt (https://google.github.io/dotprompt): front matter, declared inputs with defaults, model settings,
roles. Different: Jinja for Handlebars; headings for `{{role}}`; `inputs` says type, default and meaning in one place;
`model` says what kind of engine and how to sample, not whose; a version is a number; there are no tools, media and
partials; and whatever is unknown, undefined or superfluous is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nacre.engine.protocol import Message, Prompt, Sampling
from nacre.errors import ConfigError, closest
from nacre.lazy import require

if TYPE_CHECKING:
    from nacre.tiers.prompt.template import Part

Role = Literal["system", "user", "assistant"]
InputType = Literal["text", "integer", "number", "boolean", "list", "object"]
_NAME = re.compile(r"[\w][\w.-]*", re.UNICODE)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FENCE = "---"
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "text": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "list": (list, tuple),
    "object": dict,
}


@dataclass(frozen=True)
class PromptInput:
    """What a prompt wants to be told. One with a `default` need not be given; so does one that is not `required`,
    which is then the empty value of its type."""

    about: str = ""
    required: bool = True
    default: Any = None
    type: InputType = "text"


@dataclass(frozen=True)
class ModelHints:
    """For what engine a prompt is written, and how it samples best; None leaves the choice to the caller."""

    engine: Literal["chat", "complete", "embed"] = "chat"
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def sampling(self, base: Sampling | None = None) -> Sampling:
        """`base` with what the prompt asks for."""
        base = base or Sampling()
        return replace(
            base,
            temperature=base.temperature if self.temperature is None else self.temperature,
            max_tokens=base.max_tokens if self.max_tokens is None else self.max_tokens,
            stop=self.stop or base.stop,
        )


@dataclass(frozen=True)
class Head:
    """The front matter."""

    name: str
    version: int
    about: str
    language: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    model: ModelHints = field(default_factory=ModelHints)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptFile:
    """A prompt. `source` is the file byte for byte: what is saved and what the digest covers; `where` names it."""

    head: Head
    inputs: Mapping[str, PromptInput]
    source: bytes
    body: str
    body_line: int
    where: str = field(compare=False, default="a prompt")

    @property
    def name(self) -> str:
        return self.head.name

    @property
    def version(self) -> int:
        return self.head.version

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """`sha256:` of the file's bytes."""
        return "sha256:" + hashlib.sha256(self.source).hexdigest()

    @cached_property
    def parts(self) -> Sequence[Part]:
        """The messages as templates. Raises ConfigError where one is wrong."""
        require("jinja2")
        from nacre.tiers.prompt.template import parts_of

        return parts_of(self)

    def render(self, **inputs: Any) -> Prompt:
        """The messages, or for `engine: complete` the text. Raises ConfigError for missing, superfluous or wrong
        inputs, and for a template that fails."""
        from nacre.tiers.prompt.template import rendered

        values = self._values(inputs)
        texts = [(part.role, rendered(self, part, values)) for part in self.parts]
        if self.head.model.engine != "chat":
            return texts[0][1]
        return tuple(Message(role, text) for role, text in texts)

    def save(self, path: Path) -> None:
        """Writes the file as it is. Raises ConfigError where one is there: versions are kept."""
        try:
            with path.open("xb") as file:
                file.write(self.source)
        except FileExistsError:
            raise ConfigError(f"{path} exists", remedy="save under another name, or as a new version") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "version": self.version,
            "about": self.head.about,
            "language": self.head.language,
            "inputs": {
                name: {one.name: getattr(value, one.name) for one in fields(value)}
                for name, value in self.inputs.items()
            },
            "model": {one.name: getattr(self.head.model, one.name) for one in fields(self.head.model)},
            "tags": list(self.head.tags),
            "digest": self.digest,
            "where": self.where,
            "body": self.body,
        }

    def _values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        for name in given:
            if name not in self.inputs:
                raise ConfigError(f"{self.ref} has no input {name!r}", remedy=closest(name, self.inputs))
        missing = [name for name, one in self.inputs.items() if one.required and name not in given]
        if missing:
            told = "; ".join(f"{name}: {self.inputs[name].about or 'no description'}" for name in missing)
            raise ConfigError(f"{self.ref} needs the input {', '.join(missing)}", remedy=f"give {told}")
        values = {name: given.get(name, one.default) for name, one in self.inputs.items()}
        for name, value in values.items():
            _check_type(value, self.inputs[name].type, f"the input {name!r} of {self.ref}")
        return values


def load(path: Path) -> PromptFile:
    """The prompt of a file. Raises ConfigError with file and line."""
    try:
        return loads(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", remedy=_nearby(path)) from None
    except (IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy="give the path of a prompt file") from None


def loads(source: bytes, where: str) -> PromptFile:
    """The prompt of a file's bytes. `where` is named in errors. Everything that can be wrong is told here."""
    from nacre.recipe.config import build

    text = _decoded(source, where)
    head_text, body, body_line = _split(text, where)
    fields_ = _front_matter(head_text, where)
    place = f"{where}: front matter"
    head = build(Head, fields_, place)
    prompt = PromptFile(head, _inputs(head, place), source, body, body_line, where)
    _check_head(head, place)
    _ = prompt.parts
    return prompt


def compose(head: Head, inputs: Mapping[str, PromptInput], body: str, where: str = "a prompt") -> PromptFile:
    """A prompt from its parts, written as a file would be."""
    import yaml

    plain: dict[str, Any] = {"name": head.name, "version": head.version, "about": head.about}
    plain |= {"language": head.language} if head.language else {}
    plain |= {"inputs": {name: _changed(one) for name, one in inputs.items()}} if inputs else {}
    hints = _changed(head.model)
    plain |= {"model": hints} if hints else {}
    plain |= {"tags": list(head.tags)} if head.tags else {}
    text = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=110)
    return loads(f"{_FENCE}\n{text}{_FENCE}\n{body.rstrip()}\n".encode(), where)


def with_version(prompt: PromptFile, version: int) -> PromptFile:
    """The same prompt under another version: only that line of the file changes."""
    head, fence, rest = prompt.source.partition(b"\n---")
    pattern = re.compile(rb"^(version:[ \t]*)[0-9]+", re.MULTILINE)
    changed, count = pattern.subn(rb"\g<1>" + str(version).encode(), head)
    if count != 1:
        raise ConfigError(f"{prompt.where}: no line `version: NUMBER`", remedy="write the version on a line of its own")
    return loads(changed + fence + rest, prompt.where)


def _changed(value: Any) -> dict[str, Any]:
    """The fields that differ from their defaults, as YAML writes them."""
    kept = {one.name: getattr(value, one.name) for one in fields(value) if getattr(value, one.name) != one.default}
    return {name: list(one) if isinstance(one, tuple) else one for name, one in kept.items()}


def _decoded(source: bytes, where: str) -> str:
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source[: error.start].count(b"\n") + 1
        raise ConfigError(f"{where}, line {line}: not UTF-8 at byte {error.start}", remedy="save it as UTF-8") from None
    return text.replace("\r\n", "\n")


def _split(text: str, where: str) -> tuple[str, str, int]:
    lines = text.split("\n")
    if lines[0].rstrip() != _FENCE:
        remedy = "begin the file with ---, then name, version and about, then ---"
        raise ConfigError(f"{where}, line 1: no front matter", remedy=remedy)
    ends = [number for number, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE]
    if not ends:
        raise ConfigError(f"{where}, line 1: the front matter has no end", remedy="close it with a line of ---")
    body = "\n".join(lines[ends[0] + 1 :])
    if not body.strip():
        raise ConfigError(f"{where}, line {ends[0] + 1}: nothing follows the front matter", remedy="write the prompt")
    return "\n".join(lines[1 : ends[0]]), body, ends[0] + 2


def _front_matter(text: str, where: str) -> Mapping[str, Any]:
    from nacre.recipe.yaml12 import loads as load_yaml

    values = load_yaml("\n" + text, where)  # the blank line stands for the fence, so that lines are the file's
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: the front matter is no mapping", remedy="write `name: value` lines")
    return values


def _inputs(head: Head, where: str) -> dict[str, PromptInput]:
    from nacre.recipe.config import build

    found = {}
    for name, plain in head.inputs.items():
        place = f"{where}.inputs.{name}"
        if not _IDENTIFIER.fullmatch(name) or name.startswith("_") or name in ("range", "loop"):
            raise ConfigError(f"{place}: {name!r} is no name of an input", remedy="use letters, digits and _: text")
        given = {} if plain is None else {"about": plain} if isinstance(plain, str) else plain
        if not isinstance(given, Mapping):
            raise ConfigError(f"{place}: neither a description nor a mapping", remedy="write {about: ...}")
        one = build(PromptInput, given, place)
        if "default" in given:
            if given.get("required"):
                raise ConfigError(f"{place}: required, and it has a default", remedy="take one of the two out")
            _check_type(one.default, one.type, f"{place}.default")
            one = replace(one, required=False)
        elif not one.required:
            kinds = _KINDS[one.type]
            one = replace(one, default=(kinds[0] if isinstance(kinds, tuple) else kinds)())
        found[name] = one
    return found


def _check_head(head: Head, where: str) -> None:
    if not _NAME.fullmatch(head.name):
        raise ConfigError(f"{where}.name: {head.name!r} is no name", remedy="use letters, digits, - and .: sort-mail")
    if head.version < 1:
        raise ConfigError(f"{where}.version: {head.version}", remedy="count from 1")
    hints = head.model
    if hints.temperature is not None and not 0 <= hints.temperature <= 2:
        raise ConfigError(f"{where}.model.temperature: {hints.temperature}", remedy="give 0 (greedy) to 2")
    if hints.max_tokens is not None and hints.max_tokens < 1:
        raise ConfigError(f"{where}.model.max_tokens: {hints.max_tokens}", remedy="give 1 or more")


def _check_type(value: Any, kind: str, where: str) -> None:
    right = isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if not right:
        raise ConfigError(f"{where} is {type(value).__name__}, not {kind}", remedy=f"give a value of the type {kind}")


def _nearby(path: Path) -> str:
    near = sorted(path.parent.glob("*.md")) if path.parent.is_dir() else []
    return closest(path.name, [one.name for one in near]) if near else "check the path"
