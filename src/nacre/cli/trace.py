"""`nacre trace REF`: where an artifact comes from."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured

if TYPE_CHECKING:
    from nacre.lineage.finding import Finding
    from nacre.lineage.graph import Node
    from nacre.lineage.store import Store

# Frames that writing JSON may nest, some five for each parent of a parent; the stack of a thread has room for more.
_DEEPEST_JSON = 12_000

_LONG_LICENCE = 40  # characters

HELP = """
Walks an artifact back to raw data: every parent with its relation, content digest, basis (how we know) and licence.
Warns of bytes that changed since they were used, of parents that are gone, and of licences that are unclear or
noncommercial and reach this artifact. What audits in the store inferred stands beside what was witnessed or declared,
and where they disagree, that is said at the parent and before other warnings. Exits with 1 when bytes or records are
not what they should be.

examples:
  nacre trace intents/tune
  nacre trace intents/tune@2 --verify            read every byte again
  nacre trace intents/tune@2 --diff intents/tune@1
  nacre trace intents/tune --mermaid > lineage.mmd
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="name, name@version, a path, or data:NAME")
    parser.add_argument("--verify", action="store_true", help="read every byte again instead of trusting file times")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--diff", metavar="REF", help="say which configs and inputs differ, at every step of the way")
    form.add_argument("--mermaid", action="store_true", help="print a Mermaid flow chart")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.lineage.graph import trace
    from nacre.recipe.references import open_store

    store = open_store(args.store)
    if args.diff:
        return _diff(args, store)
    root = trace(store, args.ref, verify=args.verify)
    findings = root.all_warnings()
    if args.json:
        warnings = [{"kind": one.kind, "ref": one.ref, "text": one.text} for one in findings]
        sys.setrecursionlimit(_DEEPEST_JSON)
        print(json.dumps(root.to_dict() | {"warnings": warnings}, ensure_ascii=False, indent=2))
    elif args.mermaid:
        print("\n".join(_mermaid(root)))
    else:
        print("\n".join(_tree(root)))
        print("\n".join(_warnings(findings)))
    return 1 if any(one.kind == "integrity" for one in findings) else 0


def _diff(args: Namespace, store: Store) -> int:
    from nacre.lineage.graph import compare

    found = compare(store, args.diff, args.ref)
    if args.json:
        rows = [{"old": one.old, "new": one.new, "differences": list(one.differences)} for one in found]
        print(json.dumps({"old": args.diff, "new": args.ref, "steps": rows}, ensure_ascii=False, indent=2))
        return 0
    for one in found:
        print(coloured(f"{one.old} -> {one.new}", "bold"))
        print("\n".join(f"  {line}" for line in one.differences))
    if not found:
        print(f"{args.diff} and {args.ref} were made the same way")
    return 0


def _tree(root: Node) -> Iterator[str]:
    """One line per artifact; those told before are not unfolded again."""
    told: set[tuple[str, str | None]] = set()
    licences: dict[str, int] = {}  # the long ones, each printed once, below the tree
    pending = [(root, "", "")]  # what stands before the line itself, and before those below it
    while pending:
        node, lead, follow = pending.pop()
        key = (node.ref, node.digest)
        again = bool(node.parents) and key in told
        yield lead + _line(node, licences) + ("  (parents above)" if again else "")
        if again:
            continue
        told.add(key)
        marks = [("├─ ", "│  ")] * (len(node.parents) - 1) + [("└─ ", "   ")]
        below = [
            (parent, follow + mark, follow + room) for parent, (mark, room) in zip(node.parents, marks, strict=False)
        ]
        pending += reversed(below)
    yield from (f"licence [{number}]: {licence}" for licence, number in licences.items())


def _line(node: Node, licences: dict[str, int]) -> str:
    """The line of an artifact. Of a long licence it holds a number, by which the licence goes into `licences`."""
    known = f" ({node.relation_basis})" if node.relation_basis and not node.inferred else ""
    relation = f"{node.relation}{known} " if node.relation else ""
    digest = (node.digest or "no digest").removeprefix("sha256:")[:12]
    made = f"  {node.record.stage}" if node.record and node.record.stage else ""
    stated = node.licence or ""
    if len(stated) > _LONG_LICENCE:
        stated = f"[{licences.setdefault(stated, len(licences) + 1)}]"
    licence = f"  licence: {stated}" if stated else ""
    origin = f"  origin: {node.origin}" if node.origin else ""
    basis = coloured(f"inferred{_sure(node)}", "yellow") if node.inferred else node.basis
    against = "  " + coloured(f"disputed: {node.disputed}", "red") if node.disputed else ""
    ref = coloured(node.ref, "bold")
    return f"{relation}{ref}  {node.kind or 'raw'}  {digest}  {basis}{made}{licence}{origin}{against}"


def _sure(node: Node) -> str:
    """Which audit says so, what it found, and its chance of error."""
    told = node.inferred
    p = told.get("p_value")
    chance = "" if p is None else f", p {'< 1e-06' if p < 1e-6 else f'= {p:.2g}'} ({told.get('tier')})"
    return f" by {told.get('audit')}: {told.get('kind') or told.get('verdict')}{chance}"


def _warnings(findings: list[Finding]) -> Iterator[str]:
    yield ""
    if not findings:
        yield "nothing to warn of"
    for one in sorted(findings, key=lambda one: one.kind not in ("integrity", "disagreement")):
        yield f"{coloured(one.kind, 'red' if one.kind in ('integrity', 'disagreement') else 'yellow')}: {one.text}"


def _mermaid(root: Node) -> Iterator[str]:
    yield "flowchart BT"
    nodes = list(root.walk())
    names: dict[tuple[str, str | None], str] = {}
    for node in nodes:
        names.setdefault((node.ref, node.digest), f"n{len(names)}")
    for (ref, digest), name in names.items():
        label = f"{ref}<br/>{(digest or '').removeprefix('sha256:')[:12]}".replace('"', "'")
        yield f'  {name}["{label}"]'
    edges: dict[str, None] = {}
    for node in nodes:
        for parent in node.parents:
            arrow = "-.->" if parent.inferred else "-->"
            label = f"{parent.relation}{', disputed' if parent.disputed else ''}"
            edges[f"  {names[parent.ref, parent.digest]} {arrow}|{label}| {names[node.ref, node.digest]}"] = None
    yield from edges
