"""How much generated text is copied from the training set, and how varied it is.

Texts are compared as units: characters for Chinese, words and signs for code (`units`), so that lengths mean
something to a reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+|[^\w\s]")
_SPACE = re.compile(r"\s+")
_SIGNS = re.compile(r"[\s，。！？；、：,.!?;:]+")

Units = Callable[[str], Sequence[str]]


def characters(text: str) -> Sequence[str]:
    """The text's characters without blanks and punctuation: what a copied verse is counted in."""
    return _SIGNS.sub("", text)


def words(text: str) -> Sequence[str]:
    """Words and single signs: what copied code or prose is counted in."""
    return _WORD.findall(text)


class _Automaton:
    """The suffix automaton of one sequence (Blumer et al. 1985): every substring is a path from state 0."""

    def __init__(self, sequence: Iterable[str]) -> None:
        self.next: list[dict[str, int]] = [{}]
        self.link: list[int] = [-1]
        self.length: list[int] = [0]
        self.prefix_state: list[int] = []
        last = 0
        for unit in sequence:
            last = self._extend(last, unit)
            self.prefix_state.append(last)

    def _extend(self, last: int, unit: str) -> int:
        state = self._add({}, self.length[last] + 1)
        walk = last
        while walk != -1 and unit not in self.next[walk]:
            self.next[walk][unit] = state
            walk = self.link[walk]
        if walk == -1:
            self.link[state] = 0
            return state
        target = self.next[walk][unit]
        if self.length[target] == self.length[walk] + 1:
            self.link[state] = target
            return state
        clone = self._add(dict(self.next[target]), self.length[walk] + 1)
        self.link[clone] = self.link[target]
        self.link[target] = self.link[state] = clone
        while walk != -1 and self.next[walk].get(unit) == target:
            self.next[walk][unit] = clone
            walk = self.link[walk]
        return state

    def _add(self, edges: dict[str, int], length: int) -> int:
        self.next.append(edges)
        self.link.append(0)
        self.length.append(length)
        return len(self.next) - 1

    def read(self, sequence: Iterable[str], best: list[int]) -> None:
        """Feeds a text; `best[state]` becomes the longest substring of it that ended in that state."""
        state = matched = 0
        for unit in sequence:
            while state and unit not in self.next[state]:
                state = self.link[state]
                matched = self.length[state]
            following = self.next[state].get(unit)
            if following is None:
                continue
            state, matched = following, matched + 1
            if matched > best[state]:
                best[state] = matched

    def ends(self, best: list[int]) -> list[int]:
        """For each position of the own sequence: the longest read substring that ends there."""
        order = sorted(range(1, len(self.length)), key=self.length.__getitem__)
        for state in reversed(order):  # who contains a match contains its suffixes
            parent = self.link[state]
            if best[state] and parent > 0:
                best[parent] = self.length[parent]
        reached = list(best)
        for state in order:
            if not reached[state]:
                reached[state] = reached[self.link[state]]
        return [reached[state] for state in self.prefix_state]


def longest_shared(samples: Sequence[str], training: Iterable[str], units: Units = characters) -> list[int]:
    """For each sample, the length in units of its longest run that stands in one training text.

    Exact. Time grows with the samples plus the training text, memory with the samples only.
    """
    cut = [list(units(sample)) for sample in samples]
    automaton = _Automaton(unit for sample in cut for unit in (*sample, "\x00"))
    best = [0] * len(automaton.length)
    for text in training:
        automaton.read((unit for unit in units(text) if unit != "\x00"), best)
    ends, position, result = automaton.ends(best), 0, []
    for sample in cut:
        result.append(max(ends[position : position + len(sample)], default=0))
        position += len(sample) + 1
    return result


def _line_keys(text: str, minimum: int) -> list[str]:
    """Lines as they are compared: for prose with Chinese signs a verse is a line; blanks at the ends do not count."""
    parts = re.split(r"[\n。！？；，]", text)
    keys = (_SPACE.sub(" ", part).strip() for part in parts)
    return [key for key in keys if len(key) >= minimum]


@dataclass(frozen=True)
class Novelty:
    """Shares in 0..1 over all samples. `longest` holds one length per sample, in units."""

    copied_lines: float
    copied_texts: float
    longest: tuple[int, ...]
    lines: int

    @property
    def longest_median(self) -> float:
        """The median of the longest shared runs."""
        ordered = sorted(self.longest)
        middle = len(ordered) // 2
        if not ordered:
            return 0.0
        return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def novelty(samples: Sequence[str], training: Sequence[str], units: Units = characters, min_line: int = 5) -> Novelty:
    """Copied lines (of at least `min_line` characters), copied whole texts, longest shared runs."""
    known_lines = {key for text in training for key in _line_keys(text, min_line)}
    known_texts = {"".join(characters(text)) for text in training}
    keys = [key for sample in samples for key in _line_keys(sample, min_line)]
    copies = sum("".join(characters(sample)) in known_texts for sample in samples)
    return Novelty(
        copied_lines=sum(key in known_lines for key in keys) / len(keys) if keys else 0.0,
        copied_texts=copies / len(samples) if samples else 0.0,
        longest=tuple(longest_shared(samples, training, units)),
        lines=len(keys),
    )


def distinct(samples: Sequence[str], n: int, units: Units = characters) -> float:
    """distinct-n: different n-grams over all n-grams of all samples (Li et al. 2016, section 5). 0 without n-grams."""
    grams = [tuple(cut[i : i + n]) for cut in map(units, samples) for i in range(len(cut) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
