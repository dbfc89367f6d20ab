"""A folder of prompt files: listed, searched, compared, and added to. Nothing in it is ever overwritten.

A prompt is known by the `name` and `version` of its front matter, whatever its file is called; two files that claim the
same are an error.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nacre.data.rows import is_han
from nacre.errors import ConfigError, closest
from nacre.tiers.prompt.file import PromptFile, load, with_version

SHIPPED = Path(__file__).with_name("library")
_WEIGHTS = {"name": 4.0, "tags": 3.0, "about": 2.0, "body": 1.0}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Found:
    """A prompt that answers a search; a higher score is a better match."""

    prompt: PromptFile
    score: float


class Library:
    """The prompts of a folder (by default the shipped ones), read once, when they are first asked for."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or SHIPPED
        self._prompts: dict[str, dict[int, PromptFile]] | None = None

    def list(self) -> Sequence[PromptFile]:
        """The newest version of every prompt, by name."""
        return [max(versions.values(), key=lambda one: one.version) for _, versions in sorted(self._read().items())]

    def versions(self, name: str) -> Sequence[PromptFile]:
        """Every version of a prompt, oldest first. Raises ConfigError that names what is close."""
        known = self._read()
        if name not in known:
            raise ConfigError(f"no prompt {name!r} in {self.folder}", remedy=closest(name, known))
        return [known[name][version] for version in sorted(known[name])]

    def get(self, name: str, version: int | None = None) -> PromptFile:
        """A prompt by name, the newest version by default; `name` may be `NAME@VERSION`."""
        name, version = _reference(name, version)
        versions = {one.version: one for one in self.versions(name)}
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            there = ", ".join(map(str, versions))
            raise ConfigError(f"{name} has no version {version}", remedy=f"versions: {there}")
        return versions[version]

    def search(self, words: str, n: int = 10) -> Sequence[Found]:
        """Prompts that hold any of the words, best first: rare words weigh more, and those of the name most.

        Chinese is matched by pairs of characters, other scripts by the beginning of words.
        """
        prompts = self.list()
        wanted = sorted(set(terms(words)))
        if not wanted:
            raise ConfigError(f"{words!r} holds no word to search by", remedy="give a word, such as summarise")
        texts = [_fields(one) for one in prompts]
        hits = [[_hit(term, fields) for term in wanted] for fields in texts]
        n_with = [sum(row[column] > 0 for row in hits) for column in range(len(wanted))]
        rarity = [math.log(1 + len(prompts) / count) if count else 0.0 for count in n_with]
        found = [
            Found(one, round(sum(hit * weight for hit, weight in zip(row, rarity, strict=True)), 4))
            for one, row in zip(prompts, hits, strict=True)
        ]
        return sorted((one for one in found if one.score > 0), key=lambda one: (-one.score, one.prompt.name))[:n]

    def diff(self, first: str, second: str) -> str:
        """A unified diff of two prompts' files (`NAME@VERSION`); empty where they are the same."""
        return diff(self.get(first), self.get(second))

    def save(self, prompt: PromptFile) -> PromptFile:
        """Adds a prompt as its name's next version, as `NAME@VERSION.md`, and gives it as saved.

        One that is the newest version already, word for word, is not saved again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prompts = None
        newest = max((one.version for one in self._read().get(prompt.name, {}).values()), default=0)
        if newest:
            last = self.get(prompt.name)
            if with_version(prompt, newest).source == last.source:
                return last
        while True:
            newest += 1
            saved = with_version(prompt, newest)
            path = self.folder / f"{saved.ref}.md"
            if not path.exists():
                saved.save(path)  # refuses where another process was faster
                self._prompts = None
                return load(path)

    def _read(self) -> dict[str, dict[int, PromptFile]]:
        if self._prompts is None:
            if not self.folder.is_dir():
                raise ConfigError(f"{self.folder} is no folder of prompts", remedy="give a folder of .md files")
            found: dict[str, dict[int, PromptFile]] = {}
            for path in sorted(self.folder.glob("*.md")):
                one = load(path)
                other = found.setdefault(one.name, {}).setdefault(one.version, one)
                if other is not one:
                    remedy = "raise the version of one of them"
                    raise ConfigError(f"{path} and {other.where} are both {one.ref}", remedy=remedy)
            self._prompts = found
        return self._prompts


def find(prompt: PromptFile | Path | str) -> PromptFile:
    """A prompt as it is, from the path of its file, or from the shipped library by `NAME` or `NAME@VERSION`."""
    if isinstance(prompt, PromptFile):
        return prompt
    if isinstance(prompt, Path) or prompt.endswith(".md") or "/" in prompt:
        return load(Path(prompt))
    return Library().get(prompt)


def diff(first: PromptFile, second: PromptFile) -> str:
    """A unified diff of two prompts' files; empty where they are the same."""
    before, after = (one.source.decode("utf-8-sig").splitlines(keepends=True) for one in (first, second))
    lines = difflib.unified_diff(before, after, first.ref, second.ref)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines)


def terms(text: str) -> Iterator[str]:
    """What a text is searched by: words without case, and of Chinese every pair of neighbouring characters."""
    for run in _WORD.findall(text.casefold()):
        for piece in _by_script(run):
            if is_han(piece[0]) and len(piece) > 1:
                yield from (piece[index : index + 2] for index in range(len(piece) - 1))
            else:
                yield piece


def _by_script(run: str) -> Sequence[str]:
    pieces: list[str] = []
    for character in run:
        if pieces and is_han(pieces[-1][-1]) == is_han(character):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _fields(prompt: PromptFile) -> dict[str, frozenset[str]]:
    texts = {"name": prompt.name, "tags": " ".join(prompt.head.tags), "about": prompt.head.about, "body": prompt.body}
    return {field: frozenset(terms(text)) for field, text in texts.items()}


def _hit(term: str, fields: dict[str, frozenset[str]]) -> float:
    def holds(known: frozenset[str]) -> bool:
        return term in known or ((len(term) > 3 or is_han(term[0])) and any(one.startswith(term) for one in known))

    return sum(_WEIGHTS[field] for field, known in fields.items() if holds(known))


def _reference(name: str, version: int | None) -> tuple[str, int | None]:
    bare, mark, number = name.partition("@")
    if not mark:
        return name, version
    if not number.isdecimal() or version is not None:
        raise ConfigError(f"{name!r} names no version", remedy="write NAME@2, say")
    return bare, int(number)
