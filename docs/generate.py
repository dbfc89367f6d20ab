"""Writes the generated pages under docs/reference: commands, stages, presets, data sets. `--check` only compares."""

from __future__ import annotations

import csv
import dataclasses
import re
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
        cells = [f"`{entry.name}`", entry.task, ", ".join(entry.languages), entry.licence, entry.licence_class]
        parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


TRAPS = {
    1: "gradients under accumulation with unequal numbers of trained tokens", 2: "a last window cut short",
    3: "several processes: the global token count", 4: "evaluation independent of batch and padding",
    5: "a micro batch without a label", 6: "chunked cross-entropy equals plain", 7: "first loss near ln V",
    9: "the first answer token is trained", 10: "the end of a text is trained, also where padding has its id",
    11: "one BOS after template and tokenizer",
    16: "text of a user never becomes a control token", 17: "tokenizer round trips and sizes",
    18: "windows cover every character", 19: "packed equals unpacked", 20: "positions restart with each document",
    21: "a document leaves its neighbours unchanged", 22: "left padding changes nothing",
    23: "decoding over a cache equals the full pass", 24: "rotary layout", 25: "buffers after meta device and casts",
    26: "rotary scaling survives a save", 27: "causality", 28: "T5 in float16", 29: "a skipped step advances nothing",
    30: "one schedule step per optimiser step", 31: "clipping by the global norm", 32: "which parameters Muon takes",
    33: "frozen stays frozen", 34: "activation checkpointing", 35: "compiled equals eager", 36: "masked tokens",
    37: "next-sentence pairs", 38: "span corruption", 44: "kill and resume, bit for bit", 45: "atomic checkpoints",
    46: "tied weights", 47: "adapters: off is the base, merged is on",
    49: "strict loading", 50: "NaN is never best", 51: "splits by content",
    52: "duplicates never straddle a split", 53: "contamination", 54: "across tokenizers only bits per byte",
    55: "changed parents are noticed",
}  # fmt: skip
ROOT = Path(__file__).parents[1]


def traps() -> str:
    """The tests that guard each trap, and what public toolkits do, as measured."""
    guards: dict[int, set[str]] = {number: set() for number in TRAPS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for digits in re.findall(r"def test_trap_((?:\d+_)+)", path.read_text(encoding="utf-8")):
            for number in map(int, digits.strip("_").split("_")):
                guards.setdefault(number, set()).add(path.relative_to(ROOT).as_posix())
    parts = [NOTE, "# Traps\n", "What toolkits of this field got wrong, and the tests here that would notice.\n"]
    parts.append("| trap | what must hold | guarded by |\n|---|---|---|")
    for number, files in sorted(guards.items()):
        parts.append(f"| {number} | {TRAPS.get(number, '')} | {', '.join(f'`{one}`' for one in sorted(files))} |")
    parts += ["", "## Public toolkits, measured\n", "By `benchmarks/traps_peers.py`, the newest row of each.\n"]
    parts.append("| trap | asks | toolkit | passes | measured |\n|---|---|---|---|---|")
    with (ROOT / "benchmarks" / "results" / "traps_peers.csv").open(encoding="utf-8", newline="") as file:
        newest = {(row["trap"], row["asks"], row["toolkit"]): row for row in csv.DictReader(file)}
    for row in newest.values():
        name = f"{row['toolkit']} {row['version']}"
        parts.append(f"| {row['trap']} | {row['asks']} | {name} | {row['passes']} | {row['measured']} |")
    return "\n".join(parts) + "\n"


PAGES = {
    "commands.md": commands,
    "stages.md": stage_pages,
    "presets.md": presets,
    "data.md": data_sets,
    "traps.md": traps,
}


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
