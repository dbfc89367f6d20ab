"""From scores and generated texts to figures and report, without torch: language, translation, free writing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from nacre.errors import DataError
from nacre.lifecycle.evaluate import poem
from nacre.lifecycle.evaluate.content import Figure, Report, Sample
from nacre.lifecycle.evaluate.markup import number, percent
from nacre.lifecycle.evaluate.measured import Measured, Setting, measurement, said
from nacre.lifecycle.evaluate.novelty import Novelty, characters, distinct, novelty, words
from nacre.lifecycle.evaluate.python_code import check_code, summarise
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics.bootstrap import Interval, interval, mean_interval
from nacre.metrics.language import LanguageScore

Kind = Literal["text", "poem", "python"]
SHOWN = 24  # samples in the report


def language(scores: Sequence[LanguageScore], tokenizer: str, setting: Setting) -> Measured:
    """Perplexity and bits per byte over documents, with intervals resampled by document.

    `tokenizer` is its digest: perplexities may be compared only where it is the same.
    """
    read = [score for score in scores if score.tokens]
    if not read:
        raise DataError("no test text holds a token to predict", remedy="give longer texts")
    say = Words(setting.language)
    rows = np.array([[score.nll_nats, score.tokens, score.text_bytes] for score in read], dtype=np.float64)
    bits = interval(rows, lambda sums: sums[:, 0] / math.log(2) / sums[:, 2], setting.bootstrap)
    perplexity = interval(rows, lambda sums: np.exp(sums[:, 0] / sums[:, 1]), setting.bootstrap)
    nats, tokens, size = rows.sum(axis=0)
    figures: dict[str, Any] = {
        "documents": len(read),
        "bits_per_byte": bits.as_dict(),
        "perplexity": perplexity.as_dict(),
        "nll_nats": float(nats),
        "tokens": int(tokens),
        "bytes": int(size),
        "bytes_per_token": float(size / tokens),
        "tokenizer": tokenizer,
    }
    report = Report(
        title=setting.title,
        verdict=say("verdict_language", value=number(bits.value, "number"), interval=said(say, bits, "number")),
        language=setting.language,
        figures=[
            Figure("bits_per_byte", bits, "number"),
            Figure("perplexity", perplexity, "number"),
            Figure("tokens", float(tokens), "count"),
            Figure("bytes", float(size), "count"),
        ],
        notes=[*setting.notes, say("note_perplexity")],
        settings=measurement(setting, len(read)) | {"tokenizer": tokenizer},
    )
    return Measured(figures, report)


@dataclass(frozen=True)
class Translations:
    """Parallel lists: sources, references, what the model wrote."""

    sources: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    target_language: str


def translation(texts: Translations, setting: Setting) -> Measured:
    """Corpus BLEU and chrF with their signatures, resampled by sentence."""
    from nacre.metrics.overlap import bleu, chrf

    say = Words(setting.language)
    found = {
        name: score(texts.hypotheses, texts.references, texts.target_language)
        for name, score in (("bleu", bleu), ("chrf", chrf))
    }
    spans = {name: interval(one.rows, one.of_sums, setting.bootstrap) for name, one in found.items()}
    empty = sum(not hypothesis.strip() for hypothesis in texts.hypotheses)
    exact = float(np.mean([a.strip() == b.strip() for a, b in zip(texts.hypotheses, texts.references, strict=True)]))
    figures: dict[str, Any] = {
        "sentences": len(texts.sources),
        **{name: span.as_dict() for name, span in spans.items()},
        "signatures": {name: one.signature for name, one in found.items()},
        "exact_matches": exact,
        "empty_outputs": empty,
    }
    n = f"{len(texts.sources):,}"
    value, span = number(spans["bleu"].value, "number"), said(say, spans["bleu"], "number")
    report = Report(
        title=setting.title,
        verdict=say("verdict_translate", value=value, n=n, interval=span),
        language=setting.language,
        figures=[Figure(name, span, "number", note=found[name].signature) for name, span in spans.items()],
        notes=setting.notes,
        samples=[
            Sample(*one) for one in list(zip(texts.hypotheses, texts.sources, texts.references, strict=True))[:SHOWN]
        ],
        settings=measurement(setting, len(texts.sources)),
    )
    return Measured(figures, report)


@dataclass(frozen=True)
class Writing:
    """What a model wrote, why each text stopped, the texts it was trained on, and texts by people as a yardstick."""

    texts: Sequence[str]
    stopped: Sequence[str]
    prompts: Sequence[str]
    training: Sequence[str] = ()
    held_out: Sequence[str] = ()


def writing(found: Writing, kind: Kind, setting: Setting) -> tuple[Measured, list[dict[str, Any]]]:
    """Checks of generated texts; returns the measurement and one row per sample for `samples.jsonl`."""
    say, units = Words(setting.language), words if kind == "python" else characters
    copies = novelty(found.texts, found.training, units, 20 if kind == "python" else 5) if found.training else None
    figures: dict[str, Any] = {
        "samples": len(found.texts),
        "distinct_1": distinct(found.texts, 1, units),
        "distinct_2": distinct(found.texts, 2, units),
        "stopped": {why: found.stopped.count(why) for why in sorted(set(found.stopped))},
    }
    notes = list(setting.notes) + ([] if copies else [say("note_no_training")])
    if copies:
        figures["novelty"] = {
            "copied_lines": copies.copied_lines, "copied_texts": copies.copied_texts, "lines": copies.lines,
            "longest_shared_median": copies.longest_median, "longest_shared_max": max(copies.longest, default=0),
            "unit": "word" if kind == "python" else "character",
        }  # fmt: skip
    checked = {"poem": _poems, "python": _code, "text": _plain}[kind](found, setting, say)
    figures |= checked.figures
    rows = _sample_rows(found, checked.remarks, copies)
    report = Report(
        title=setting.title,
        verdict=checked.verdict if kind != "text" else _plain_verdict(figures, say),
        language=setting.language,
        figures=[*checked.cards, *_novelty_cards(copies), Figure("distinct_2", figures["distinct_2"])],
        notes=[*notes, *checked.notes],
        samples=[Sample(row["text"], row["prompt"], remarks=row["remarks"]) for row in rows[:SHOWN]],
        settings=measurement(setting, len(found.texts)),
    )
    return Measured(figures, report), rows


@dataclass(frozen=True)
class _Checked:
    figures: Mapping[str, Any]
    cards: Sequence[Figure]
    remarks: Sequence[list[str]]
    verdict: str = ""
    notes: Sequence[str] = ()


def _share(hits: Sequence[bool], setting: Setting) -> Interval:
    return mean_interval(np.array(hits, dtype=np.float64), setting.bootstrap)


def _poems(found: Writing, setting: Setting, say: Words) -> _Checked:
    can_rhyme = find_spec("pypinyin") is not None
    forms = [poem.form_of(text) for text in found.texts]
    valid = _share([form is not None for form in forms], setting)
    shares, people = (poem.check_poems(texts, rhyme=can_rhyme) for texts in (found.texts, found.held_out))
    figures = {"valid_form": valid.as_dict(), "poems": asdict(shares), "judged_rhyme": can_rhyme}
    cards = [Figure("valid_form", valid)]
    if shares.rhyming is not None:
        cards.append(Figure("rhyming", shares.rhyming))
    if found.held_out:
        figures["held_out"] = asdict(people)
        cards.append(Figure("human_valid_form", people.valid_form))
        cards += [Figure("human_rhyming", people.rhyming)] if people.rhyming is not None else []
    remarks = [
        [form, *([say("rhymes")] if can_rhyme and poem.rhymes(text) else [])] if form else [say("no_form")]
        for text, form in zip(found.texts, forms, strict=True)
    ]
    verdict = say(
        "verdict_generate_poem", value=percent(valid.value), n=f"{len(found.texts):,}", interval=said(say, valid)
    )
    return _Checked(figures, cards, remarks, verdict, [say("note_rhyme" if can_rhyme else "note_no_rhyme")])


def _code(found: Writing, setting: Setting, say: Words) -> _Checked:
    # A sample goes on from its prompt: only both together are a program.
    checks = [check_code(prompt + text) for prompt, text in zip(found.prompts, found.texts, strict=True)]
    shares, parses = summarise(checks), _share([check.parses for check in checks], setting)
    cards = [
        Figure("parses", parses),
        Figure("compiles_clean", shares.compiles_clean),
        Figure("sound_lines", shares.sound_lines),
    ]
    remarks = [[check.error or say("is_code")] for check in checks]
    verdict = say(
        "verdict_generate_python", value=percent(parses.value), n=f"{len(checks):,}", interval=said(say, parses)
    )
    return _Checked({"parses": parses.as_dict(), "code": asdict(shares)}, cards, remarks, verdict)


def _plain(found: Writing, setting: Setting, say: Words) -> _Checked:
    del setting, say
    return _Checked({}, [], [[] for _ in found.texts])


def _plain_verdict(figures: Mapping[str, Any], say: Words) -> str:
    return say("verdict_generate_text", n=f"{figures['samples']:,}", value=percent(figures["distinct_2"]))


def _novelty_cards(found: Novelty | None) -> list[Figure]:
    if found is None:
        return []
    return [
        Figure("copied_lines", found.copied_lines),
        Figure("copied_texts", found.copied_texts),
        Figure("longest_shared", found.longest_median, "count"),
    ]


def _sample_rows(found: Writing, remarks: Sequence[list[str]], copies: Novelty | None) -> list[dict[str, Any]]:
    rows = []
    for number_, (text, why) in enumerate(zip(found.texts, found.stopped, strict=True)):
        row: dict[str, Any] = {"id": str(number_ + 1), "prompt": found.prompts[number_], "text": text, "stopped": why}
        row["remarks"] = remarks[number_]
        if copies:
            row["longest_shared"] = copies.longest[number_]
        rows.append(row)
    return rows
