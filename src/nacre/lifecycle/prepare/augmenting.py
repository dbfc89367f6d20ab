"""The work behind `data.augment`."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nacre.data.augment.neighbours import neighbours
from nacre.data.augment.vary import Draws, Rates, Sources, homophones, vary, vary_tokens
from nacre.data.read import read
from nacre.data.rows import Row
from nacre.data.tokenizer_report import language_of
from nacre.data.words import HAN
from nacre.data.write import write_json, write_jsonl
from nacre.engine.protocol import Engine, Message, Sampling
from nacre.errors import ConfigError, DataError
from nacre.lifecycle.prepare.augment import AugmentConfig, BackTranslation
from nacre.progress import Scalar
from nacre.recipe.stage import Work

_HAN = re.compile(f"[{HAN}]")
SPLITS = ("train", "valid", "test")
_REQUEST = "Translate into {language}. Answer with the translation alone.\n\n{text}"
_BATCH = 64


def augmented(config: AugmentConfig, work: Work) -> dict[str, Scalar]:
    """Writes every split; those that are named, varied."""
    folder = work.inputs["data"]
    given = {split: list(read(file)) for split in SPLITS if (file := folder / f"{split}.jsonl").is_file()}
    absent = [split for split in config.splits if split not in given]
    if absent:
        raise DataError(f"{folder} holds no {absent[0]}.jsonl", remedy=f"splits: {sorted(given)}")
    sources = _sources(config, [_words_of(row, config) for row in given.get("train", given[config.splits[0]])])
    tallies: dict[str, Counter[str]] = {}
    metrics: dict[str, Scalar] = {}
    for split, rows in given.items():
        tally = tallies[split] = Counter()
        written = rows
        if split in config.splits:
            written = list(
                _versions(rows, config, sources, np.random.default_rng([work.seed, SPLITS.index(split)]), tally)
            )
            if config.back_translation is not None:
                written += _back_translated(rows, config, work, tally)
        metrics[f"{split}_rows"] = write_jsonl(work.out / f"{split}.jsonl", written)
    if (folder / "labels.json").is_file():
        shutil.copyfile(folder / "labels.json", work.out / "labels.json")
    write_json(
        work.out / "report.json", {"task": "augment", "done": {name: dict(one) for name, one in tallies.items()}}
    )
    return {**metrics, "changed": sum(one["versions"] for one in tallies.values())}


def _sources(config: AugmentConfig, texts: Sequence[str]) -> Sources:
    """What replacements are taken from: the words and characters of the rows themselves."""
    rates = config.rates
    if rates is None:
        return Sources()
    near = neighbours(texts, config.synonyms) if rates.synonyms else {}
    has_han = rates.characters and any(map(_HAN.search, texts))
    return Sources(near, homophones(texts) if has_han else {})


def _versions(
    rows: Sequence[Row], config: AugmentConfig, sources: Sources, draws: Draws, tally: Counter[str]
) -> Iterator[Row]:
    """The rows and their versions side by side; a version that came out the same is left out and counted, unless it
    is all there is of its row."""
    for row in rows:
        if config.keep or config.rates is None:
            yield row
        for _ in range(config.copies if config.rates is not None else 0):
            assert config.rates is not None
            version = _version(row, config, config.rates, sources, draws, tally)
            if version != row:
                tally["versions"] += 1
                yield version
            else:
                tally["unchanged"] += 1
                if not config.keep:
                    yield row


def _version(row: Row, config: AugmentConfig, rates: Rates, sources: Sources, draws: Draws, tally: Counter[str]) -> Row:
    if "tokens" in row and "tags" in row:
        tokens, tags = vary_tokens(row["tokens"], row["tags"], rates, sources, draws, tally)
        return {**row, "tokens": tokens, "tags": tags}
    return {**row, config.varied: vary(_words_of(row, config), rates, sources, draws, tally)}


def _words_of(row: Row, config: AugmentConfig) -> str:
    if "tokens" in row and "tags" in row:
        return " ".join(row["tokens"])
    text = row.get(config.varied)
    if not isinstance(text, str):
        there = ", ".join(sorted(row)) or "none"
        raise DataError(
            f"a row has no text in {config.varied!r} (fields: {there})", remedy="name the field: varied: ..."
        )
    return text


def _back_translated(rows: Sequence[Row], config: AugmentConfig, work: Work, tally: Counter[str]) -> list[Row]:
    """A version of each text by way of another language; those that are no use are counted."""
    how = config.back_translation
    assert how is not None
    if "engine" not in work.inputs:
        raise ConfigError("back_translation has no engine", remedy="name one under inputs: engine:")
    texts = [_words_of(row, config) for row in rows]
    if any("tokens" in row and "tags" in row for row in rows):
        raise ConfigError(
            "tagged tokens cannot be translated: their tags would be lost", remedy="leave back_translation out"
        )
    with work.engines.open(work.inputs["engine"]) as engine:
        away = _translated(engine, texts, [how.via] * len(texts), how)
        home = ["Chinese" if language_of(text) == "zh" else "English" for text in texts]
        back = _translated(engine, away, home, how)
    made: list[Row] = []
    for row, text, version in zip(rows, texts, back, strict=True):
        fault = _fault(text, version)
        tally[f"back-translations left out: {fault}" if fault else "versions"] += 1
        if not fault:
            made.append({**row, config.varied: version})
    work.progress.note("back-translated", rows=len(rows), taken=len(made))
    return made


def _translated(engine: Engine, texts: Sequence[str], into: Sequence[str], how: BackTranslation) -> list[str]:
    sampling = replace(Sampling(), max_tokens=how.max_tokens)
    asked = [
        (Message("user", _REQUEST.format(language=language, text=text)),)
        for text, language in zip(texts, into, strict=True)
    ]
    parts = (asked[at : at + _BATCH] for at in range(0, len(asked), _BATCH))
    return [one.text.strip() for part in parts for one in engine.generate(part, sampling)]


def _fault(text: str, version: str) -> str | None:
    if not version or version == text:
        return "the same text" if version else "empty"
    return None if len(text) / 2 <= len(version) <= 2 * len(text) else "another length"
