"""`nacre audit SUBJECT --against REF`: what an artifact derives from, stage by stage."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option, add_store_option
from nacre.errors import UsageError

if TYPE_CHECKING:
    from nacre.lifecycle.audit.audit import AuditOptions
    from nacre.lifecycle.audit.verdict import Pair
    from nacre.lineage.store import Store

HELP = """
Says, stage by stage (kernel, tokenizer, weights, data), whether SUBJECT derives from a reference, with the chance of
error and how that chance is known, and says so when it cannot tell. Each side is a Hugging Face folder, a config, a
weight index, a tokenizer, a GGUF file, an adapter, a data set, or an artifact of the store. Nothing in a file is
executed; a damaged file costs the stage that needs it.

Several references, or a folder of model folders, are ranked by evidence, and p-values are corrected for their number.
Exits with 3 where --gate refuses the verdict, and with 1 where there is a gate and nothing could be decided.

examples:
  nacre audit ./their-model --against ./our-model
  nacre audit ./their-model --against ./models --report audit.html
  nacre audit intents/tune --against model:minilm --gate derived,shared-init
  nacre audit ./their-model --against ./our-model --stages kernel,tokenizer --json
  nacre audit ./rows.jsonl --against ./theirs.jsonl --fields source,target
  nacre audit chat/pretrain --against ./rows.jsonl --stages data     was it trained on these rows?
  nacre audit ./models --group                     which of many models share a design
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="SUBJECT", help="name, name@version, a folder or file, model:NAME or data:NAME")
    parser.add_argument(
        "--against",
        metavar="REF",
        action="append",
        default=[],
        help="a reference, or a folder of models; may be repeated",
    )
    parser.add_argument("--stages", metavar="A,B", default="", help="only these: kernel, tokenizer, weights, data")
    parser.add_argument(
        "--group", action="store_true", help="group the models in the folder SUBJECT by design, and end"
    )
    parser.add_argument(
        "--gate",
        metavar="A,B",
        help="exit with 3 on these verdicts: derived (identical too), ...; with 1 where nothing could be decided",
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the HTML report here as well")
    parser.add_argument(
        "--fields", metavar="A,B", help="of data sets compare only these: text, answers.text, messages.user"
    )
    parser.add_argument(
        "--canaries", metavar="FILE", type=Path, help="texts, some planted in the data set beside a model"
    )
    parser.add_argument(
        "--shuffled", action="store_true", help="you answer for it: the data set's order was drawn at random"
    )
    parser.add_argument("--base", metavar="REF", help="the model that an adapter was made for")
    parser.add_argument(
        "--language", choices=("en", "zh"), default="en", help="of the summary and report (default: en)"
    )
    parser.add_argument("--seed", type=int, default=0, help="what samples are drawn from (default: 0)")
    parser.add_argument("--no-record", action="store_true", help="keep no report in the store")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.recipe.references import open_store

    if args.group:
        return _group(args)
    if not args.against:
        raise UsageError("there is nothing to hold it against", remedy="give --against REF, or --group for a folder")
    _check_report(args.report)
    from nacre.lifecycle.audit.audit import audit
    from nacre.lifecycle.audit.result import as_object, parse_gate, pass_gate

    refused = parse_gate(args.gate) if args.gate is not None else frozenset()
    store = open_store(args.store)
    options = _options(args, store)
    pairs = audit(args.ref, args.against, options)
    recorded = None if args.no_record else _record(pairs, options, store)
    if args.report is not None:
        _write_report(pairs, options, args.report)
    if args.json:
        print(json.dumps(as_object(pairs) | {"recorded": recorded}, ensure_ascii=False, indent=2))
    else:
        _print(pairs, args, recorded)
    store.hashes.save()
    pass_gate(pairs, refused)
    return 0


def _options(args: Namespace, store: Store) -> AuditOptions:
    from nacre.lifecycle.audit.audit import TESTED, AuditOptions
    from nacre.progress import Silent, Terminal

    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: below 0", remedy="give 0 or more")
    stages = tuple(name.strip() for name in args.stages.split(",") if name.strip())
    return AuditOptions(
        stages=stages or TESTED,
        seed=args.seed,
        language=args.language,
        base=args.base,
        fields=_fields(args.fields),
        canaries=args.canaries,
        shuffled=args.shuffled,
        store=store,
        progress=Silent() if args.quiet or not sys.stderr.isatty() else Terminal("audit"),
    )


def _fields(given: str | None) -> tuple[str, ...]:
    fields = tuple(one.strip() for one in (given or "").split(",") if one.strip())
    if given is not None and not fields:
        raise UsageError(f"--fields {given!r} names none", remedy="give names of fields with commas between them")
    return fields


def _check_report(file: Path | None) -> None:
    """Raises UsageError before the work for a report that could not be written after it."""
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        why = "is a folder" if file.is_dir() else "is in no folder that exists"
        raise UsageError(f"--report {file} {why}", remedy="give a file in a folder that exists, such as audit.html")


def _write_report(pairs: list[Pair], options: AuditOptions, file: Path) -> None:
    from nacre.lifecycle.audit.report import render
    from nacre.lineage.durable import write_atomic

    write_atomic(file.absolute(), render(pairs, options.language).encode())


def _record(pairs: list[Pair], options: AuditOptions, store: Store) -> str:
    from nacre.lifecycle.audit.recording import record

    return record(pairs, options, store)


def _print(pairs: list[Pair], args: Namespace, recorded: str | None) -> None:
    from nacre.cli.audit_text import lines
    from nacre.lifecycle.audit.words import Words

    words = Words(args.language)
    print("\n".join(lines(pairs, words)))
    if args.report is not None:
        print(words("written", file=args.report))
    if recorded is not None:
        print(words("recorded", ref=recorded, subject=pairs[0].subject))


def _group(args: Namespace) -> int:
    from dataclasses import asdict

    from nacre.cli.audit_text import group_lines
    from nacre.lifecycle.audit.grouping import group_folder
    from nacre.recipe.references import open_store

    if args.against:
        raise UsageError("--group takes no --against", remedy="leave one of the two out")
    grouped = group_folder(Path(args.ref).expanduser(), open_store(args.store))
    if args.json:
        plain = {
            "folder": args.ref,
            "groups": [asdict(one) for one in grouped.groups],
            "left_out": dict(grouped.left_out),
        }
        print(json.dumps(plain, ensure_ascii=False, indent=2))
    else:
        print("\n".join(group_lines(grouped)))
    return 0
