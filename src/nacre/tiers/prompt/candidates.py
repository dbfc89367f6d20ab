"""Candidates of a search: instructions times selections of demonstrations, all from training rows, drawn by seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nacre.metrics.quality import Kind
from nacre.tiers.asking.wording import (
    Demonstration,
    Instruction,
    default_instruction,
    demonstration,
    is_chinese,
)
from nacre.tiers.rung import Answer
from nacre.tiers.task import Row, Task, text_of

_POOL = 400  # rows among which the diverse ones are looked for

# What is put before the task's own instruction, by language. Own wording; `{about}` is the task's instruction.
SHIPPED: Mapping[str, Mapping[str, str]] = {
    "en": {
        "careful": "{about}\nRead the whole text first. Judge by what it means as a whole, not by single words.",
        "expert": "You are an experienced specialist for the following work, and your answers are used as they are.\n"
        "{about}",
    },
    "zh": {
        "careful": "{about}\n先通读全文，按整体意思判断，不要只看个别词语。",
        "expert": "你是从事下面这项工作的资深专家，你的回答会被直接采用。\n{about}",
    },
}
_BETWEEN_LABELS: Mapping[str, str] = {
    "en": "{about}\nSome labels are close to each other: weigh the two that fit best before you decide.",
    "zh": "{about}\n有些标签彼此相近：先比较最符合的两个，再作决定。",
}


@dataclass(frozen=True)
class Selection:
    """Demonstrations and how they were selected: `none`, `balanced`, `confused` or `diverse`."""

    name: str
    rows: tuple[Demonstration, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One prompt of the search. `wording` names the instruction, `length` counts what the prompt says besides a row."""

    wording: str
    selection: str
    instruction: Instruction

    @property
    def name(self) -> str:
        return f"{self.wording} + {self.selection}" if self.instruction.demonstrations else self.wording

    @property
    def length(self) -> int:
        """Characters of instruction and demonstrations: of equals the shorter prompt wins."""
        shown = sum(len(one.asked) + len(one.answered) for one in self.instruction.demonstrations)
        return len(self.instruction.text) + shown


def instructions(task: Task, proposed: Sequence[str]) -> dict[str, str]:
    """Instructions by name: the default, those that the engine proposed, those that Nacre ships, each once."""
    default = default_instruction(task).text
    language = "zh" if is_chinese(task.language) else "en"
    shipped = dict(SHIPPED[language])
    if task.kind == "classify" and len(task.labels) > 2:
        shipped["close labels"] = _BETWEEN_LABELS[language]
    named = {"default": default}
    named |= {f"proposed {number}": text for number, text in enumerate(proposed, 1)}
    named |= {name: text.format(about=default) for name, text in shipped.items()}
    first = {text: name for name, text in reversed(list(named.items()))}
    return {name: text for name, text in named.items() if first[text] == name}


def product(wordings: Mapping[str, str], selections: Sequence[Selection]) -> list[Candidate]:
    """Every instruction with every selection, those first that are early in both lists: what a small budget keeps."""
    pairs = [
        (row + column, row, Candidate(name, chosen.name, Instruction(text, chosen.rows)))
        for row, (name, text) in enumerate(wordings.items())
        for column, chosen in enumerate(selections)
    ]
    return [one for _, _, one in sorted(pairs, key=lambda pair: pair[:2])]


def selections(
    task: Task, rows: Sequence[Row], n: int, confusions: Sequence[tuple[str, str]], seed: int
) -> list[Selection]:
    """No demonstrations, and `n` of `rows` in each way that the task has. `confusions` are (true, said) labels."""
    found = [Selection("none")]
    if n < 1 or not rows:
        return found
    order = random.Random(f"demonstrations {seed}").sample(range(len(rows)), len(rows))
    shuffled = [rows[index] for index in order]
    ways = {"balanced": balanced(shuffled, task.kind, n), "diverse": diverse(shuffled[:_POOL], task.kind, n)}
    if task.kind == "classify":
        ways["confused"] = confused(shuffled, confusions, n)
    taken: set[tuple[str, ...]] = set()
    for name, chosen in ways.items():
        key = tuple(sorted(str(row.get("id", text_of(row, task.kind))) for row in chosen))
        if chosen and key not in taken:
            taken.add(key)
            found.append(Selection(name, tuple(_shown(task, row) for row in chosen)))
    return found


def balanced(rows: Sequence[Row], kind: Kind, n: int) -> list[Row]:
    """The first rows of each class in turn; of tagged rows those that add entity types; of other kinds the first."""
    if kind == "tag":
        return _covering(rows, n)
    if kind != "classify":
        return list(rows[:n])
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    turns = max(map(len, by_label.values()))
    return [group[turn] for turn in range(turns) for group in by_label.values() if turn < len(group)][:n]


def confused(rows: Sequence[Row], confusions: Sequence[tuple[str, str]], n: int) -> list[Row]:
    """Rows of the labels that are most often taken for one another, the most confused first; empty without any."""
    counts = Counter(label for pair in confusions for label in pair)
    worst = [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:n]
    chosen = [row for row in rows if row["label"] in worst]
    return balanced(chosen, "classify", n) if chosen else []


def diverse(rows: Sequence[Row], kind: Kind, n: int) -> list[Row]:
    """Rows that share the fewest character pairs with those taken before: farthest first, by Jaccard distance."""
    grams = [_pairs(text_of(row, kind)) for row in rows]
    taken = [0]
    nearest = [_likeness(grams[0], one) for one in grams]
    while len(taken) < min(n, len(rows)):
        index = min((one for one in range(len(rows)) if one not in taken), key=lambda one: (nearest[one], one))
        taken.append(index)
        nearest = [max(old, _likeness(grams[index], one)) for old, one in zip(nearest, grams, strict=True)]
    return [rows[index] for index in taken]


def short_enough(task: Task, rows: Sequence[Row], most: int) -> list[Row]:
    """The rows whose text, and answer where one is written, has at most `most` characters."""
    return [row for row in rows if len(text_of(row, task.kind)) <= most and _answer_size(task, row) <= most]


def confusions(rows: Sequence[Row], answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """(true, said) of every row of a task with classes that was given another class."""
    pairs = zip(rows, answers, strict=True)
    return [(row["label"], one.value) for row, one in pairs if one.value not in (None, row["label"])]


def _covering(rows: Sequence[Row], n: int) -> list[Row]:
    chosen: list[Row] = []
    seen: set[str] = set()
    left = list(rows)
    while left and len(chosen) < n:
        row = max(left, key=lambda one: len(set(one["tags"]) - seen))
        if not set(row["tags"]) - seen:
            seen = set()  # every type is shown: from here on the next round
            row = left[0]
        chosen.append(row)
        left.remove(row)
        seen |= set(row["tags"])
    return chosen


def _shown(task: Task, row: Row) -> Demonstration:
    one = demonstration(task, row)
    return Demonstration(one.asked, one.answered.strip("\n"))


def _answer_size(task: Task, row: Row) -> int:
    return len(demonstration(task, row).answered) if task.kind == "generate" else 0


def _pairs(text: str) -> frozenset[str]:
    folded = text.casefold()
    return frozenset(folded[index : index + 2] for index in range(max(len(folded) - 1, 1)))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
