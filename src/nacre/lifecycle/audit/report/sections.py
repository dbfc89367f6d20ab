"""The sections of an audit's page: each a function from a pair to HTML, empty where there is nothing to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nacre
from nacre.lifecycle.audit.report import charts, content
from nacre.lifecycle.audit.said import in_language
from nacre.lifecycle.audit.sentences import CLAIMS, basis, deciding, names, odds, summary
from nacre.lifecycle.audit.verdict import LEAST_P, Evidence, Pair, StageVerdict
from nacre.lifecycle.audit.words import Words
from nacre.lifecycle.evaluate.markup import Html, figure, folded, table, text

MOST_NAMES = 2_000
_TONES = {"IDENTICAL": "hot", "DERIVED": "hot", "SHARED_INIT": "warm", "INCONCLUSIVE": "warm", "UNTESTABLE": "off"}


def said(sentence: str, words: Words) -> Html:
    """A sentence in the language of the page; what is not translated is marked as English."""
    pieces = in_language(sentence, words.language)
    parts = [f'<span lang="en">{text(one.text)}</span>' if one.is_english else text(one.text) for one in pieces]
    return Html("".join(parts))


def pill(verdict: str, words: Words, stage: str = "weights") -> str:
    """The verdict as a coloured word, with the word of the contract beside a translated one. Designs and tokenizers
    that agree raise no alarm: public recipes explain them."""
    shown = verdict if words.language == "en" else f"{words(verdict)} {verdict}"
    tone = _TONES.get(verdict, "calm")
    tone = "plain" if tone == "hot" and stage in ("kernel", "tokenizer") else tone
    return f'<span class="pill {tone}">{text(shown)}</span>'


def verdict(pair: Pair, words: Words) -> str:
    """The first thing on the page: the verdict and its summary."""
    return f"{pill(pair.verdict, words)}<span>{said(summary(pair), words).text}</span>"


def glance(pairs: Sequence[Pair], words: Words, date: str) -> str:
    """What a reader needs to cite the verdict without reading on: its meaning, its chance of error, when and by what
    it was found, and which bytes were looked at."""
    best = pairs[0]
    rows = [(words("means"), text(words(f"means_{best.verdict}"))), (words("chance"), _risk(best, len(pairs), words))]
    if best.control.get("fired"):
        rows.append((words("control"), said(content.control(best), words).text))
    rows.append((words("by"), text(words("by_what", version=nacre.__version__, date=date))))
    for side, ref in (("subject", best.subject), ("reference", best.reference)):
        digest = str(best.digests.get(side) or "")
        shown = f"<code>{text(_short(digest))}</code>" if digest else text(words("no_digest"))
        rows.append((words(side), f"{text(ref)}<small>{shown}</small>"))
    told = "".join(f"<dt>{text(name)}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<dl class="glance">{told}</dl>'


def _risk(pair: Pair, count: int, words: Words) -> str:
    stage = deciding(pair)
    if stage is None or stage.p_value is None or pair.verdict not in CLAIMS:
        return text(words("no_claim"))
    chance = said(odds(stage.p_value), words).text
    if count > 1 and stage.verdict != "IDENTICAL":
        chance = words("corrected", chance=chance, n=f"{count:,}")
    return f"{chance}<small>{said(basis(stage), words).text}</small>"


def ranking(pairs: Sequence[Pair], words: Words) -> str:
    """All references of one audit, the strongest evidence first; what is said of each but the first, folded."""
    rows = [
        (
            Html(pill(pair.verdict, words)),
            Html(f"{text(names(pair)[1])}<small>{text(pair.reference)}</small>"),
            _kind(pair, words),
            _odds(pair, words),
            _p(deciding(pair)),
        )
        for pair in pairs
    ]
    head = [words(name) for name in ("verdict", "reference", "kind", "chance")]
    body = table([*head, words("corrected_p", n=f"{len(pairs):,}")], rows, numeric=(4,))
    others = "".join(f"<li>{pill(one.verdict, words)} {said(summary(one), words).text}</li>" for one in pairs[1:])
    return body + folded(words("others"), f'<ul class="others">{others}</ul>')


def _kind(pair: Pair, words: Words) -> str:
    stage = deciding(pair)
    return words(stage.kind) if stage and stage.kind else ""


def _odds(pair: Pair, words: Words) -> Html:
    stage = deciding(pair)
    is_claim = stage is not None and stage.p_value is not None and stage.verdict in CLAIMS
    return said(odds(stage.p_value), words) if is_claim and stage and stage.p_value is not None else Html("–")


def _p(stage: StageVerdict | None) -> str:
    return "–" if stage is None or stage.p_value is None else number_of(stage.p_value)


def number_of(p: float) -> str:
    """A p-value as a number; what is below what is claimed at most, as such."""
    return "< 1e-06" if p < LEAST_P else f"{p:.2g}"


def stages(pair: Pair, words: Words) -> str:
    """A card for each stage: verdict, sentence, chance of error, how that is known, what would have been caught."""
    return f'<div class="stages">{"".join(_card(one, words) for one in pair.stages.values())}</div>'


def _card(stage: StageVerdict, words: Words) -> str:
    facts: list[tuple[str, Html]] = []
    if stage.p_value is not None and stage.verdict in CLAIMS:
        facts.append((words("chance"), said(odds(stage.p_value), words)))
        facts.append((words("known"), said(basis(stage), words)))
    elif stage.p_value is not None:
        facts.append(("p", Html(text(number_of(stage.p_value)))))
    if stage.share is not None and stage.verdict == "DERIVED":
        facts.append((words("share"), Html(f"{stage.share:.1%}")))
    if stage.power:
        facts.append((words("power"), said(stage.power, words)))
    told = "".join(f"<dt>{text(name)}</dt><dd>{value.text}</dd>" for name, value in facts)
    title = f"{text(words(stage.stage))} {pill(stage.verdict, words, stage.stage)}"
    below = f"<dl>{told}</dl>" if told else ""
    return f'<article class="stage"><h3>{title}</h3><p>{said(stage.text, words).text}</p>{below}</article>'


def evidence(pair: Pair, words: Words) -> str:
    """Every test that ran, with its number, its chance and what it stands on; then what all of them took as given."""
    ran = [(name, one) for name, stage in pair.stages.items() for one in stage.evidence if one.value is not None]
    if not ran:
        return ""
    head = [words("stage"), words("test"), words("value"), "p", words("known"), words("what")]
    body = table(head, [_evidence(name, one, words) for name, one in ran], numeric=(2, 3))
    noted = content.notes(pair)
    return body + (f"<h3>{text(words('notes'))}</h3>{_list(noted, words)}" if noted else "")


def _evidence(stage: str, one: Evidence, words: Words) -> tuple[Any, ...]:
    measured = said(one.text, words).text
    if one.assumption:
        label = text(words("assumption"))
        measured += f"<small>{words.labelled(label, said(one.assumption, words).text)}</small>"
    p = "" if one.p_value is None else number_of(one.p_value)
    test = said(content.name_of_test(one.test), words)
    return words(stage), test, f"{one.value:.4g}", p, words(one.tier), Html(measured)


def untested(pair: Pair, words: Words) -> str:
    """What was left open."""
    return _list(content.not_tested(pair), words)


def _list(sentences: Iterable[str], words: Words) -> str:
    return "<ul>" + "".join(f"<li>{said(one, words).text}</li>" for one in sentences) + "</ul>"


def layers(pair: Pair, words: Words) -> str:
    """The heat map of the invariant probe, where it ran."""
    weights = pair.stages.get("weights")
    asked = next((one for one in weights.evidence if one.test == "invariant"), None) if weights else None
    screen = asked.detail.get("screen") if asked else None
    if not isinstance(screen, Mapping) or not screen.get("score"):
        return ""
    return _lead(words("heat_lead")) + figure(
        charts.heat(screen, words), words("heat_scale", most=charts.strongest(screen))
    )


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
    return f"<p>{said(content.control(pair), words).text}</p>"


def cost(pair: Pair, words: Words) -> str:
    """Time, bytes and memory."""
    rows = content.cost_rows(pair, words, lambda seconds: f"{seconds:.1f} s", _size)
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
    hashed = {side: words.labelled(words(side), words("digest")) for side in ("subject", "reference")}
    rows = [
        (words("subject"), pair.subject), (hashed["subject"], _digest(ours, words)),
        (words("reference"), pair.reference), (hashed["reference"], _digest(theirs, words)),
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


def _lead(sentence: str) -> str:
    return f'<p class="lead">{text(sentence)}</p>'


def _size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"
