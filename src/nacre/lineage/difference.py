"""How two ways of making differ, in words: stage, config, seed, inputs. Content that differs by itself is said too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nacre.lineage.record import Parent, Record


def differences(old: Record, new: Record) -> list[str]:
    """What a person would change in `old` to make `new`; empty when both were made the same way."""
    found = []
    if old.stage != new.stage:
        found.append(f"stage {old.stage} -> {new.stage}")
    elif old.revision != new.revision:
        found.append(f"revision of {old.stage} {old.revision} -> {new.revision}")
    if old.seed != new.seed:
        found.append(f"seed {old.seed} -> {new.seed}")
    found += [f"config {line}" for line in _changed_values(old.config, new.config)]
    found += list(_changed_parents(_by_input(old), _by_input(new)))
    return found


def _changed_values(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in [*old, *(key for key in new if key not in old)]:
        left, right = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from _changed_values(left, right, f"{prefix}{key}.")
        elif left != right:
            yield f"{prefix}{key} {_shown(left)} -> {_shown(right)}"


def _changed_parents(old: Mapping[str, Parent], new: Mapping[str, Parent]) -> Iterator[str]:
    for name in [*old, *(name for name in new if name not in old)]:
        left, right = old.get(name), new.get(name)
        if left is None or right is None:
            yield f"input {name} {left.ref if left else 'absent'} -> {right.ref if right else 'absent'}"
        elif left.relation != right.relation:
            yield f"input {name} {left.relation} {left.ref} -> {right.relation} {right.ref}"
        elif left.digest != right.digest:
            moved = f" -> {right.ref}" if left.ref != right.ref else " has other bytes now"
            yield f"input {name} {left.ref}{moved}"


def _by_input(record: Record) -> dict[str, Parent]:
    return {parent.input or f"{parent.relation} {index}": parent for index, parent in enumerate(record.parents)}


class _Absent:
    pass


_ABSENT = _Absent()


def _shown(value: Any) -> str:
    if isinstance(value, _Absent):
        return "absent"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
