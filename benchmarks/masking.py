"""Precision and recall of masking, by kind, beside Microsoft Presidio on the same texts; time per text.

    python benchmarks/masking.py [--presidio VENV/bin/python] [--sets zh-tuned,zh-held-out,en-valid,en-test]
                                 [--errors] [--record]

A finding is right where its placeholder, beginning and end are (`exact`), or where its placeholder is and it covers the
whole value (`covered`: what matters for a leak). Chinese sets: `masking_parts`. English: pii-en-synthetic, its
six types that rules can find. Presidio stands in an environment of its own, without a language model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masking_parts.corpus import ENGLISH, Sentence, chinese, english, natural
from nacre.data.masking import KINDS, find
from record import append, machine

Span = tuple[str, int, int]
SETS = ("zh-tuned", "zh-held-out", "en-train", "en-valid", "en-test", "natural-zh", "natural-en")
PHONES = ("mobile", "landline")  # whose placeholder is the same as that of `phone`


@dataclass
class Tally:
    """Counts of one kind."""

    labelled: int = 0
    found: int = 0
    exact: int = 0
    covered: int = 0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def sentences(name: str) -> list[Sentence]:
    language, _, part = name.partition("-")
    if language == "natural":
        return natural(part)
    return chinese(part.replace("-", "_")) if language == "zh" else english(part)


def count(texts: Sequence[Sentence], findings: Iterable[set[Span]]) -> dict[str, Tally]:
    """By kind, and in `all`."""
    tallies: dict[str, Tally] = {}
    for sentence, raw in zip(texts, findings, strict=True):
        found = {as_labelled(span, sentence.spans) for span in raw}
        for span in sentence.spans:
            for kind in (span[0], "all"):
                one = tallies.setdefault(kind, Tally())
                one.labelled += 1
                one.exact += span in found
                is_covered = any(covers(other, span) for other in found)
                one.covered += is_covered
                if not is_covered:
                    one.missed.append(f"{span[0]} {sentence.text[span[1] : span[2]]!r} in {sentence.text!r}")
        for span in found:
            for kind in (span[0], "all"):
                one = tallies.setdefault(kind, Tally())
                one.found += 1
                if span not in sentence.spans:
                    one.wrong.append(f"{span[0]} {sentence.text[span[1] : span[2]]!r} in {sentence.text!r}")
    return tallies


def as_labelled(found: Span, labelled: Iterable[Span]) -> Span:
    """A finding under the label's kind where both have one placeholder and one place: `phone` for `mobile` is right."""
    same = (one for one in labelled if one[1:] == found[1:] and KINDS[one[0]].label == KINDS[found[0]].label)
    return next(same, found)


def covers(found: Span, labelled: Span) -> bool:
    return (
        KINDS[found[0]].label == KINDS[labelled[0]].label and found[1] <= labelled[1] and found[2] >= labelled[2]
    )  # fmt: skip


def ours(texts: Sequence[Sentence], kinds: Sequence[str] | None) -> tuple[list[set[Span]], float]:
    """Findings, and seconds of processor time."""
    for one in texts[:20]:
        find(one.text, kinds)
    began = time.process_time()
    found = [find(one.text, kinds) for one in texts]
    seconds = time.process_time() - began
    return [{(one.kind, one.start, one.end) for one in some} for some in found], seconds


def presidio(python: str, texts: Sequence[Sentence]) -> tuple[list[set[Span]], float, str]:
    """Its findings, seconds of processor time, version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        path.write_text("".join(json.dumps(one.text) + "\n" for one in texts), encoding="utf-8")
        worker = Path(__file__).parent / "masking_parts" / "presidio.py"
        done = subprocess.run([python, str(worker), str(path)], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return [{(k, s, e) for k, s, e in some} for some in answer["found"]], answer["seconds"], answer["version"]


def rows_of(
    name: str, who: str, tallies: dict[str, Tally], texts: Sequence[Sentence], seconds: float
) -> list[dict[str, Any]]:
    rows = []
    tallies.setdefault("all", Tally())
    for kind in sorted(tallies, key=lambda one: (one == "all", one)):
        one = tallies[kind]
        rows.append(
            {
                "set": name, "who": who, "kind": kind, "texts": len(texts),
                "characters": sum(len(one.text) for one in texts), "labelled": one.labelled, "found": one.found,
                "exact": one.exact, "covered": one.covered,
                "precision": round(one.exact / one.found, 4) if one.found else "",
                "recall": round(one.exact / one.labelled, 4) if one.labelled else "",
                "recall_covered": round(one.covered / one.labelled, 4) if one.labelled else "",
                "us_per_text": round(seconds / len(texts) * 1e6, 1) if kind == "all" else "",
            }
        )  # fmt: skip
    return rows


def show(rows: Sequence[dict[str, Any]], tallies: dict[str, Tally], errors: bool) -> None:
    for row in rows:
        print(
            f"{row['set']:<12}{row['who']:<18}{row['kind']:<16}{row['labelled']:>6}{row['found']:>6}"
            f"  precision {row['precision']!s:<7} recall {row['recall']!s:<7} covered {row['recall_covered']!s:<7}"
            f" {row['us_per_text']} us"
        )
    if errors:
        total = tallies.get("all", Tally())
        for what, cases in (("wrong", total.wrong), ("missed", total.missed)):
            for case, times in Counter(cases).most_common(60):
                print(f"  {what} {times}: {case[:200]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presidio", help="the Python of an environment with presidio-analyzer")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--errors", action="store_true", help="print what was wrong and what was missed")
    parser.add_argument("--record", action="store_true", help="append to results/masking.csv")
    args = parser.parse_args()
    here = machine()
    for name in args.sets.split(","):
        texts = sentences(name)
        kinds = sorted({*ENGLISH.values(), *PHONES}) if name.startswith("en") else None
        found, seconds = ours(texts, kinds)
        answers = [("nacre", found, seconds)]
        if args.presidio and not name.startswith("natural"):
            theirs, their_seconds, version = presidio(args.presidio, texts)
            answers.append((f"presidio {version}", theirs, their_seconds))
        for who, findings, took in answers:
            tallies = count(texts, findings)
            rows = rows_of(name, who, tallies, texts, took)
            show(rows, tallies, args.errors)
            if args.record:
                append("masking", [{**here, **row} for row in rows])


if __name__ == "__main__":
    main()
