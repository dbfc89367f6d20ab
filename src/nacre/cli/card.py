"""`nacre card REF`: a model card from lineage."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from nacre.cli.parser import add_json_option, add_store_option
from nacre.errors import UsageError

HELP = """
Writes a Hugging Face model card (README.md) from the lineage of an artifact: licence, base model, data, how each is
known, metrics, configuration, and what to know before use. Nothing is invented: what no record states is unknown.

examples:
  nacre card intents/tune
  nacre card intents/tune@2 --out export/README.md
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="name, name@version, or a path")
    parser.add_argument("--out", metavar="FILE", help="write there instead of printing; an existing file is kept")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.lineage.card import model_card
    from nacre.lineage.durable import write_atomic
    from nacre.lineage.graph import trace
    from nacre.recipe.references import open_store

    text = model_card(trace(open_store(args.store), args.ref))
    if args.out:
        path = Path(args.out)
        if path.exists() or not path.parent.is_dir():
            what = "exists" if path.exists() else "is in a folder that does not exist"
            raise UsageError(f"--out {path}: {what}", remedy="give the path of a new file")
        write_atomic(path, text.encode())
    if args.json:
        print(json.dumps({"ref": args.ref, "card": text, "path": args.out}, ensure_ascii=False))
    else:
        print(args.out or text)
    return 0
