"""The calibration bank of the audit: models whose descent is known, from seeds.

    python benchmarks/audit_bank.py build --part hour --out BANK       # trains the models that are not there yet
    python benchmarks/audit_bank.py calibrate --part hour --out BANK   # null statistics -> calibration.json
    python benchmarks/audit_bank.py develop --part hour --out BANK     # the same side's derived pairs: to mend rules on
    python benchmarks/audit_bank.py report --part hour --out BANK      # the other side -> docs/audit/bank.md

Every model and every measured pair is one file: killed and started again it goes on, and two processes can share a
bank. `calibrate` and `report` build what they need. Parts: pico (for tests), desk (embedded texts only), hour, night.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from audit_bank_parts import calibrating, reporting, stage
from audit_bank_parts.measure import Row, claimed, code_digest, measured
from audit_bank_parts.plan import PARTS, Pair, Part, Spec, pairs, specs
from audit_bank_parts.training import build as build_model
from nacre.errors import NacreError

MEASURE, PROBES = "audit_bank_parts.stage:measure", "audit_bank_parts.stage:probes"

# Code that judges statistics and makes none.
NOT_IN_A_STATISTIC = (
    "policy.py", "kinds.py", "delta.py", "align.py", "levels.py", "attention.py", "control.py", "mixture.py",
    "direction.py",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0, or the exit code of the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("build", "calibrate", "develop", "report"))
    parser.add_argument("--part", choices=sorted(PARTS), default="hour")
    parser.add_argument("--out", type=Path, required=True, help="the bank's folder")
    parser.add_argument("--measure", help="module:function that judges two folders")
    parser.add_argument("--table", type=Path, default=calibrating.TABLE, help="the calibration table")
    parser.add_argument("--page", type=Path, default=reporting.PAGE, help="the page that report writes")
    parser.add_argument("--only", help="pairs whose group holds this word (report then prints and writes no page)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    part, bank = PARTS[given.part], given.out / given.part
    try:
        if given.command == "build":
            build(specs(part), bank)
        elif given.command == "calibrate":
            how = given.measure or PROBES
            rows = judge(part, _nulls(part), bank, how, code_digest(how, NOT_IN_A_STATISTIC))
            calibrating.write(given.table, part, rows, bank)
        elif given.command == "develop":
            develop(part, bank, given)
        else:
            report(part, bank, given)
    except NacreError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def build(wanted: Iterable[Spec], bank: Path) -> None:
    """Trains what is missing, parents first. A model that another process trains is waited for at the end."""
    todo = list(wanted)
    while todo:
        later: list[Spec] = []
        for spec in todo:
            waits = spec.parent is not None and any(one.name == spec.parent for one in later)
            with claimed(bank / "models" / spec.name) as free:
                if waits or not free:
                    later.append(spec)
                elif build_model(spec, bank):
                    print(f"{time.strftime('%H:%M:%S')} trained {spec.name}", file=sys.stderr, flush=True)
        if len(later) == len(todo):
            time.sleep(2)
        todo = later


def judge(part: Part, wanted: list[Pair], bank: Path, measure: str, key: str) -> list[Row]:
    """The rows of pairs, with their models built first."""
    build(_needed(part, wanted), bank)
    rows: dict[str, Row] = {}
    todo = list(wanted)
    while todo:
        later = []
        for pair in todo:
            with claimed(bank / "pairs" / pair.side / pair.name) as free:
                if free:
                    rows[pair.name] = measured(pair, bank, measure, key)
                else:
                    later.append(pair)
            if free and (len(rows) % 50 == 0 or len(rows) == len(wanted)):
                print(f"{time.strftime('%H:%M:%S')} {len(rows)} of {len(wanted)} pairs", file=sys.stderr, flush=True)
        todo = later
    return [rows[pair.name] for pair in wanted]


def develop(part: Part, bank: Path, given: argparse.Namespace) -> None:
    """Judges what descends from something on the calibration side, and prints: rules are mended on it, never on the
    other side."""
    related = [pair for pair in pairs(part, "calibration") if pair.truth != "stranger"]
    _print(_verdicts(part, related, bank, given))


def report(part: Part, bank: Path, given: argparse.Namespace) -> None:
    """Judges the report side with the table of the calibration side, and writes the page."""
    rows = _verdicts(part, pairs(part, "report"), bank, given)
    if given.only is None:
        reporting.write(given.page, part, rows, calibrating.load(given.table), bank)
        calibrating.add_power(given.table, reporting.power(rows))
    else:
        _print(rows)


def _verdicts(part: Part, wanted: list[Pair], bank: Path, given: argparse.Namespace) -> list[Row]:
    how = given.measure or MEASURE
    stage.TABLE = given.table
    key = code_digest(how) + calibrating.digest(given.table)
    return judge(part, [one for one in wanted if given.only is None or given.only in one.group], bank, how, key)


def _print(rows: list[Row]) -> None:
    print(reporting.confusion(rows))
    print(reporting.misses(rows))


def _nulls(part: Part) -> list[Pair]:
    """The pairs that calibrate: strangers, and students of a model's outputs, which share no weights with it."""
    return [pair for pair in pairs(part, "calibration") if pair.truth == "stranger"]


def _needed(part: Part, wanted: list[Pair]) -> list[Spec]:
    """The models that pairs rest on, parents first."""
    by_name = {spec.name: spec for spec in specs(part)}
    needed: set[str] = set()
    for pair in wanted:
        for name in (pair.source, pair.reference, pair.other):
            while name is not None and name not in needed:
                needed.add(name)
                name = by_name[name].parent
    return [spec for name, spec in by_name.items() if name in needed]


if __name__ == "__main__":
    sys.exit(main())
