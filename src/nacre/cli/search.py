"""`nacre search INDEX|FOLDER "query"`: find passages in an index, or in a folder of documents that is indexed first."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured
from nacre.errors import UsageError

if TYPE_CHECKING:
    from nacre.lineage.store import Resolved, Store
    from nacre.tiers.retrieval.index import Hit

HELP = """
Finds passages by words (full text, Chinese included), by meaning (vectors of an embedding engine), or both, and says
where each stands: file, characters from and to. INDEX is an artifact of the stage retrieval.index. A plain folder of
documents (text, Markdown, HTML, PDF, CSV, JSON lines) is indexed into the store first; what has not changed since the
last time is neither read nor embedded again.

examples:
  nacre search docs "how long is the warranty"
  nacre search docs "退款多久到账" --k 3
  nacre search docs "refund" --engine model:minilm --mode hybrid
  nacre search desk/index "refund" --filter topic=payment --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "where", metavar="INDEX", help="an index (name, name@version, folder), or a folder of documents"
    )
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("--k", type=int, default=5, help="passages to show (default: 5)")
    parser.add_argument("--mode", default="auto", help="auto, lexical, dense or hybrid (default: auto)")
    parser.add_argument(
        "--filter",
        dest="filters",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only documents with this field; may be repeated, the same KEY meaning any of its values",
    )
    parser.add_argument("--engine", metavar="REF", help="what embeds: model:minilm, a checkpoint, http://HOST/v1#MODEL")
    parser.add_argument(
        "--vectors",
        default="auto",
        metavar="WHERE",
        help="auto, exact, graph, or http://HOST:PORT#COLLECTION of Qdrant",
    )
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    if args.k < 1:
        raise UsageError(f"--k {args.k}: too small", remedy="give 1 or more")
    filters = _filters(args.filters)
    from nacre.engine.room import EngineRoom
    from nacre.recipe.references import open_store
    from nacre.tiers.retrieval.index import Index

    store = open_store(args.store, fetch=args.engine is not None)
    found = _index(args, store)
    reference = args.engine or (None if args.mode == "lexical" else _recorded_engine(found))
    with ExitStack() as stack:
        room = EngineRoom(cache=store.root / "cache" / "answers")
        engine = stack.enter_context(room.open(store.resolve(reference).path)) if reference else None
        index = stack.enter_context(Index(found.path, engine, args.vectors))
        hits = index.search(args.query, args.k, args.mode, filters)
        mode = index.resolve(args.mode)
    if args.json:
        plain = {"index": found.ref, "query": args.query, "mode": mode, "hits": [hit.to_dict() for hit in hits]}
        print(json.dumps(plain, ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(_shown(hits)) if hits else "nothing found")
    return 0


def _index(args: Namespace, store: Store) -> Resolved:
    """The index that is meant; a folder of documents is made one."""
    from nacre.tiers.retrieval.index import MANIFEST

    found = store.resolve(args.where)
    if (found.path / MANIFEST).is_file():
        store.verify(found)
        return found
    return _built(found.path, args.engine, store)


def _built(documents: Path, engine: str | None, store: Store) -> Resolved:
    """The index of a folder: that of the last time where nothing has changed, else a new version made from it."""
    from nacre.lineage.digest import digest_path
    from nacre.recipe.recipe import Recipe, Step
    from nacre.recipe.run import run as run_recipe

    inputs = {"documents": str(documents.absolute())} | ({"engine": engine} if engine else {})
    name = f"search/{_name(documents)}"
    versions = store.versions(f"{name}/index")
    if versions:
        last = store.get(f"{name}/index", versions[-1])
        digest = digest_path(documents)
        same_engine = not engine or _parent(last, "engine", "digest") == store.digest(store.resolve(engine))
        if same_engine and _parent(last, "documents", "digest") == digest:
            return last
        inputs["previous"] = last.ref
        if not engine and (used := _parent(last, "engine", "ref")):
            inputs["engine"] = used
    print(f"note: indexing {documents} as {name}/index", file=sys.stderr)
    result = run_recipe(Recipe(name, {"index": Step("retrieval.index", inputs, {})}, 0, "", Path.cwd()), store)[0]
    metrics = result.record.metrics
    said = ", ".join(f"{metrics[key]:,} {key.replace('_', ' ')}" for key in _SAID if metrics.get(key))
    print(f"note: {result.ref}: {said}", file=sys.stderr)
    for reason, where in _left_out(result.path):
        print(f"note: left out: {where}: {reason}", file=sys.stderr)
    return store.resolve(result.ref)


_SAID = (
    "documents",
    "passages",
    "files_unchanged",
    "documents_vanished",
    "embedded",
    "vectors_carried_over",
    "truncated",
)


def _left_out(folder: Path) -> Iterator[tuple[str, str]]:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for step in report["steps"]:
        for reason, event in step.get("dropped", {}).items():
            places = ", ".join(sample["where"] for sample in event["samples"])
            more = event["count"] - len(event["samples"])
            yield reason, f"{places} and {more:,} more" if more > 0 else places


def _parent(index: Resolved, name: str, what: str) -> str | None:
    """The digest or ref of what filled an input of an index."""
    parents = index.record.parents if index.record else ()
    return next((getattr(parent, what) for parent in parents if parent.input == name), None)


def _recorded_engine(index: Resolved) -> str | None:
    return _parent(index, "engine", "ref")


def _name(documents: Path) -> str:
    """A store name for a folder: its own name, and enough of a digest of its place to tell equal names apart."""
    from nacre.lineage.digest import digest_json

    place = digest_json({"place": str(documents.resolve())}).removeprefix("sha256:")[:8]
    letters = "".join(one if one.isascii() and (one.isalnum() or one in "_-") else "-" for one in documents.stem)
    return f"{letters.strip('-_').lower() or 'folder'}-{place}"


def _filters(given: list[str]) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise UsageError(f"--filter {one}: not KEY=VALUE", remedy="such as --filter topic=payment")
        filters.setdefault(name, []).append(value)
    return filters


def _shown(hits: list[Hit]) -> Iterator[str]:
    for number, hit in enumerate(hits, 1):
        page = f", page {hit.page}" if hit.page else ""
        path = " / ".join(dict.fromkeys(one for one in (hit.title, *hit.headings) if one))
        place = coloured(f"{hit.source}:{hit.start}-{hit.end}", "bold")
        yield (
            f"{number}. {place}{page}  {hit.mode} {hit.score:.3f}" + (f"\n   {path}" if path else "") + f"\n{hit.text}"
        )
