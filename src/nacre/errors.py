"""One family of errors. Each says what happened, where, and what to do next.

NacreError                  exit code 1
├── InputError              exit code 2: what the user gave cannot be used
│   ├── UsageError          a command, option or value on the command line
│   ├── ConfigError         a recipe, a stage's config or a kernel's config
│   ├── DataError           a data file: missing, empty, wrongly encoded, wrong fields or labels
│   ├── CheckpointError     a model or tokenizer folder: missing, corrupted, renamed, not expressible
│   ├── ReferenceNotFound   a REF that names nothing
│   └── MissingDependency   an optional package that is not installed
├── IntegrityError          stored bytes differ from what their record says
├── ResourceError           the machine ran out of disk or memory
├── TrainingError           training cannot go on (a loss that is not finite, say)
├── GateUnanswered          a gate asked what could not be decided
└── GateRefused             exit code 3: a gate said no
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class NacreError(Exception):
    """An error for people: `message` says what and where, `remedy` the next command or edit."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}"


class InputError(NacreError):
    exit_code = 2


class UsageError(InputError):
    pass


class ConfigError(InputError):
    pass


class DataError(InputError):
    pass


class CheckpointError(InputError):
    pass


class ReferenceNotFound(InputError):
    pass


class MissingDependency(InputError):
    pass


class IntegrityError(NacreError):
    pass


class ResourceError(NacreError):
    pass


class TrainingError(NacreError):
    pass


class GateUnanswered(NacreError):
    pass


class GateRefused(NacreError):
    exit_code = 3


_MOST_NAMES = 24


def closest(name: str, known: Iterable[str]) -> str:
    """A remedy that names the closest known word, or lists the known ones (the first of many) when none is close."""
    names = sorted(known)
    match = get_close_matches(name, names, n=1)
    if match:
        return f"did you mean {match[0]!r}?"
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return f"known: {', '.join([*names[:_MOST_NAMES], *more]) or '(none)'}"
