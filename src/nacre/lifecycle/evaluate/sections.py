"""The sections of a report: each turns its part of the content into HTML, or into "" when there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nacre.lifecycle.evaluate import plots
from nacre.lifecycle.evaluate.content import Ancestor, ClassRow, Figure, Report, Style
from nacre.lifecycle.evaluate.heatmap import heatmap
from nacre.lifecycle.evaluate.markup import Cell, Html, bar, ends, figure, folded, number, percent, table, text
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics.bootstrap import Interval
from nacre.metrics.classification import worst_pairs

FOLD_ABOVE = 20  # rows of a table that are shown at once


def results(report: Report, words: Words) -> str:
    """Headline figures as cards with their intervals."""
    cards = "".join(_card(item, words) for item in report.figures)
    return f'<div class="cards">{cards}</div>' if cards else ""


def _card(item: Figure, words: Words) -> str:
    value = item.value.value if isinstance(item.value, Interval) else item.value
    small = ""
    if isinstance(item.value, Interval):
        low, high = ends(item.value, item.style)
        note = words("interval_note", level=f"{100 * item.value.level:g}", low=low, high=high)
        small = _whisker(item.value, item.style) + f"<small>{text(note)}</small>"
    if item.note:
        small += f"<small>{text(item.note)}</small>"
    return f'<div class="card"><h3>{text(words.name(item.name))}</h3><b>{number(value, item.style)}</b>{small}</div>'


def _whisker(interval: Interval, style: Style) -> str:
    """The interval on a line from 0 to 1; only shares have such a line."""
    if style != "percent":
        return ""
    low, high = 100 * interval.low, 100 * interval.high
    place = f"left:{low:.1f}%;width:{max(high - low, 0.8):.1f}%"
    return f'<span class="whisker" aria-hidden="true"><i style="{place}"></i></span>'


def comparison(report: Report, words: Words) -> str:
    """Model, baseline, difference with interval and p-value."""
    if report.comparison is None:
        return ""
    item = report.comparison
    gap = item.difference
    span = f"{100 * gap.low:+.1f} … {100 * gap.high:+.1f}"
    row = (
        words.name(item.metric), percent(item.baseline_value + gap.value), percent(item.baseline_value),
        f"{100 * gap.value:+.1f}", span, f"{gap.p_value:.3f}",
    )  # fmt: skip
    head = [words(key) for key in ("metric", "model", "baseline", "difference", "interval", "p_value")]
    head[2] += f" ({item.baseline})"
    return table(head, [row], numeric=range(1, 6))


def tables(report: Report, words: Words) -> str:
    """What an evaluation of several systems or stages lays side by side."""
    parts = []
    for item in report.tables:
        about = f"<p>{text(item.about)}</p>" if item.about else ""
        numeric = range(1, len(item.head))
        parts.append(about + table(item.head, item.rows, numeric, caption=words.name(item.title)))
    return "".join(parts)


def training(report: Report, words: Words) -> str:
    """Loss and learning rate."""
    runs = [run for run in report.runs if any("step" in row for row in run.rows)]
    if not runs:
        return ""
    drawing, keys, drawn, logged = plots.training_curves(runs, words)
    note = "" if drawn == logged else words("about_training", drawn=f"{drawn:,}", total=f"{logged:,}")
    return figure(drawing, note, keys)


def roc(report: Report, words: Words) -> str:
    """ROC curves."""
    if not report.rocs:
        return ""
    drawing, keys = plots.roc_curves({words.name(name): curve for name, curve in report.rocs.items()}, words)
    return figure(drawing, words("about_roc"), keys)


def calibration(report: Report, words: Words) -> str:
    """Accuracy over confidence."""
    if report.calibration is None:
        return ""
    return figure(plots.calibration_curve(report.calibration, words), words("about_calibration"))


def confusion(report: Report, words: Words) -> str:
    """The most confused pairs, then the heat map."""
    if report.confusion is None:
        return ""
    pairs = [
        (report.labels[i], report.labels[j], count, percent(share))
        for i, j, count, share in worst_pairs(report.confusion, limit=15)
    ]
    head = [words(key) for key in ("true", "predicted", "count", "share")]
    listing = table(head, pairs, numeric=(2, 3), caption=words("confused")) if pairs else ""
    drawing = figure(heatmap(report.confusion, report.labels, words), words("about_confusion"))
    return listing + drawing if len(report.labels) > 12 else drawing + listing


def classes(report: Report, words: Words) -> str:
    """Scores per class, the weakest first."""
    rows = sorted(report.classes, key=lambda row: (row.f1, row.label))
    head = [words(key) for key in ("class", "precision", "recall", "f1", "support")]

    def cells(row: ClassRow) -> tuple[Cell, ...]:
        return row.label, bar(row.precision), bar(row.recall), bar(row.f1), row.support

    return _maybe_folded(head, [cells(row) for row in rows], words, numeric=(4,))


def _maybe_folded(head: list[str], rows: list[tuple[Cell, ...]], words: Words, numeric: tuple[int, ...] = ()) -> str:
    if not rows:
        return ""
    first = table(head, rows[:FOLD_ABOVE], numeric)
    rest = rows[FOLD_ABOVE:]
    return first + (folded(words("show_all", n=len(rows)), table(head, rest, numeric)) if rest else "")


def mistakes(report: Report, words: Words) -> str:
    """Wrong predictions, the most confident first."""
    head = [words(key) for key in ("text", "true", "predicted", "confidence")]
    rows: list[tuple[Cell, ...]] = [
        (Html(f"<q>{text(item.text)}</q>"), item.true, item.predicted, _confidence(item.confidence))
        for item in report.mistakes
    ]
    return _maybe_folded(head, rows, words, numeric=(3,))


def _confidence(value: float | None) -> str:
    return "–" if value is None else percent(value)


def samples(report: Report, words: Words) -> str:
    """Generated texts with what the checks say of each."""
    items = []
    for sample in report.samples:
        around = "".join(
            f"<dt>{text(words(key))}</dt><dd>{text(value)}</dd>"
            for key, value in (("source", sample.source), ("reference", sample.reference))
            if value
        )
        tags = "".join(f"<li>{text(remark)}</li>" for remark in sample.remarks)
        items.append(
            f"<li><pre>{text(sample.text)}</pre>{f'<dl>{around}</dl>' if around else ''}"
            f"{f'<ul class=tags>{tags}</ul>' if tags else ''}</li>"
        )
    return f'<ol class="samples">{"".join(items)}</ol>' if items else ""


def data(report: Report, words: Words) -> str:
    """What every data step dropped, changed or noted, why, with a sample."""
    return "".join(_data_report(name, content, words) for name, content in report.data.items())


def _data_report(name: str, content: Mapping[str, Any], words: Words) -> str:
    head = [words(key) for key in ("data_step", "rows_in", "rows_out", "dropped", "reason", "example")]
    rows: list[tuple[Cell, ...]] = []
    for step in content.get("steps", ()):
        total = sum(int(event["count"]) for event in step.get("dropped", {}).values())
        rows.append((Html(f"<b>{text(str(step['step']))}</b>"), step["rows_in"], step["rows_out"], total, "", ""))
        for kind in ("dropped", "changed", "noted"):
            events = sorted(step.get(kind, {}).items(), key=lambda item: (-item[1]["count"], item[0]))
            rows += [("", "", "", event["count"], *_why(kind, reason, event, words)) for reason, event in events]
    return table(head, rows, numeric=(1, 2, 3), caption=name) if rows else ""


def _why(kind: str, reason: str, event: Mapping[str, Any], words: Words) -> tuple[Cell, Cell]:
    first: Mapping[str, Any] = next(iter(event.get("samples", ())), {})
    shown = " ".join(str(value) for value in first.values())
    return f"{words(kind)}: {reason}", Html(f"<q>{text(shown)}</q>") if shown else ""


def lineage(report: Report, words: Words) -> str:
    """The tree of ancestors with relations, licences, and how each is known."""
    return f'<ul class="tree">{_node(report.lineage, words)}</ul>' if report.lineage else ""


def _node(node: Ancestor, words: Words) -> str:
    relation = f"<em>{text(words.name(node.relation))}</em> " if node.relation else ""
    facts = [words.name(node.basis)] if node.basis else []
    facts.append(f"{words('licence')}: {node.licence}" if node.licence else words("licence_unknown"))
    facts += [node.origin] if node.origin else []
    below = "".join(_node(parent, words) for parent in node.parents)
    children = f"<ul>{below}</ul>" if below else ""
    return f"<li>{relation}<code>{text(node.ref)}</code> <small>{text(' · '.join(facts))}</small>{children}</li>"


def anatomy(report: Report, words: Words) -> str:
    """Parameters by part, then facts."""
    if report.anatomy is None:
        return ""
    total = max(sum(part.parameters for part in report.anatomy.parts), 1)
    rows = [(words.name(part.name), part.parameters, bar(part.parameters / total)) for part in report.anatomy.parts]
    head = [words(key) for key in ("part", "parameters", "part_share")]
    listing = table(head, rows, numeric=(1,)) if rows else ""
    return _facts(report.anatomy.facts, words) + listing


def settings(report: Report, words: Words) -> str:
    """How it was measured."""
    return _facts(report.settings, words)


def _facts(facts: Mapping[str, str], words: Words) -> str:
    rows = "".join(f"<dt>{text(words.name(name))}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>' if rows else ""
