"""`nacre show REF`: what an artifact is."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nacre.cli.anatomy import anatomy_lines
from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured, duration, number, size, table

if TYPE_CHECKING:
    from nacre.lineage.record import Record
    from nacre.recipe.describe import Description

HELP = """
Says what an artifact is: kind, content digest, how it was made, what that cost, its metrics and parents. For a model
the anatomy too: parameters by part, memory by precision, FLOPs and KV-cache bytes per token. For a data set its rows,
and what was dropped and why. Folders that Nacre did not make (a Hugging Face checkpoint, say) have no record.

examples:
  nacre show intents/tune
  nacre show intents/tune@2 --verify       compare every byte with the record
  nacre show ./some-hugging-face-folder
  nacre show intents/utterances --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="name, name@version, a path, or data:NAME")
    parser.add_argument("--verify", action="store_true", help="compare every byte with the record")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.recipe.describe import describe
    from nacre.recipe.references import open_store

    found = describe(open_store(args.store), args.ref, verify=args.verify)
    if args.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
        return 0
    print("\n".join(_lines(found)))
    return 0


def _lines(found: Description) -> Iterator[str]:
    record = found.record
    yield f"{coloured(found.ref, 'bold')}  {found.kind}"
    facts = {
        "path": str(found.path),
        "size": f"{size(found.n_bytes)} in {found.n_files} files",
        "digest": found.digest + ("  (verified)" if found.verified else ""),
        "basis": found.basis,
    }
    yield from _facts(facts if record is None else facts | _record_facts(record))
    if record is not None:
        yield from _section("config", _flat(record.config))
        yield from _section("metrics", {name: number(value) for name, value in record.metrics.items()})
        yield from _parents(record)
    if found.anatomy is not None:
        yield from anatomy_lines(found.anatomy)
    if found.rows is not None:
        yield from _section("rows", {name: number(count) for name, count in found.rows.items()})
    if found.drops is not None:
        yield from _drops(found.drops)
    if found.rollouts:
        yield from _rollouts(found.rollouts)
    for remark in found.remarks:
        yield f"\nnote: {remark}"


def _record_facts(record: Record) -> dict[str, str]:
    cost = record.cost
    spent = [duration(cost.seconds)]
    spent += [f"{cost.tokens:,} tokens"] if cost.tokens is not None else []
    spent += [f"{cost.flops:.3g} FLOPs"] if cost.flops is not None else []
    spent += [f"peak {cost.peak_memory_mib:,.0f} MiB"] if cost.peak_memory_mib is not None else []
    made = f"{record.stage} (revision {record.revision}, seed {record.seed})" if record.stage else None
    facts = {
        "fingerprint": record.fingerprint,
        "licence": record.licence or "none stated",
        "origin": record.extra.get("origin"),
        "made by": made,
        "made at": record.created,
        "cost": ", ".join(spent) if record.stage else None,
        "versions": ", ".join(f"{name} {value[:19]}" for name, value in record.versions.items()),
        "machine": ", ".join(f"{name} {value}" for name, value in record.machine.items()),
        "notes": "; ".join(record.notes),
    }
    return {name: value for name, value in facts.items() if value}


def _parents(record: Record) -> Iterator[str]:
    if record.parents:
        rows = [
            [one.relation, one.ref, (one.digest or "").removeprefix("sha256:")[:12], one.basis, one.licence or ""]
            for one in record.parents
        ]
        yield "\nparents"
        yield table(rows, ["relation", "ref", "digest", "basis", "licence"])


def _drops(report: Mapping[str, Any]) -> Iterator[str]:
    dropped = report.get("dropped")
    steps = dropped.get("steps") if isinstance(dropped, Mapping) else None
    rest = {name: value for name, value in report.items() if name != "dropped"} if steps else report
    yield from _section("report", _flat(rest))
    if not steps:
        return
    yield "\nwhat was dropped, changed and noted"
    rows = []
    for step in steps:
        rows.append([step["step"], number(step["rows_in"]), number(step["rows_out"]), ""])
        for verb in ("dropped", "changed", "noted"):
            for reason, event in step.get(verb, {}).items():
                samples = [" ".join(one.values()) for one in event.get("samples", [])[:1]]
                such = f", such as {samples[0]}" if samples else ""
                rows.append(["", "", "", f"{verb} {number(event['count'])}: {reason}{such}"])
    yield table(rows, ["step", "rows in", "rows out", "what"])


def _rollouts(shown: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Answers of the first and of the last iteration; the rest is in the artifact's `rollouts.jsonl`."""
    yield "\nrollouts (rollouts.jsonl holds all)"
    rows = [
        [
            number(one["iteration"]),
            number(one["reward"]),
            number(one["advantage"]),
            one["prompt"][-1]["content"],
            one["answer"],
        ]
        for one in shown
    ]
    yield table(rows, ["iteration", "reward", "advantage", "prompt", "answer"])


def _section(title: str, facts: Mapping[str, str]) -> Iterator[str]:
    if facts:
        yield f"\n{title}"
        yield from _facts(facts)


def _facts(facts: Mapping[str, str]) -> Iterator[str]:
    indent = max(len(name) for name in facts) + 2
    for name, value in facts.items():
        yield f"  {name:<{indent}}{value}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as dotted names, numbers as people read them."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            plain = value if isinstance(value, str) else number(value) if isinstance(value, int | float) else None
            flat[f"{prefix}{name}"] = plain if plain is not None else json.dumps(value, ensure_ascii=False)
    return flat
