"""Markdown files with an optional YAML front matter: a row per file, the body as its text."""

from __future__ import annotations

import datetime
from typing import Any

import yaml

FENCE = "---"


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The fields of the front matter (empty where there is none) and the body after it.

    Raises ValueError for a front matter that is not closed, is no YAML, or is no mapping of names to plain values.
    """
    if not text.startswith(FENCE + "\n"):
        return {}, text
    head, fence, body = text[len(FENCE) + 1 :].partition(f"\n{FENCE}\n")
    if not fence:
        raise ValueError("the front matter is not closed by a line of ---")
    try:
        fields = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter is no YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(fields, dict):
        raise ValueError("the front matter is no mapping of names to values")
    plain = {str(name): str(one) if isinstance(one, datetime.date) else one for name, one in fields.items()}
    return plain, body.lstrip("\n")
