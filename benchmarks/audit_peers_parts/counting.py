"""From rows to who is right: every program's answer by the rule that its authors publish, and the table of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from audit_peers_parts.cases import GROUPS

Row = dict[str, str]
LEVEL = 0.01  # chance of error that every program is held to where its authors leave the level to the user
ANSWERS = ("related", "unrelated", "shared-init", "abstained", "failed")
_WORDS = {
    "IDENTICAL": "related",
    "DERIVED": "related",
    "SHARED_INIT": "shared-init",
    "SAME_DESIGN": "unrelated",
    "NO_EVIDENCE": "unrelated",
}
_DECISIONS = {"Confirmed Match": "related", "High-Confidence Match": "related", "Not Matched": "unrelated"}
# What is right by class. Of a pair with a common initialisation a program that tests independence is right to reject
# it, and one that asks for derivation is right to deny it; only a verdict of its own tells the two apart.
INDEPENDENCE = ("CSW", "MATCH")


def threshold(rows: Iterable[Row]) -> float | None:
    """The least score whose conformal p-value against the calibration pairs is at most LEVEL; None with too few."""
    nulls = sorted(
        (float(one["score"]) for one in rows if one["class"] == "calibration" and one["score"]), reverse=True
    )
    allowed = math.floor(LEVEL * (len(nulls) + 1)) - 1
    return None if allowed < 0 else math.nextafter(nulls[allowed], math.inf)


def answers(program: str, rows: Sequence[Row]) -> Callable[[Row], str]:
    """How a program's row reads: one of ANSWERS."""
    at = threshold(rows) if program in ("AWM", "HuRef") else -LEVEL

    def answer(row: Row) -> str:
        if row["failed"]:
            return "failed"
        if program == "nacre audit":
            return _WORDS.get(row["said"].split(" ")[0], "abstained")
        if program == "model-provenance-kit":
            return _DECISIONS.get(row["said"].partition(" (")[0], "abstained")
        if at is None:
            return "abstained"
        return "related" if float(row["score"]) >= at else "unrelated"

    return answer


def right(program: str, group: str) -> str:
    """The answer that is right for a class, by the question the program asks."""
    if group in ("same recipe", "other recipe", "distilled from outputs"):
        return "unrelated"
    if group != "shared init":
        return "related"
    if program == "nacre audit":
        return "shared-init"
    return "related" if program in INDEPENDENCE else "unrelated"


def area(rows: Iterable[Row], group: str) -> float | None:
    """AUC of the score: pairs of a class against both classes of strangers on the report side; None without scores."""
    scored = [one for one in rows if one["score"]]
    nulls = [float(one["score"]) for one in scored if one["class"] in ("same recipe", "other recipe")]
    found = [float(one["score"]) for one in scored if one["class"] == group]
    if not nulls or not found:
        return None
    wins = sum((a > b) + 0.5 * (a == b) for a in found for b in nulls)
    return wins / (len(nulls) * len(found))


def table(rows: Sequence[Row], programs: Sequence[str]) -> str:
    """Markdown: of each class, right / wrong / abstained / failed per program; then seconds a pair and AUC."""
    by_program = {name: [one for one in rows if one["program"] == name] for name in programs}
    asked = {name: answers(name, found) for name, found in by_program.items()}
    lines = ["| class | pairs | " + " | ".join(programs) + " |", "|---|---:|" + "---|" * len(programs)]
    for group in GROUPS[1:]:
        pairs = {one["pair"] for one in rows if one["class"] == group}
        cells = [_cell(name, group, by_program[name], asked[name]) for name in programs]
        lines.append(f"| {group} | {len(pairs)} | " + " | ".join(cells) + " |")
    seconds = [[float(one["seconds"]) for one in by_program[name] if not one["failed"]] for name in programs]
    lines.append(
        "| seconds a pair, median | | " + " | ".join(f"{median(one):.2f}" if one else "" for one in seconds) + " |"
    )
    return "\n".join(lines)


def _cell(program: str, group: str, rows: list[Row], answer: Callable[[Row], str]) -> str:
    """`7 right, 2 wrong`: only what happened; what a wrong answer was is said for a common initialisation."""
    found = [answer(one) for one in rows if one["class"] == group]
    wanted = right(program, group)
    counts = {"right": 0, "wrong": 0, "abstained": 0, "failed": 0}
    for one in found:
        counts["right" if one == wanted else one if one in counts else "wrong"] += 1
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "not run"


def areas(rows: Sequence[Row], programs: Sequence[str]) -> str:
    """Markdown: AUC by class of the programs whose answer rests on one score."""
    lines = ["| AUC against the strangers | " + " | ".join(programs) + " |", "|---|" + "---:|" * len(programs)]
    for group in GROUPS[3:]:
        cells = []
        for name in programs:
            found = area([one for one in rows if one["program"] == name], group)
            cells.append("" if found is None else f"{found:.3f}")
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def thresholds(rows: Sequence[Row]) -> str:
    """One line per program that publishes only a score: where its threshold was fixed and on how many pairs."""
    lines = []
    for name in ("AWM", "HuRef"):
        found = [one for one in rows if one["program"] == name]
        if not found:
            continue
        nulls = [one for one in found if one["class"] == "calibration" and one["score"]]
        at = threshold(found)
        said = "too few to fix one" if at is None else f"{at:.4g}"
        lines.append(f"- {name}: threshold {said}, from {len(nulls)} strangers of the calibration half")
    return "\n".join(lines)
