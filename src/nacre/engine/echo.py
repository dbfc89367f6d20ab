"""The shipped test double: an engine without a model. Deterministic, instant, and able to do everything.

`engine.json`: {"engine": "echo", ...} with the fields of `EchoSettings`. Chinese is treated as English is: whatever
has blanks is split at them, everything else by character.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from nacre.engine.base import BaseEngine, Portions, TokenScore
from nacre.engine.cached import key_of
from nacre.engine.protocol import (
    Capabilities,
    Embedded,
    Generation,
    OnToken,
    Prompt,
    Sampling,
    Score,
    Stopped,
    Usage,
)
from nacre.engine.settings import ENGINE_FILE, read_engine_file, settings_of
from nacre.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nacre.engine.room import EngineRoom

_PIECES = re.compile(r"\s*(?:[a-zA-Z0-9']+|[^\sa-zA-Z0-9'])|\s+$")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)、])\s*(.+?)\s*$", re.MULTILINE)
_LISTED = re.compile(r"^[^\n]*(?:labels?|classes|categories|标签|类别)[^\n:：]*[:：]\s*([^\n]+)$", re.MULTILINE | re.I)


@dataclass(frozen=True)
class EchoSettings:
    """`answers`: pairs of a regular expression and a reply; the first that is found in the prompt answers, with its
    groups as \\1. Else, with `pick_label`, the label whose words (and description) overlap the last paragraph most,
    out of `labels` or of the bullets or the `labels: a, b` line of the prompt. Else the last line of the prompt.
    `template` is put around every picked label. `can` are the verbs that it declares.
    """

    answers: tuple[tuple[str, str], ...] = ()
    pick_label: bool = False
    labels: Mapping[str, str] | tuple[str, ...] = ()
    template: str = "{label}"
    dimensions: int = 256
    context: int | None = None
    model: str = "echo"
    can: tuple[str, ...] = field(default=("chat", "complete", "score", "embed", "stream"))


def open_echo(folder: Path, room: EngineRoom) -> BaseEngine:
    """The echo that `engine.json` describes."""
    plain = read_engine_file(folder)
    return Echo(settings_of(plain, EchoSettings, str(folder / ENGINE_FILE)), key_of("echo/1", "", plain).hex()[:16])


class Echo(BaseEngine):
    """Answers by rules; embeds by hashed character n-grams; scores by which words were there before."""

    portions = Portions(generate=16, score=64, embed=64)
    in_process = echoes = True

    def __init__(self, settings: EchoSettings | None = None, digest: str = "default") -> None:
        self.settings = settings = settings or EchoSettings()
        can = dict.fromkeys(settings.can, True)
        unknown = set(can) - {"chat", "complete", "score", "embed", "stream"}
        if unknown:
            raise ConfigError(f"echo: can {sorted(unknown)}", remedy="chat, complete, score, embed, stream")
        super().__init__(
            "echo",
            f"echo:{settings.model}:{digest}",
            Capabilities(**can, context=settings.context, dimensions=settings.dimensions),
        )
        try:
            self._rules = [(re.compile(pattern, re.DOTALL), reply) for pattern, reply in settings.answers]
        except re.error as error:
            raise ConfigError(f"echo: {error.pattern!r} is no expression: {error}", remedy="correct answers") from error

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        """The rules' answers, cut at `max_tokens` pieces and at stop strings."""
        self.require_prompts(prompts, on_token)
        out = []
        for number, prompt in enumerate(prompts):
            text = plain_text(prompt)
            reply, stopped = _cut(self.reply(text), how)
            pieces = split(reply)
            for piece in pieces if on_token is not None else ():
                on_token(number, piece) if on_token is not None else None
            usage = Usage(len(split(text)), len(pieces), 1, "tokenizer")
            out.append(Generation(reply, stopped, self.settings.model, usage))
        return out

    def reply(self, text: str) -> str:
        """What the rules say to a prompt."""
        for rule, reply in self._rules:
            if found := rule.search(text):
                return found.expand(reply)
        if self.settings.pick_label and (labels := self._labels(text)):
            question = re.split(r"\n\s*\n", text.strip())[-1]
            mine = grams(question)
            best = max(labels, key=lambda label: _overlap(mine, grams(f"{label} {labels[label]}")))
            return self.settings.template.replace("{label}", best)
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def _labels(self, text: str) -> dict[str, str]:
        """Label -> description."""
        given = self.settings.labels
        if given:
            return dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, "")
        items = _BULLET.findall(text)
        if not items and (line := _LISTED.search(text)):
            items = [one for one in re.split(r"[,，、;；|]\s*", line[1].strip().rstrip("。.")) if one]
        parts = [re.split(r"\s*[:：]\s*", item, maxsplit=1) for item in items]
        return {part[0].strip("`\"'“”* "): part[1] if len(part) > 1 else "" for part in parts}

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Sums over the pieces of the joined text that end behind the prompt (see `token_scores`)."""
        self.require("score")
        out = []
        for prompt, continuation in pairs:
            before = plain_text(prompt)
            found = self.token_scores(before + continuation)
            values = [one.log_probability or 0.0 for one in found if one.start + len(one.text) > len(before)]
            out.append(Score(sum(values), len(values), self.settings.model, Usage(len(found), 0, 1, "tokenizer")))
        return out

    def token_scores(self, text: str) -> list[TokenScore]:
        """Each piece costs ln 2 where it stood in the text before, ln 20 elsewhere."""
        out, seen, start = [], set(), 0
        for piece in split(text):
            word = piece.strip().lower()
            out.append(TokenScore(piece, start, math.log(0.5 if word in seen else 0.05)))
            seen.add(word)
            start += len(piece)
        return out

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Unit vectors of hashed character 1- to 3-grams, within words for scripts with blanks."""
        self.require("embed")
        import numpy as np

        vectors = np.stack([self._vector(text) for text in texts]) if texts else np.zeros((0, self.settings.dimensions))
        usage = Usage(sum(len(split(text)) for text in texts), 0, int(bool(texts)), "tokenizer")
        return Embedded(vectors.astype(np.float32), self.settings.model, usage)

    def _vector(self, text: str) -> NDArray[np.float64]:
        import numpy as np

        vector = np.zeros(self.settings.dimensions)
        for gram, weight in grams(text).items():
            hashed = crc32(gram.encode("utf-8", "surrogatepass"))
            vector[hashed % len(vector)] += weight * (1 if hashed & (1 << 31) else -1)
        length = float(np.linalg.norm(vector))
        return vector / length if length else vector


def plain_text(prompt: Prompt) -> str:
    """A prompt as one text: the contents of its messages, a blank line between them."""
    return prompt if isinstance(prompt, str) else "\n\n".join(message.content for message in prompt)


def split(text: str) -> list[str]:
    """Pieces that join to the text: words with the blanks before them, and single characters of other scripts."""
    found, end = [], 0
    for match in _PIECES.finditer(text):
        found.append(text[end : match.end()])
        end = match.end()
    return [*found, text[end:]] if end < len(text) else found


def grams(text: str) -> dict[str, float]:
    """Character 1- to 3-grams with weights that grow with their length, words marked at their ends."""
    counts: dict[str, float] = {}
    for piece in split(text.lower().replace("_", " ")):
        word = f" {piece.strip()} " if piece.strip().isascii() and piece.strip().isalnum() else piece.strip()
        for size in (3, 4, 5) if word.startswith(" ") else (1,):
            for start in range(max(len(word) - size + 1, 0)):
                gram = word[start : start + size]
                counts[gram] = counts.get(gram, 0.0) + size
    run = "".join(char for char in text if not char.isascii() and char.isalnum())
    for start in range(len(run) - 1):
        counts[run[start : start + 2]] = counts.get(run[start : start + 2], 0.0) + 3.0
    return counts


def _overlap(question: Mapping[str, float], label: Mapping[str, float]) -> float:
    """Cosine of two sets of n-grams."""
    shared = sum(weight * question.get(gram, 0.0) for gram, weight in label.items())
    norm = math.sqrt(sum(w * w for w in question.values()) * sum(w * w for w in label.values()))
    return shared / norm if norm else 0.0


def _cut(reply: str, how: Sampling) -> tuple[str, Stopped]:
    places = [place for one in how.stop if (place := reply.find(one)) >= 0]
    if places:
        reply = reply[: min(places)]
    pieces = split(reply)
    if len(pieces) > how.max_tokens:
        return "".join(pieces[: how.max_tokens]), "length"
    return reply, "stop" if places else "end"
