"""The page and the rows that publish what the bank shows."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audit_bank_parts import chart, texts
from audit_bank_parts.figures import (
    POSITIVE,
    Rate,
    at_level,
    clopper_pearson,
    counts,
    disjoint_bound,
    kind_right,
    rate,
    right,
    threshold,
)
from audit_bank_parts.measure import Row
from audit_bank_parts.plan import LOOKED_AT, Part, seed_of, specs
from nacre.lifecycle.audit.calibration import LEVEL

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "audit" / "bank.md"
sys.path.insert(0, str(ROOT / "benchmarks"))
LEVELS = (1e-2, 1e-3)
ALPHA = LEVEL  # what decides is the audit's own level


def write(page: Path, part: Part, rows: Sequence[Row], table: Mapping[str, Any], bank: Path) -> None:
    """The page, its plot beside it, and one row per group in benchmarks/results/audit_bank.csv."""
    page.parent.mkdir(parents=True, exist_ok=True)
    chart.write(page.with_name("bank-p-values.svg"), _null_p_values(rows))
    loose, rows = rows, [at_level(row, ALPHA) for row in rows]
    sections = [
        _head(part, rows, table, bank), "## The level", level(loose),
        "## Strangers: how often something was claimed", false_claims(rows),
        "## Each probe alone", probes(rows, table), "## Is p what it says?", _p_text(rows),
        "## What was found, by what was done", detection(rows), "## Confusion", confusion(rows), kinds(rows),
        "## Merge shares and LoRA ranks", shares(rows), "## Every miss", misses(rows), "## Open holes", _HOLES,
    ]  # fmt: skip
    page.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    if page == PAGE:
        _append(part, rows)


_HOLES = """\
- A student trained on what a model wrote holds nothing of its weights: NO_EVIDENCE is the only right answer, and it is
  what the group *outputs only* counts as right.
- Merges in which a parent has less than about 40 % are seen in its basis only: a rotation afterwards hides them.
- An embedding drawn anew and tuned for long takes the invariant probe's questions away; the body's own basis is what
  is left, and it is weak.
- Noise above twice a tensor's spread hides everything, and destroys the model.
- The models here are small and briefly trained. Error rates of larger ones are inferred, not measured: the exact
  p-values do not depend on size, the calibrated ones may.
- The decoy embedding is drawn, not taken from a third trained model."""


def _head(part: Part, rows: Sequence[Row], table: Mapping[str, Any], bank: Path) -> str:
    abouts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((bank / "models").glob("*/bank.json"))]
    trained = sum(one["seconds"] for one in abouts)
    made_from = "\n".join(f"- `{name}`: `{value}`" for name, value in sorted(table.get("made_from", {}).items()))
    corpora = ", ".join(f"{one} (`{texts.digest(one)[:12]}`)" for one in part.corpora)
    sizes = "; ".join(
        f"{one.name}: {one.layers} layers, hidden {one.hidden_size}, heads {one.heads}/{one.kv_heads}, "
        f"feed-forward {one.ffn_size}, {'tied' if one.tied else 'untied'}"
        for one in part.sizes
    )
    seconds = sum(row["cpu_seconds"] for row in rows)
    return f"""# The calibration bank

Written by `python benchmarks/audit_bank.py report --part {part.name} --out BANK`. Models are trained from scratch, so
that it is known which derive from which. Thresholds and null statistics come from the calibration side; every figure
below is of the report side, whose models, corpus halves, tokenizers and optimisers are others.

| | |
|---|---|
| part | `{part.name}` |
| models | {len(specs(part))} planned, {len(abouts)} trained, {trained:,.0f} s of training |
| sizes | {sizes} |
| corpora | {corpora} |
| training | {part.steps} steps of 16 x 64 tokens from scratch |
| pairs of the report side | {len(rows)}, {seconds:,.0f} CPU seconds to judge, {seconds / max(len(rows), 1):.2f} each |

The table was made from:

{made_from or "- nothing: there is no table"}

An attack counts only if the loss on held-out texts rises by less than 5 %. Intervals are 95 %: by pair
(Clopper-Pearson, as if pairs were independent) and by model (bootstrap over models)."""


def level(loose: Sequence[Row]) -> str:
    """What is claimed at the audit's level and at a looser one; pairs apart that were judged after it was chosen."""
    lines = [
        f"A verdict claims something where its corrected p-value is at most {ALPHA:g}. A first report, at 0.01,",
        "claimed too much of strangers (first two rows). All that descends from something on the calibration side",
        "lies above every null pair there, so that the least level which a rank among these pairs can reach loses",
        "nothing of it. That level was chosen then, and strangers were added: the rows in bold hold pairs with a",
        "model that nobody had looked at.",
        "",
        "| pairs | claims at 0.01 | claims at the audit's level | upper bound by pair | by model |",
        "|---|---|---|---|---|",
    ]
    strangers = [row for row in loose if row["pair"]["truth"] == "stranger"]
    same = [row for row in strangers if row["pair"]["group"] == "stranger: same recipe"]
    derived = [row for row in loose if row["pair"]["truth"] == "derived" and row["pair"]["must"] and counts(row)]
    named = {
        "strangers judged before": [row for row in strangers if not _is_new(row)],
        "of them of one recipe": [row for row in same if not _is_new(row)],
        "**strangers judged after**": [row for row in strangers if _is_new(row)],
        "**of them of one recipe**": [row for row in same if _is_new(row)],
        "derived, asked for, worth having": derived,
    }
    for name, some in named.items():
        strict = rate([at_level(row, ALPHA) for row in some], lambda row: row["verdict"] in POSITIVE)
        claims = sum(row["verdict"] in POSITIVE for row in some)
        lines.append(
            f"| {name} ({len(some)}) | {claims} | {strict.hits} ({strict.value:.2%}) | {strict.high:.2%} | "
            f"{strict.model_high:.2%} |"
        )
    return "\n".join(lines)


def _is_new(row: Row) -> bool:
    return max(seed_of(row["pair"][end]) for end in ("source", "reference")) >= LOOKED_AT


def false_claims(rows: Sequence[Row]) -> str:
    """How often a claim was made of models that share nothing, by group."""
    lines = [
        "| group | pairs | models | claims | rate | upper bound by pair | by model | pairs without a common model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    strangers = [row for row in rows if row["pair"]["truth"] == "stranger"]
    for group, some in [*_grouped(strangers), ("all strangers", strangers)]:
        found = rate(some, lambda row: row["verdict"] in POSITIVE)
        bound = f"{disjoint_bound(found.models):.1%}" if not found.hits else "-"
        lines.append(
            f"| {group} | {found.n} | {found.models} | {found.hits} | {found.value:.2%} | {found.high:.2%} | "
            f"{found.model_high:.2%} | {bound} |"
        )
    return "\n".join(lines)


def probes(rows: Sequence[Row], table: Mapping[str, Any]) -> str:
    """True positives of each probe at thresholds from the calibration side, with what became of the strangers."""
    lines = [
        "| probe | null pairs | at FPR | threshold | strangers above it | derived above it | by pair | by model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    derived = [row for row in rows if row["pair"]["truth"] == "derived" and row["pair"]["must"] and counts(row)]
    strangers = [row for row in rows if row["pair"]["truth"] == "stranger"]
    for name, null in sorted(table["nulls"].items()):
        for level in LEVELS:
            least = threshold(null, level)
            if least is None:
                lines.append(f"| {name} | {len(null)} | {level:g} | needs {round(1 / level) - 1} null pairs | | | | |")
                continue
            above = [rate(some, lambda row, t=least, n=name: _above(row, n, t)) for some in (strangers, derived)]  # type: ignore[misc]
            lines.append(
                f"| {name} | {len(null)} | {level:g} | {least:.4g} | {_of(above[0])} | {_of(above[1])} | "
                f"{above[1].low:.1%} to {above[1].high:.1%} | {above[1].model_low:.1%} to {above[1].model_high:.1%} |"
            )
    return "\n".join(lines)


def _above(row: Row, name: str, least: float) -> bool:
    value = row["statistics"].get(name)
    return value is not None and value > least


def _of(found: Rate) -> str:
    return f"{found.hits} of {found.n} ({found.value:.1%})" if found.n else "none"


def detection(rows: Sequence[Row]) -> str:
    """Groups with a known derivation: verdict, kind, what the attack cost."""
    lines = [
        "| done | asked for | pairs | loss rise | count | verdict right | lower bound | kind right | abstained |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for group, some in _grouped(row for row in rows if row["pair"]["truth"] != "stranger"):
        worth = [row for row in some if counts(row)]
        hits = sum(map(right, worth))
        rises = [row["loss_rise"] for row in some if row["loss_rise"] is not None]
        rise = f"{sum(rises) / len(rises):+.1%}" if rises else "-"
        away = sum(row["verdict"] in ("INCONCLUSIVE", "UNTESTABLE") for row in worth)
        low = f"{clopper_pearson(hits, len(worth))[0]:.0%}" if worth else "-"
        asked = "yes" if some[0]["pair"]["must"] else "no"
        good = f"{hits}" if worth else f"({sum(map(right, some))})"
        lines.append(
            f"| {group} | {asked} | {len(some)} | {rise} | {len(worth)} | {good} | {low} | "
            f"{sum(map(kind_right, worth))} | {away} |"
        )
    return "\n".join(lines)


def confusion(rows: Sequence[Row]) -> str:
    """Truth against verdict, for pairs that count."""
    words = (*POSITIVE, "SAME_DESIGN", "NO_EVIDENCE", "INCONCLUSIVE", "UNTESTABLE")
    lines = ["| truth | " + " | ".join(words) + " |", "|---|" + "---|" * len(words)]
    for truth in ("stranger", "shared-init", "derived"):
        found = Counter(row["verdict"] for row in rows if row["pair"]["truth"] == truth and counts(row))
        lines.append(f"| {truth} | " + " | ".join(str(found[word]) for word in words) + " |")
    return "\n".join(lines)


def kinds(rows: Sequence[Row]) -> str:
    """The kind that was made (the first that is right) against the kind that was named."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["pair"]["truth"] == "derived" and counts(row):
            named = row["kind"] if row["verdict"] == "DERIVED" else row["verdict"]
            found[row["pair"]["kinds"][0]][str(named)] += 1
    lines = ["| made | named |", "|---|---|"]
    for made, named in sorted(found.items()):
        lines.append(f"| {made} | {', '.join(f'{word} {n}' for word, n in named.most_common())} |")
    return "\n".join(lines)


def shares(rows: Sequence[Row]) -> str:
    """How near merge shares and LoRA ranks come."""
    diluted = [row for row in rows if row["pair"]["group"] == "merged with a stranger"]
    told = [row for row in diluted if row["share"] is not None]
    near = sum(abs(row["share"] - row["pair"]["share"]) <= 0.05 for row in told)
    sibling = [row for row in rows if row["pair"]["share"] is not None and row not in diluted]
    named = sum(row["share"] is not None for row in sibling)
    ranked = [row for row in rows if row["pair"]["rank"] is not None and not row["pair"]["steps"]]
    exact = sum(row["rank"] == row["pair"]["rank"] for row in ranked)
    return (
        f"Merged with a stranger (share 30 % to 90 %): a share was told for {len(told)} of {len(diluted)} and was "
        f"within 0.05 for {near}. Two children of one parent merged, beside the first: {named} of {len(sibling)} were "
        "given a share; a pair alone does not tell it, as both children hold the parent. LoRA's rank was right in "
        f"{exact} of {len(ranked)}."
    )


def misses(rows: Sequence[Row]) -> str:
    """Every pair that counts and whose verdict or kind is wrong."""
    lines = ["| pair | asked for | expected | verdict | kind | p | reason |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        if not counts(row) or kind_right(row):
            continue
        pair, p = row["pair"], row["p_value"]
        expected = "/".join(pair["kinds"]) if right(row) else "/".join(pair["expected"])
        lines.append(
            f"| `{pair['name']}` | {'yes' if pair['must'] else 'no'} | {expected} | {row['verdict']} | "
            f"{row['kind'] or ''} | {'' if p is None else f'{p:.2g}'} | {(row['reason'] or '').replace('|', '/')} |"
        )
    return "\n".join(lines) if len(lines) > 2 else "None."


def power(loose: Sequence[Row]) -> list[dict[str, Any]]:
    """What the shipped table says would have been caught: one entry per kind, of all pairs that are asked for."""
    rows = [at_level(row, ALPHA) for row in loose]
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["pair"]["truth"] == "derived" and row["pair"]["must"] and counts(row):
            by_kind[row["pair"]["kinds"][0]].append(row)
    found = []
    for kind, some in by_kind.items():
        hits = sum(row["verdict"] in ("DERIVED", "IDENTICAL") for row in some)
        low = round(clopper_pearson(hits, len(some))[0], 4)
        found.append({"kind": kind, "tpr": hits / len(some), "low": low, "n": len(some)})
    return found


def _null_p_values(rows: Sequence[Row]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["pair"]["truth"] == "stranger":
            for name, value in row["p_values"].items():
                if value is not None and row["tiers"].get(name) in ("exact", "calibrated"):
                    found[f"{name} ({row['tiers'][name]})"].append(value)
    return dict(found)


def _p_text(rows: Sequence[Row]) -> str:
    levels = (0.01, 0.05, 0.1, 0.25, 0.5)
    lines = [
        "Share of strangers with p at or below each level. A valid p stays at or below the level.",
        "",
        "| probe | pairs | " + " | ".join(f"p <= {one:g}" for one in levels) + " |",
        "|---|---|" + "---|" * len(levels),
    ]
    for name, values in sorted(_null_p_values(rows).items()):
        shares = (sum(value <= level for value in values) / len(values) for level in levels)
        lines.append(f"| {name} | {len(values)} | " + " | ".join(f"{one:.1%}" for one in shares) + " |")
    return "\n".join([*lines, "", "![p-values of strangers](bank-p-values.svg)"])


def _grouped(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["pair"]["group"], []).append(row)
    return list(found.items())


def _append(part: Part, rows: Sequence[Row]) -> None:
    import record

    about = record.machine(("torch", "numpy"))
    record.append(
        "audit_bank",
        [
            {
                **about,
                "part": part.name,
                "group": group,
                "pairs": len(some),
                "count": sum(map(counts, some)),
                "verdict_right": sum(right(row) for row in some if counts(row)),
                "kind_right": sum(kind_right(row) for row in some if counts(row)),
                "claims": sum(row["verdict"] in POSITIVE for row in some),
            }
            for group, some in _grouped(rows)
        ],
    )
