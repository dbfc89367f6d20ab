"""Placeholders in place of personal data, and back: within one request, or for good."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from nacre.data.masking.find import find
from nacre.data.masking.kinds import KINDS, Found, Tagger
from nacre.data.masking.policy import Policy

_LABELS = "|".join(sorted({kind.label for kind in KINDS.values()}, key=len, reverse=True))
PLACEHOLDER = re.compile(rf"\[(?:{_LABELS})_[0-9]{{1,9}}\]")


class Masker:
    """Masks the texts of one request. One value has one placeholder, `[ID_1]`; text that looks like a placeholder is
    masked as well, so that `restore(mask(text)) == text` for every text. `counts` holds what was masked, by kind, and
    `blocked` what the policy refuses (masked all the same).
    """

    def __init__(self, policy: Policy | None = None, *, model: Tagger | None = None) -> None:
        policy = policy or Policy()
        self._kinds = policy.of("mask") | policy.of("block")
        self._refused = policy.of("block")
        self._model = model
        self._numbers: Counter[str] = Counter()
        self._placeholders: dict[tuple[str, str], str] = {}
        self._values: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.blocked: Counter[str] = Counter()

    @property
    def values(self) -> dict[str, str]:
        """The value behind every placeholder: personal data, never to be logged."""
        return self._values

    def mask(self, text: str) -> str:
        """The text with placeholders."""
        found = find(text, self._kinds, model=self._model)
        spans = [(one.start, one.end, KINDS[one.kind].label) for one in found]
        if "[" in text:
            literal = [(*one.span(), one[0][1:].rpartition("_")[0]) for one in PLACEHOLDER.finditer(text)]
            spans = _merged(spans, literal)
        for one in found:
            (self.blocked if one.kind in self._refused else self.counts)[one.kind] += 1
        pieces, done = [], 0
        for start, end, label in spans:
            pieces += [text[done:start], self._placeholder(label, text[start:end])]
            done = end
        return "".join([*pieces, text[done:]]) if spans else text

    def restore(self, text: str, escape: Callable[[str], str] | None = None) -> str:
        """The text with the values behind its placeholders; `escape` fits a value to where it stands (JSON, say)."""
        if not self._values or "[" not in text:
            return text

        def value(match: re.Match[str]) -> str:
            known = self._values.get(match[0])
            return match[0] if known is None else escape(known) if escape else known

        return PLACEHOLDER.sub(value, text)

    def restorer(self, escape: Callable[[str], str] | None = None) -> Restorer:
        """Restores a stream of this request's answer."""
        return Restorer(self, escape)

    def _placeholder(self, label: str, value: str) -> str:
        known = self._placeholders.get((label, value))
        if known is not None:
            return known
        self._numbers[label] += 1
        placeholder = f"[{label}_{self._numbers[label]}]"
        self._placeholders[label, value] = placeholder
        self._values[placeholder] = value
        return placeholder


def _merged(spans: list[tuple[int, int, str]], literal: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Both lists in order; a literal that a finding overlaps is covered by it."""
    free = [one for one in literal if not any(start < one[1] and one[0] < end for start, end, _ in spans)]
    return sorted(spans + free)


class Restorer:
    """Restores text that comes in pieces. What may be the beginning of a placeholder is held back, never more than the
    longest placeholder of the request has characters, until the next piece or `flush` decides.
    """

    def __init__(self, masker: Masker, escape: Callable[[str], str] | None = None) -> None:
        self._masker = masker
        self._escape = escape
        self._held = ""
        self._names = tuple(masker.values)
        self._longest = max(map(len, self._names), default=0)

    @property
    def held(self) -> str:
        """What waits for the next piece."""
        return self._held

    def feed(self, chunk: str) -> str:
        """The text that is safe to pass on."""
        text = self._held + chunk
        cut = self._cut(text)
        self._held = text[cut:]
        return self._masker.restore(text[:cut], self._escape)

    def flush(self) -> str:
        """What is still held back: the text has ended."""
        held, self._held = self._held, ""
        return self._masker.restore(held, self._escape)

    def _cut(self, text: str) -> int:
        """Where a placeholder may have begun that the text has not ended yet."""
        start = text.rfind("[", max(0, len(text) - self._longest + 1))
        if start == -1:
            return len(text)
        tail = text[start:]
        return start if any(name.startswith(tail) and name != tail for name in self._names) else len(text)


def scrubbed(text: str, kinds: Iterable[str] | None = None, *, model: Tagger | None = None) -> str:
    """The text with `<ID>` and the like in place of what was found: nothing can restore it."""
    return replaced(text, find(text, kinds, model=model))


def replaced(text: str, found: Iterable[Found]) -> str:
    """The text with `<LABEL>` in the places found, which are in order and apart."""
    pieces, done = [], 0
    for one in found:
        pieces += [text[done : one.start], f"<{KINDS[one.kind].label}>"]
        done = one.end
    return "".join([*pieces, text[done:]]) if pieces else text
