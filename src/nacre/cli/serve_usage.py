"""`nacre serve usage`: what was used and what it cost, by key, model, day and outcome."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option
from nacre.cli.serve_keys import add_database_option, database_of, moment
from nacre.cli.terminal import number, table
from nacre.errors import UsageError

if TYPE_CHECKING:
    from nacre.lifecycle.serve.contract import Json

HELP = """
Sums of the gateway's ledger. Money is unknown (-) where any request of a row has no known price; at least so much is
then shown beside it. Requests whose tokens the upstream counts differently from us by over 2 % are counted.

examples:
  nacre serve usage                                      by key, over all time
  nacre serve usage --by key,model,day --since 30d
  nacre serve usage --by model --since 2026-11 --until 2026-12
  nacre serve usage --by day,outcome --csv > usage.csv
  nacre serve usage --delete --before 90d                old entries go; their sums by day stay, and so do budgets
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--by", default="key", metavar="GROUPS", help="of key, model, day, outcome, by comma")
    parser.add_argument("--since", metavar="WHEN", help="from then on: 30d, 2026-11, 2026-11-22 (UTC)")
    parser.add_argument("--until", metavar="WHEN", help="up to then, then not counted")
    parser.add_argument("--delete", action="store_true", help="delete the entries of the days before --before (UTC)")
    parser.add_argument("--before", metavar="WHEN", help="90d, 2026-11, 2026-11-22: only with --delete")
    parser.add_argument("--csv", action="store_true", help="print the rows as CSV")
    add_database_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    if args.csv and args.json:
        raise UsageError("--csv and --json do not go together", remedy="give one of them")
    if args.delete or args.before:
        return _delete(args)
    from nacre.lifecycle.serve.state.database import connect
    from nacre.lifecycle.serve.state.usage import csv_text, sums

    since, until = (moment(text) if text else None for text in (args.since, args.until))
    groups = [name.strip() for name in args.by.split(",") if name.strip()]
    database = connect(database_of(args))
    try:
        rows = sums(database, groups, since, until)
        names = dict(database.rows("SELECT id, name FROM keys"))
        where = database.name
    finally:
        database.close()
    if "key" in groups:
        rows = [_with_name(row, names.get(row["key"], "")) for row in rows]
    if args.json:
        print(json.dumps({"by": groups, "since": since, "until": until, "rows": rows}, ensure_ascii=False, indent=2))
    elif args.csv:
        print(csv_text(rows), end="")
    else:
        _print(
            rows, where, [*(["key", "name"] if "key" in groups else []), *(name for name in groups if name != "key")]
        )
    return 0


def _delete(args: Namespace) -> int:
    if not (args.delete and args.before):
        raise UsageError("--delete and --before go together", remedy="nacre serve usage --delete --before 90d")
    if args.csv or args.since or args.until or args.by != "key":
        raise UsageError("--delete shows no sums", remedy="nacre serve usage --delete --before 90d")
    from nacre.lifecycle.serve.state.database import connect
    from nacre.lifecycle.serve.state.usage import forget

    before = moment(args.before)
    if before > time.time():
        raise UsageError(f"--before {args.before} has not come yet", remedy="nacre serve usage --delete --before 90d")
    day = datetime.fromtimestamp(before, UTC).date().isoformat()
    database = connect(database_of(args))
    try:
        deleted = forget(database, before)
    finally:
        database.close()
    if args.json:
        print(json.dumps({"deleted": deleted, "before": day}, indent=2))
    else:
        print(f"{number(deleted)} entries from before {day} (UTC) are deleted; their sums by day stay")
    return 0


def _with_name(row: Json, name: str) -> Json:
    """The key's name after its id."""
    return {"key": row["key"], "name": name, **{column: value for column, value in row.items() if column != "key"}}


def _print(rows: list[Json], where: str, groups: list[str]) -> None:
    if not rows:
        print(f"the ledger in {where} has no requests in that time")
        return
    counts = ("requests", "refused", "cached", "prompt_tokens", "completion_tokens")
    head = [*groups, "requests", "refused", "cached", "read", "written", "money", "remarks"]
    print(table([_cells(row, groups, counts) for row in rows], head))


def _cells(row: Json, groups: list[str], counts: tuple[str, ...]) -> list[str]:
    money = "-" if row["money"] is None else f"{row['money']:,.4f}"
    remarks = []
    if row["unpriced"]:
        remarks.append(f"{number(row['unpriced'])} unpriced, the others {row['known_money']:,.4f}")
    if row["uncounted"]:
        remarks.append(f"{number(row['uncounted'])} with unknown tokens")
    if row["disagreeing"]:
        remarks.append(f"{number(row['disagreeing'])} counted otherwise by us")
    return [*(str(row[name]) for name in groups), *(number(row[name]) for name in counts), money, "; ".join(remarks)]
