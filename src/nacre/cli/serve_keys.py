"""`nacre serve keys create|list|revoke|rotate`: who may use the gateway, and how much of it."""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option
from nacre.cli.terminal import number, table
from nacre.errors import UsageError

if TYPE_CHECKING:
    from nacre.lifecycle.serve.contract import Allowance
    from nacre.lifecycle.serve.state.keys import Issued, Key, KeyStore

HELP = """
Makes, lists, ends and renews the keys of the gateway. A key's secret is shown once, when it is made or renewed: only
its hash is kept. Limits and revocation hold at once, in a running gateway as well. A gateway of several workers holds
limits only with `state: {limits: redis}`: otherwise it refuses keys that have some (503).

examples:
  nacre serve keys create support-bot
  nacre serve keys create team-b --models "gpt-*,intents" --money 50 --per month --expires 90d
  nacre serve keys create batch --requests-per-minute 60 --tokens-per-minute 100000 --concurrent 4
  nacre serve keys list
  nacre serve keys revoke support-bot
  nacre serve keys rotate team-b --grace 1h              the old secret still works for an hour
"""
ACTIONS = ("create", "list", "revoke", "rotate")
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent", "money", "tokens")
_SPAN = re.compile(r"(\d+)\s*(s|min|h|d|w)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the name of a new key; a key's id, or its name")
    parser.add_argument("--models", metavar="NAMES", help="models it may ask for, by comma; * and ? match (default: *)")
    parser.add_argument("--requests-per-minute", type=int, metavar="N")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N")
    parser.add_argument("--concurrent", type=int, metavar="N", help="requests at once")
    parser.add_argument("--money", type=float, metavar="AMOUNT", help="budget, in the currency of the price list")
    parser.add_argument("--tokens", type=int, metavar="N", help="budget, in tokens")
    parser.add_argument("--per", choices=("life", "day", "month"), help="what the budgets are for (default: life; UTC)")
    parser.add_argument("--expires", metavar="WHEN", help="90d, 12h, or a moment: 2027-01-31")
    parser.add_argument("--admin", action="store_true", help="may see the usage of all keys and manage them")
    parser.add_argument("--grace", metavar="SPAN", help="rotate: how long the old secret still works (default: 0)")
    add_database_option(parser)
    add_json_option(parser)


def add_database_option(parser: ArgumentParser) -> None:
    """`--database` or `--store`: where keys and ledger are."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--database",
        metavar="ADDRESS",
        help="a SQLite file or postgresql://... (default: serve/gateway.db in the store)",
    )
    place.add_argument("--store", metavar="DIR", help="the store that is served (default: $NACRE_HOME, else .nacre)")


def database_of(args: Namespace, *, made: bool = False) -> str:
    """The address that the two options name; UsageError where they name a file that is not there, unless it is to be
    `made`: a mistyped place would be an empty one."""
    from nacre.lifecycle.serve.state.database import default_address, local_file

    address = str(args.database or default_address(args.store))
    file = local_file(address)
    if (args.database or args.store) and not made and file is not None and not file.exists():
        raise UsageError(
            f"there is no gateway database at {file}",
            remedy="check --store or --database; nacre serve keys create NAME makes one",
        )
    return address


def run(args: Namespace) -> int:
    _check(args)
    from nacre.lifecycle.serve.state.keys import KeyStore

    store = KeyStore(database_of(args, made=args.action == "create"))
    try:
        return _run(store, args)
    finally:
        store.close()


def _run(store: KeyStore, args: Namespace) -> int:
    if args.action == "list":
        return _list(store.list(), store.where, as_json=args.json)
    if args.action == "revoke":
        return _say_revoked(store.revoke(args.name), as_json=args.json)
    if args.action == "rotate":
        issued = store.rotate(args.name, grace_s=span_s(args.grace) if args.grace else 0.0)
        return _say(issued, store.where, as_json=args.json)
    issued = store.create(
        args.name,
        models=tuple(name.strip() for name in (args.models or "*").split(",")),
        allowance=_allowance(args),
        expires_at=moment(args.expires, future=True) if args.expires else None,
        is_admin=args.admin,
    )
    return _say(issued, store.where, as_json=args.json)


def span_s(text: str) -> float:
    """Seconds of a span as people write it: `45s`, `30min`, `12h`, `90d`, `2w`."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no span of time", remedy="45s, 30min, 12h, 90d or 2w")
    return float(int(found[1]) * _SECONDS[found[2]])


def moment(text: str, *, future: bool = False) -> float:
    """Unix time of a moment: a span from now (back, or into the future), or a date or time, in UTC unless it says."""
    if _SPAN.fullmatch(text.strip()):
        return time.time() + (span_s(text) if future else -span_s(text))
    try:
        whole = datetime.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d{2}", text) else text)
    except ValueError:
        raise UsageError(f"{text!r} is no moment", remedy="90d, 2026-11, 2026-11-22 or 2026-11-22T08:00") from None
    return (whole if whole.tzinfo else whole.replace(tzinfo=UTC)).timestamp()


def _check(args: Namespace) -> None:
    if args.action != "list" and not args.name:
        raise UsageError(f"nacre serve keys {args.action}: which key?", remedy=f"nacre serve keys {args.action} NAME")
    if args.action == "list" and args.name:
        raise UsageError("nacre serve keys list takes no name", remedy="nacre serve keys list")
    if args.grace and args.action != "rotate":
        raise UsageError("--grace is for rotate", remedy="nacre serve keys rotate NAME --grace 1h")
    given = [name for name in (*_LIMITS, "models", "per", "expires") if getattr(args, name) is not None]
    given += ["admin"] if args.admin else []
    if given and args.action != "create":
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option} is for create", remedy=f"nacre serve keys create NAME --{option} ...")
    if args.per and args.money is None and args.tokens is None:
        raise UsageError("--per is for a budget", remedy=f"add --money AMOUNT or --tokens N to --per {args.per}")


def _allowance(args: Namespace) -> Allowance:
    from nacre.lifecycle.serve.contract import Allowance

    return Allowance(**{name: getattr(args, name) for name in _LIMITS}, per=args.per or "life")


def _say(issued: Issued, where: str, *, as_json: bool) -> int:
    """The secret alone on stdout, so that it can be piped; about it on stderr."""
    if as_json:
        print(json.dumps({**issued.key.plain(time.time()), "secret": issued.secret}, ensure_ascii=False, indent=2))
        return 0
    print(issued.secret)
    caller = issued.key.caller
    print(f"key {caller.id} ({caller.name}), in {where}: this is shown once, keep it", file=sys.stderr)
    return 0


def _say_revoked(key: Key, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(key.plain(time.time()), ensure_ascii=False, indent=2))
    else:
        print(f"key {key.caller.id} ({key.caller.name}) is revoked")
    return 0


def _list(keys: list[Key], where: str, *, as_json: bool) -> int:
    now = time.time()
    if as_json:
        print(json.dumps({"keys": [key.plain(now) for key in keys]}, ensure_ascii=False, indent=2))
        return 0
    if not keys:
        print(f"no keys in {where}: nacre serve keys create NAME", file=sys.stderr)
        return 0
    rows = [
        [
            key.caller.id,
            key.caller.name,
            f"...{key.hint}",
            key.state(now) + (", admin" if key.caller.is_admin else ""),
            _date(key.created_at),
            _date(key.caller.expires_at) or "never",
            _limits(key.caller.allowance),
            ",".join(key.caller.models),
        ]
        for key in keys
    ]
    print(table(rows, ["id", "name", "secret", "state", "made", "expires", "limits", "models"]))
    return 0


def _limits(allowance: Allowance) -> str:
    per = "" if allowance.per == "life" else f" a {allowance.per}"
    words = {
        "requests_per_minute": "{} requests/min", "tokens_per_minute": "{} tokens/min", "concurrent": "{} at once",
        "money": "money {}" + per, "tokens": "{} tokens" + per,
    }  # fmt: skip
    given = {name: getattr(allowance, name) for name in words}
    return ", ".join(words[name].format(number(value)) for name, value in given.items() if value is not None) or "none"


def _date(moment: float | None) -> str:
    if moment is None:
        return ""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment)).strftime("%Y-%m-%d")
