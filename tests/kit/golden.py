"""Texts that must not change unnoticed. `NACRE_GOLDEN=rewrite pytest tests/golden` writes them anew; read the diff."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden" / "expected"


def matches(name: str, text: str) -> bool:
    """Whether `text` is what the golden file holds; rewrites the file first when asked to."""
    path = FOLDER / name
    if os.environ.get("NACRE_GOLDEN") == "rewrite":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no {path}: NACRE_GOLDEN=rewrite pytest tests/golden"
    expected = path.read_text(encoding="utf-8")
    assert text == expected, f"{name} differs; if that is meant: NACRE_GOLDEN=rewrite pytest tests/golden"
    return True
