"""Stored names taken apart: which stack, which layer, which expert, and what is left.

`model.layers.3.mlp.experts.5.w1.weight` is stack `model.layers`, layer 3, expert 5, path `mlp.experts.w1`, part
`weight`. Only numbers that stand alone between dots count, as every public format writes them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from nacre.lifecycle.audit.kernel.lexicon import ENDINGS, INERT

_INERT = re.compile("|".join(f"(?:{one})" for one in INERT), re.IGNORECASE)
_EXPERT_WORD = re.compile(r"experts?|local_experts")


@dataclass(frozen=True)
class Parsed:
    """One name taken apart. `layer` is None outside a stack; `template` is the name with its layer and expert open."""

    name: str
    stack: str
    layer: int | None
    expert: int | None
    path: str
    part: str
    template: str


def is_inert(name: str) -> bool:
    """Whether a tensor of this name is a buffer or a relic (rotary tables, masks, scales of quantised weights)."""
    return _INERT.fullmatch(name) is not None


def parse(names: Iterable[str]) -> list[Parsed]:
    """Every name taken apart, in their order."""
    return [_parse(name) for name in names]


def by_stack(parsed: Iterable[Parsed]) -> dict[str, list[Parsed]]:
    """Names inside layers, by their stack's prefix."""
    stacks: dict[str, list[Parsed]] = defaultdict(list)
    for one in parsed:
        if one.layer is not None:
            stacks[one.stack].append(one)
    return dict(stacks)


def templated(name: str) -> str:
    """A name with every number between dots left open: `model.layers.{i}.ln1.weight`."""
    return re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)|(?<=\.)\d+$", "{i}", name)


def _parse(name: str) -> Parsed:
    words = name.replace("/", ".").split(".")
    numbers = [index for index, word in enumerate(words) if word.isdigit()]
    if not numbers or numbers[0] == len(words) - 1:
        path, part = _ending(".".join(words))
        return Parsed(name, "", None, None, path, part, ".".join(words))
    first = numbers[0]
    expert_at = next((at for at in numbers[1:] if _EXPERT_WORD.fullmatch(words[at - 1])), None)
    rest = [word for at, word in enumerate(words) if at > first and at != expert_at]
    path, part = _ending(".".join(rest))
    opened = ["{i}" if at == first else "{e}" if at == expert_at else word for at, word in enumerate(words)]
    expert = None if expert_at is None else int(words[expert_at])
    return Parsed(name, ".".join(words[:first]), int(words[first]), expert, path, part, ".".join(opened))


def _ending(path: str) -> tuple[str, str]:
    for pattern, part in ENDINGS:
        match = re.fullmatch(pattern, path)
        if match:
            return match.group(1), part
    return ("", path) if path in ("weight", "bias") else (path, "")
