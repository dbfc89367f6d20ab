"""Tier 2: prompts kept as files, found again, rewritten and optimised on the task's own training rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nacre.engine.protocol import Prompt
    from nacre.tiers.prompt.file import PromptFile


def render(prompt: PromptFile | Path | str, /, **inputs: Any) -> Prompt:
    """The messages of a prompt (its text, for `engine: complete`), with its inputs filled in.

    `prompt` is a prompt, the path of a file, or the name of a shipped one: `classify-en`, `classify-en@1`. Raises
    ConfigError with file and line for a wrong file, a missing, superfluous or wrong input.
    """
    from nacre.tiers.prompt.library import find

    return find(prompt).render(**inputs)
