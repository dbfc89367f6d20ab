"""Runs in the peer's own environment: reads texts as JSON lines, answers with its findings and its time.

    VENV/bin/python benchmarks/masking_parts/presidio.py TEXTS.jsonl

No language model is loaded (there is none offline): a blank pipeline stands in, so names and places are not looked for.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

KINDS = {
    "CREDIT_CARD": "card", "PHONE_NUMBER": "phone", "EMAIL_ADDRESS": "email", "IBAN_CODE": "iban", "US_SSN": "ssn",
    "IP_ADDRESS": "ip",
}  # fmt: skip


class Blank(NlpEngine):
    """Tokens by spaCy's rules, no model."""

    def __init__(self, language: str) -> None:
        self.language, self.nlp = language, spacy.blank(language)

    def load(self) -> None: ...

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        doc = self.nlp(text)
        return NlpArtifacts([], doc, [one.idx for one in doc], [one.text for one in doc], self, language, [])

    def process_batch(self, texts, language, batch_size=1, n_process=1, **_):
        for text in texts:
            yield text, self.process_text(text, language)

    def is_stopword(self, word: str, language: str) -> bool:
        return False

    def is_punct(self, word: str, language: str) -> bool:
        return False

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return [self.language]


def apart(results):
    """Its findings without those that overlap one of a higher score, as its anonymizer resolves them."""
    kept = []
    for one in sorted(results, key=lambda one: (-one.score, one.start - one.end)):
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return [[KINDS[one.entity_type], one.start, one.end] for one in kept]


def main() -> None:
    texts = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    # Its predefined recognizers are those of English; the blank English pipeline is asked for Chinese texts as well.
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"])
    engine = AnalyzerEngine(registry=registry, nlp_engine=Blank("en"), supported_languages=["en"])
    engine.analyze("warm up 123", language="en", entities=list(KINDS))
    found = []
    began = time.process_time()
    for text in texts:
        results = engine.analyze(text, language="en", entities=list(KINDS))
        found.append(apart(results))
    seconds = time.process_time() - began
    print(json.dumps({"found": found, "seconds": seconds, "version": version("presidio-analyzer")}))


if __name__ == "__main__":
    main()
