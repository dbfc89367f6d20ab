"""Writes the generated pages under docs/reference: commands, stages, kernel presets, data sets. `--check` only compares."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from nacre.cli.main import VERBS, top_help
from nacre.data import catalogue as data_catalogue
from nacre.kernel.presets import PRESETS, preset
from nacre.recipe import catalogue as stages

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py (make docs); edit the code instead. -->\n"


def commands() -> str:
    """Every verb's help."""
    parts = [NOTE, "# Commands\n", f"```text\n{top_help().rstrip()}\n```\n"]
    for verb, (module, about) in VERBS.items():
        parts += [f"## nacre {verb}\n", f"{about[0].upper()}{about[1:]}.\n"]
        parts.append(f"```text\n{import_module(module).HELP.strip()}\n```\n")
    return "\n".join(parts)


def stage_pages() -> str:
    """Every stage with its inputs and config."""
    parts = [NOTE, "# Stages\n", "One step of a recipe each. Defaults are those of the code.\n"]
    for name in stages.STAGES:
        stage = stages.find(name)
        parts += [f"## {name}\n", f"{stage.about} Produces a {stage.produces}.\n"]
        if stage.inputs:
            parts.append("| input | kind | relation | |\n|---|---|---|---|")
            for key, one in stage.inputs.items():
                parts.append(f"| `{key}` | {one.kind} | {one.relation} | {'optional' if one.optional else ''} |")
            parts.append("")
        parts.append("| config | default |\n|---|---|")
        parts += [f"| `{key}` | `{value}` |" for key, value in _defaults(stage.config_type)]
        parts.append("")
    return "\n".join(parts)


def _defaults(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            value: Any = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            yield f"{prefix}{field.name}", "(required)"
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from ((f"{prefix}{field.name}.{key}", text) for key, text in _values(value))
        else:
            yield f"{prefix}{field.name}", repr(value).replace("|", "\\|")


def _values(value: Any) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner) and not isinstance(inner, type):
            yield from ((f"{field.name}.{key}", text) for key, text in _values(inner))
        else:
            yield field.name, repr(inner).replace("|", "\\|")


def presets() -> str:
    """Every kernel preset and its choices."""
    shown = ("layout", "norm", "norm_placement", "position", "activation", "gated", "tied", "qkv_bias", "qk_norm")
    parts = [NOTE, "# Kernel presets\n", "| preset | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for name in PRESETS:
        config = preset(name)
        parts.append(f"| `{name}` | " + " | ".join(str(getattr(config, choice)) for choice in shown) + " |")
    return "\n".join(parts) + "\n"


def data_sets() -> str:
    """The data catalogue."""
    parts = [NOTE, "# Data sets\n", "| name | task | language | licence | class |\n|---|---|---|---|---|"]
    for entry in data_catalogue.entries():
        parts.append(
            f"| `{entry.name}` | {entry.task} | {', '.join(entry.languages)} | {entry.licence} | {entry.licence_class} |"
        )
    return "\n".join(parts) + "\n"


PAGES = {"commands.md": commands, "stages.md": stage_pages, "presets.md": presets, "data.md": data_sets}


def main(check: bool) -> int:
    """0 when every page is as the code says (after writing, unless `check`)."""
    stale = []
    FOLDER.mkdir(exist_ok=True)
    for name, write in PAGES.items():
        text, path = write(), FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"docs/reference/{name}: {'not up to date; run make docs' if check else 'written'}")
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
