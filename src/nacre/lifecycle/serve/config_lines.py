"""Where a mistake stands in a YAML text: a problem's path becomes a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import yaml

from nacre.recipe.config import Problem


def place_problems(problems: Sequence[Problem], text: str, where: str) -> list[Problem]:
    """The problems with `where` as `FILE, line N: path`, in the order of the file."""
    if not problems:
        return []
    root = yaml.compose(text, yaml.SafeLoader)  # it was parsed before: composing cannot fail
    placed = []
    for problem in problems:
        path = problem.where.removeprefix(where).lstrip(".")
        named = re.match(r"unknown key '(.*)'$", problem.what)
        line = _line(root, path, named[1] if named else None)
        at = f"{where}, line {line}" + (f": {path}" if path else "")
        placed.append((line, replace(problem, where=at)))
    return [problem for _, problem in sorted(placed, key=lambda one: one[0])]


def _line(root: yaml.Node | None, path: str, key: str | None) -> int:
    """The line (from 1) of what a dotted path names; of its nearest parent where it is not there itself."""
    node, line = root, 1
    while node is not None and path:
        child = _child(node, path)
        if child is None:
            break
        line, node, path = child
    if key is not None and isinstance(node, yaml.MappingNode):
        return next((one.start_mark.line + 1 for one, _ in node.value if one.value == key), line)
    return line


def _child(node: yaml.Node, path: str) -> tuple[int, yaml.Node, str] | None:
    """The child that the longest beginning of `path` names: a key may hold dots itself."""
    if isinstance(node, yaml.SequenceNode):
        head, _, rest = path.partition(".")
        if head.isdecimal() and int(head) < len(node.value):
            item = node.value[int(head)]
            return item.start_mark.line + 1, item, rest
    if isinstance(node, yaml.MappingNode):
        fitting = [(k, v) for k, v in node.value if path == k.value or path.startswith(f"{k.value}.")]
        if fitting:
            found, value = max(fitting, key=lambda pair: len(pair[0].value))
            return found.start_mark.line + 1, value, path[len(found.value) :].lstrip(".")
    return None
