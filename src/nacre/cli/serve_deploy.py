"""`nacre serve deploy CONFIG`: what is needed to put the gateway somewhere, written into a folder."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option
from nacre.cli.terminal import table
from nacre.errors import UsageError

if TYPE_CHECKING:
    from nacre.lifecycle.serve.deploy.write import FileSet

HELP = """
Writes files for running the gateway elsewhere, filled in from its config: alert rules for Prometheus, a dashboard for
Grafana, a systemd unit, an image, a Kubernetes manifest with an autoscaler, a Ray Serve application. Nothing is
overwritten without --force; what does not fit several replicas is said.

examples:
  nacre serve deploy --list                              what there is
  nacre serve deploy gateway.yaml --to deploy            all of it
  nacre serve deploy gateway.yaml --to deploy --only alerts,dashboard
  nacre serve deploy gateway.yaml --to deploy --only kubernetes --image registry.example.com/nacre:1 --least 2 --most 8
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="the gateway's YAML file")
    parser.add_argument("--list", action="store_true", dest="lists", help="say what there is, and write nothing")
    parser.add_argument("--to", metavar="FOLDER", help="where to write")
    parser.add_argument("--only", metavar="NAMES", help="of --list, by comma (default: all)")
    parser.add_argument("--image", metavar="NAME", help="the image that the manifest runs (default: nacre:VERSION)")
    parser.add_argument("--least", type=int, default=2, metavar="N", help="replicas (default: 2)")
    parser.add_argument("--most", type=int, default=8, metavar="N", help="replicas under load (default: 8)")
    parser.add_argument("--force", action="store_true", help="overwrite these files where they exist")
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.lifecycle.serve.deploy.write import SETS, Deployment, warnings, write

    if args.lists:
        _print_list(SETS, as_json=args.json)
        return 0
    if not args.config or not args.to:
        missing = "CONFIG" if not args.config else "--to FOLDER"
        raise UsageError(
            f"nacre serve deploy: {missing} is missing", remedy="nacre serve deploy gateway.yaml --to deploy"
        )
    named = {"image": args.image} if args.image else {}
    deployment = Deployment(Path(args.config), least=args.least, most=args.most, **named)
    only = [name.strip() for name in args.only.split(",") if name.strip()] if args.only is not None else None
    written = write(Path(args.to), deployment, only=only, force=args.force)
    said = warnings(deployment)
    if args.json:
        print(json.dumps({"written": [str(one) for one in written], "warnings": said}, ensure_ascii=False, indent=2))
        return 0
    for one in written:
        print(one)
    for warning in said:
        print(f"note: {warning}", file=sys.stderr)
    return 0


def _print_list(sets: Mapping[str, FileSet], *, as_json: bool) -> None:
    if as_json:
        rows = [{"name": name, "about": one.about, "files": list(one.files)} for name, one in sets.items()]
        print(json.dumps({"sets": rows}, ensure_ascii=False, indent=2))
        return
    cells = [[name, ", ".join(one.files), one.about] for name, one in sets.items()]
    print(table(cells, ["name", "files", "what it is"]))
