"""Who is right about which class of pairs: public programs and `nacre audit`, asked about the same folders.

    python benchmarks/audit_peers.py --peers DIR --pairs BANK --out CSV [--python PATH] [--only PROGRAM] [--page PAGE]

DIR holds checkouts of the public repositories, as they are, in folders named awm, huref, tracing and cisco; PATH is an
interpreter that has what they need. BANK is a part of the bank of audit_bank.py (its folder `hour`). Every answer is a
row of CSV as soon as it is there: run again, the script asks only what is missing. A program without a checkout is a
line that says so. The tables are printed, and with --page put between the page's two marks.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import record
from audit_bank_parts.measure import code_digest
from audit_bank_parts.plan import PARTS
from audit_peers_parts import counting
from audit_peers_parts.cases import Case, cases, folders, missing, reading

WORKER = Path(__file__).parent / "audit_peers_parts" / "worker.py"
FOLDERS = {"AWM": "awm", "HuRef": "huref", "CSW": "tracing", "MATCH": "tracing", "model-provenance-kit": "cisco"}
NACRE = "nacre audit"
PROGRAMS = (NACRE, *FOLDERS)
SCORES_ONLY = ("AWM", "HuRef")
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def main() -> None:
    """Asks what is not answered yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder of checkouts")
    parser.add_argument("--pairs", type=Path, required=True, help="folder of a part of the bank")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "audit_peers.csv")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter of the public programs")
    parser.add_argument("--only", choices=PROGRAMS, action="append", help="this program (may be given again)")
    parser.add_argument("--page", type=Path, help="page whose tables are renewed")
    given = parser.parse_args()
    wanted = cases(PARTS[given.pairs.name])
    for case in wanted:
        if lacks := missing(case, given.pairs):
            sys.exit(f"{given.pairs} lacks {', '.join(lacks)}: build the bank first (audit_bank.py build)")
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        for program in given.only or PROGRAMS:
            ask(program, wanted, given, Path(scratch))
    show(given)


def ask(program: str, wanted: list[Case], given: argparse.Namespace, scratch: Path) -> None:
    """Adds the rows of one program that the file does not have for its revision."""
    checkout = given.peers / FOLDERS.get(program, "")
    if not checkout.is_dir():
        print(f"{program}: not run, no checkout at {checkout}")
        return
    revision = _revision(program, checkout)
    known = {(row["program"], row["revision"], row["pair"]) for row in _rows(given.out)}
    todo = [one for one in wanted if one.half == "report" or program in SCORES_ONLY]
    todo = [one for one in todo if (program, revision, one.pair.name) not in known]
    if not todo:
        return
    interpreter = Path(sys.executable) if program == NACRE else given.python
    with _worker(interpreter, program, checkout) as worker:
        where = record.machine(["nacre"])
        for number, case in enumerate(todo, 1):
            answer = worker(*folders(case, given.pairs, scratch), reading(case, scratch))
            _append(given.out, {**_row(program, revision, case, answer), **where})
            if number % 20 == 0 or number == len(todo):
                print(f"{program}: {number} of {len(todo)}", file=sys.stderr, flush=True)


def _row(program: str, revision: str, case: Case, answer: dict[str, Any]) -> dict[str, Any]:
    told = {"score": answer.get("score"), "second": answer.get("second"), "said": answer.get("said")}
    failed, seconds = answer.get("error", ""), answer["seconds"]
    about = {"program": program, "revision": revision, "class": case.group, "truth": case.truth, "pair": case.pair.name}
    return {**about, **told, "failed": failed, "seconds": seconds}


def _revision(program: str, checkout: Path) -> str:
    """The commit of a checkout; of Nacre the digest of the code that judges."""
    if program == NACRE:
        return code_digest("weights")[:12]
    command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def _worker(interpreter: Path, program: str, checkout: Path) -> Iterator[Any]:
    """A process that answers about pairs until the block ends. Raises RuntimeError with its last words if it dies."""
    with tempfile.TemporaryFile("w+") as log:
        command = [str(interpreter), str(WORKER), program, str(checkout)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        told, heard = process.stdin, process.stdout

        def ask_about(subject: Path, reference: Path, texts: Path) -> dict[str, Any]:
            job = {"subject": str(subject), "reference": str(reference), "texts": str(texts)}
            if process.poll() is None:
                print(json.dumps(job), file=told, flush=True)
            line = heard.readline()
            if not line:
                log.seek(0)
                raise RuntimeError(f"{program} ended: {log.read()[-2000:]}")
            answer: dict[str, Any] = json.loads(line)
            return answer

        try:
            yield ask_about
        finally:
            told.close()
            process.wait(timeout=60)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def latest(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The last answer of each program to each pair: older revisions stay in the file and out of the tables."""
    return list({(row["program"], row["pair"]): row for row in rows}.values())


def show(given: argparse.Namespace) -> None:
    """Prints the tables of the file's rows, and renews them on the page."""
    rows = latest(_rows(given.out))
    programs = [one for one in PROGRAMS if any(row["program"] == one for row in rows)]
    scored = [one for one in programs if one != NACRE]
    text = "\n\n".join((counting.table(rows, programs), counting.areas(rows, scored), counting.thresholds(rows)))
    print(text)
    if given.page:
        page = given.page.read_text(encoding="utf-8")
        before, _, rest = page.partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        given.page.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
