"""The sections of an audit's page: each a function from a pair to HTML, empty where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nacre
from nacre.lifecycle.audit.report import charts
from nacre.lifecycle.audit.report.content import cost_rows, not_tested
from nacre.lifecycle.audit.sentences import CLAIMS, chance, deciding, known, names, reason, stage_sentence
from nacre.lifecycle.audit.verdict import LEAST_P, Evidence, Pair, StageVerdict
from nacre.lifecycle.audit.words import Words
from nacre.lifecycle.evaluate.markup import Html, figure, folded, table, text

MOST_NAMES = 2_000
_TONES = {"IDENTICAL": "hot", "DERIVED": "hot", "SHARED_INIT": "warm", "INCONCLUSIVE": "warm", "UNTESTABLE": "off"}


def pill(verdict: str, words: Words, stage: str = "weights") -> str:
    """The verdict as a coloured word, with the word of the contract beside a translated one. Designs and tokenizers
    that agree raise no alarm: public recipes explain them."""
    said = verdict if words.language == "en" else f"{words(verdict)} {verdict}"
    tone = _TONES.get(verdict, "calm")
    tone = "plain" if tone == "hot" and stage in ("kernel", "tokenizer") else tone
    return f'<span class="pill {tone}">{text(said)}</span>'


def ranking(pairs: Sequence[Pair], words: Words) -> str:
    """All references of one audit, the strongest evidence first."""
    rows = [
        (
            Html(pill(pair.verdict, words)),
            names(pair)[1],
            _kind(pair, words),
            _chance(deciding(pair), words),
            pair.reference,
        )
        for pair in pairs
    ]
    return table([words(name) if name else "" for name in ("verdict", "reference", "kind", "chance", "")], rows)


def _kind(pair: Pair, words: Words) -> str:
    stage = deciding(pair)
    return words(stage.kind) if stage and stage.kind else ""


def stages(pair: Pair, words: Words) -> str:
    """A card for each stage: verdict, sentence, chance of error, how that is known, what would have been caught."""
    return f'<div class="stages">{"".join(_card(one, words) for one in pair.stages.values())}</div>'


def _card(stage: StageVerdict, words: Words) -> str:
    facts = []
    if stage.p_value is not None and stage.verdict in CLAIMS:
        facts.append((words("chance"), chance(stage.p_value, words.language)))
        facts.append((words("known"), known(stage, words)))
    elif stage.p_value is not None:
        facts.append(("p", f"{stage.p_value:.2g}"))
    if stage.share is not None and stage.verdict == "DERIVED":
        facts.append((words("share"), f"{stage.share:.1%}"))
    if stage.power:
        facts.append((words("power"), stage.power))
    if words.language != "en":
        facts.append((words("english"), stage.text))
    told = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    sentence = text(stage_sentence(stage, words.language))
    title = f"{text(words(stage.stage))} {pill(stage.verdict, words, stage.stage)}"
    below = f"<dl>{told}</dl>" if told else ""
    return f'<article class="stage"><h3>{title}</h3><p>{sentence}</p>{below}</article>'


def evidence(pair: Pair, words: Words) -> str:
    """Every test with its number, its chance and what it stands on."""
    rows = [_evidence(name, one, words) for name, stage in pair.stages.items() for one in stage.evidence]
    if not rows:
        return ""
    head = [words("stage"), words("test"), words("value"), "p", words("known"), words("what")]
    return table(head, rows, numeric=(2, 3))


def _evidence(stage: str, one: Evidence, words: Words) -> tuple[Any, ...]:
    said = text(one.text)
    if one.assumption:
        said += f"<small>{text(words('assumption'))}: {text(one.assumption)}</small>"
    value = "" if one.value is None else f"{one.value:.4g}"
    p = "" if one.p_value is None else "< 1e-06" if one.p_value < LEAST_P else f"{one.p_value:.2g}"
    return words(stage), one.test, value, p, words(one.tier), Html(said)


def untested(pair: Pair, words: Words) -> str:
    """What was left open."""
    return "<ul>" + "".join(f"<li>{text(one)}</li>" for one in not_tested(pair, words)) + "</ul>"


def layers(pair: Pair, words: Words) -> str:
    """The heat map of the invariant probe, where it ran."""
    weights = pair.stages.get("weights")
    asked = next((one for one in weights.evidence if one.test == "invariant"), None) if weights else None
    screen = asked.detail.get("screen") if asked else None
    if not isinstance(screen, Mapping) or not screen.get("score"):
        return ""
    return _lead(words("heat_lead")) + figure(charts.heat(screen, words))


def delta(pair: Pair, words: Words) -> str:
    """How far each layer lies from the reference's, where the two were brought into one basis."""
    weights = pair.stages.get("weights")
    rows = charts.by_layer(weights.detail.get("delta") or ()) if weights else []
    if not rows:
        return ""
    return _lead(words("delta_lead", end=charts.share(charts.scale_of(rows)))) + figure(charts.delta_bars(rows, words))


def rename_map(pair: Pair, words: Words) -> str:
    """Which tensor of the subject is which of the reference, folded."""
    if not pair.rename_map:
        return ""
    items = sorted(pair.rename_map.items(), key=lambda one: (one[0] == one[1], one))
    other = sum(ours != theirs for ours, theirs in items)
    shown = items[:MOST_NAMES]
    cut = len(items) > len(shown)
    title = words("names_first", n=f"{len(shown):,}", all=f"{len(items):,}") if cut else ""
    rows = [(Html(f"<code>{text(a)}</code>"), Html(f"<code>{text(b)}</code>")) for a, b in shown]
    body = table((words("subject"), words("reference")), rows)
    lead = _lead(words("names_lead", n=f"{len(items):,}", other=f"{other:,}"))
    return lead + folded(title or words("names_all", n=f"{len(items):,}"), body)


def control(pair: Pair, words: Words) -> str:
    """What became of the control."""
    state = "fired" if pair.control.get("fired") else "ok" if pair.control.get("ran") else "none"
    why = reason(str(pair.control.get("why", "")), words.language)
    return f"<p>{text(words(f'control_{state}', why=why))}</p>"


def cost(pair: Pair, words: Words) -> str:
    """Time, bytes and memory."""
    rows = cost_rows(pair, words, lambda seconds: f"{seconds:.1f} s", _size)
    told = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows)
    return f'<dl class="facts">{told}</dl>' if rows else ""


def cite(pair: Pair, words: Words, date: str) -> str:
    """The block that a reader copies, and the digests of what was looked at."""
    ours, theirs = (str(pair.digests.get(side) or "–") for side in ("subject", "reference"))
    a, b = names(pair)
    sentence = words(
        "cite_text", subject=a, ours=_short(ours), reference=b, theirs=_short(theirs), version=nacre.__version__,
        date=date, verdict=pair.verdict,
    )  # fmt: skip
    rows = [
        (words("subject"), pair.subject), (f"{words('subject')}: {words('digest')}", _digest(ours, words)),
        (words("reference"), pair.reference), (f"{words('reference')}: {words('digest')}", _digest(theirs, words)),
        (words("version"), nacre.__version__), (words("date"), date),
    ]  # fmt: skip
    told = "".join(f"<dt>{text(name)}</dt><dd><code>{text(value)}</code></dd>" for name, value in rows)
    return f'<pre class="cite">{text(sentence)}</pre><dl class="facts">{told}</dl>'


def _digest(value: str, words: Words) -> str:
    if value == "–":
        return words("no_digest")
    return f"{value} ({words('headers_digest')})" if value.startswith("headers:") else value


def _short(digest: str) -> str:
    lead, colon, rest = digest.rpartition(":")
    return f"{lead}{colon}{rest[:16]}" if colon else digest


def _chance(stage: StageVerdict | None, words: Words) -> str:
    is_claim = stage is not None and stage.p_value is not None and stage.verdict in CLAIMS
    return chance(stage.p_value, words.language) if is_claim and stage and stage.p_value is not None else ""


def _lead(sentence: str) -> str:
    return f'<p class="lead">{text(sentence)}</p>'


def _size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"
