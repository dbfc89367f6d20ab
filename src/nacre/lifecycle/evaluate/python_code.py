"""Checks of generated Python: does it parse, does it compile in silence. Nothing is ever executed."""

from __future__ import annotations

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CodeCheck:
    """One sample. `error` is the interpreter's message; `sound_lines` the share of lines in the sound prefix."""

    parses: bool
    warnings: int
    error: str
    sound_lines: float


def _parse_error(source: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError) as error:  # ValueError: a null character
        return getattr(error, "msg", None) or str(error)
    except (RecursionError, MemoryError):  # the parser's own limits on nesting
        return "too deeply nested"
    return ""


def check_code(source: str) -> CodeCheck:
    """Parses and compiles one sample with the running interpreter's grammar. A sample without statements fails."""
    error = _parse_error(source)
    lines = source.splitlines()
    if not error and not ast.parse(source).body:
        error = "no statement"
    if error:
        return CodeCheck(False, 0, error, _sound_prefix(lines) / len(lines) if lines else 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            compile(source, "<sample>", "exec")
        except (SyntaxError, ValueError) as late:  # 'return' outside function, and the like: found after parsing
            return CodeCheck(True, 1, getattr(late, "msg", None) or str(late), 1.0)
        except (RecursionError, MemoryError):
            return CodeCheck(True, 1, "too deeply nested", 1.0)
    return CodeCheck(True, len(caught), "", 1.0)


def _sound_prefix(lines: Sequence[str]) -> int:
    """Number of leading lines that parse as they stand: a sample cut in mid-statement keeps its finished part."""
    for count in range(len(lines) - 1, 0, -1):
        source = "\n".join(lines[:count])
        if source.strip() and not _parse_error(source + "\n"):
            return count
    return 0


@dataclass(frozen=True)
class CodeShares:
    """Over all samples: share that parses, compiles without a warning, mean share of sound lines, errors by kind."""

    samples: int
    parses: float
    compiles_clean: float
    sound_lines: float
    errors: dict[str, int]
    python: str


def summarise(checks: Sequence[CodeCheck]) -> CodeShares:
    """Shares over checks; `python` names the grammar that judged."""
    n = max(len(checks), 1)
    errors = Counter(check.error for check in checks if check.error)
    return CodeShares(
        samples=len(checks),
        parses=sum(check.parses for check in checks) / n,
        compiles_clean=sum(check.parses and not check.warnings and not check.error for check in checks) / n,
        sound_lines=sum(check.sound_lines for check in checks) / n,
        errors=dict(sorted(errors.items(), key=lambda item: (-item[1], item[0]))),
        python=".".join(map(str, sys.version_info[:2])),
    )
