"""What a report can hold. Every part is optional; a part that is not given is not drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nacre.metrics.bootstrap import Difference, Interval
from nacre.metrics.classification import Calibration, Ints, Roc

Language = Literal["en", "zh"]
Style = Literal["percent", "number", "count"]


@dataclass(frozen=True)
class Figure:
    """One headline figure. `name` is a key of `words` or a plain text; `percent` values lie in 0..1."""

    name: str
    value: Interval | float
    style: Style = "percent"
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One training run: rows of `logs/metrics.jsonl`, each with `step` and metrics."""

    name: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction. `confidence` is None when the model gives none."""

    text: str
    true: str
    predicted: str
    confidence: float | None = None


@dataclass(frozen=True)
class ClassRow:
    """Scores of one class or entity kind, in 0..1, and its number of examples."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Comparison:
    """The model against a baseline on the same examples: `difference` is model minus baseline."""

    baseline: str
    metric: str
    baseline_value: float
    difference: Difference


@dataclass(frozen=True)
class Table:
    """A table under a title (a key of `words`): its head, its rows of text, and a sentence that explains it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    about: str = ""


@dataclass(frozen=True)
class Sample:
    """A generated text, its prompt or source, a reference, and short remarks (form, rhyme, parses, copied)."""

    text: str
    source: str = ""
    reference: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Ancestor:
    """One node of the lineage tree. `relation` says how its child relates to it; licence "" is unknown."""

    ref: str
    kind: str = ""
    relation: str = ""
    licence: str = ""
    origin: str = ""
    basis: str = ""
    parents: Sequence[Ancestor] = ()


@dataclass(frozen=True)
class Part:
    """A part of the kernel and its parameters."""

    name: str
    parameters: int


@dataclass(frozen=True)
class Anatomy:
    """Parts in depth order, and named facts (layers, memory, FLOPs per token) in the order to show."""

    parts: Sequence[Part]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that one evaluation says. `data` holds data reports (`report.json`) by name."""

    title: str
    verdict: str
    language: Language = "en"
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    comparison: Comparison | None = None
    tables: Sequence[Table] = ()
    runs: Sequence[Run] = ()
    rocs: Mapping[str, Roc] = field(default_factory=dict)
    labels: Sequence[str] = ()
    confusion: Ints | None = None
    classes: Sequence[ClassRow] = ()
    calibration: Calibration | None = None
    mistakes: Sequence[Mistake] = ()
    samples: Sequence[Sample] = ()
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lineage: Ancestor | None = None
    anatomy: Anatomy | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
