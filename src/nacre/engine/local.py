"""What engines that run here have in common: from prompts to ids, pieces as they are written, why an answer ended."""

from __future__ import annotations

import json
import secrets
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.engine.base import BaseEngine, Portions, TokenScore
from nacre.engine.protocol import (
    Capabilities,
    Embedded,
    Generation,
    OnToken,
    Prompt,
    Sampling,
    Score,
    Stopped,
    Timing,
    Unsupported,
    Usage,
)
from nacre.errors import CheckpointError, DataError
from nacre.lineage.digest import RECORD_NAME, digest_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layout = Literal["encoder", "decoder", "encoder-decoder"]
OnId = Callable[[int, int], None]
IdPair = tuple[list[int], list[int]]
WRITING_BATCH, EMBEDDING_BATCH = 16, 32


@dataclass(frozen=True)
class Loaded:
    """A checkpoint as the verbs need it: can it write, how long a text may be, how texts become one vector.

    `title` says what it is: its family, and layers x width (`bert 6 x 384`).
    """

    folder: Path
    title: str
    tokenizer: Tokenizer
    layout: Layout
    writes: bool
    context: int | None
    dimensions: int
    pooling: Literal["cls", "mean", "last"] = "mean"
    normalised: bool = False


@dataclass(frozen=True)
class Written:
    """What a model wrote: ids without the prompt and without the end token, and why it ended."""

    ids: list[int]
    text: str
    stopped: Stopped


class LocalEngine(BaseEngine):
    """A checkpoint on this machine. Subclasses run the model; calls wait for each other, so it is thread-safe.

    Decoders continue texts, encoder-decoders answer them; with a chat template they answer messages. Whatever is no
    encoder-decoder embeds.
    """

    portions = Portions(generate=4 * WRITING_BATCH, score=64, embed=16 * EMBEDDING_BATCH)
    in_process = True
    priced_by_time = True
    takes_turns = False  # whether texts may join and leave while others are being written

    def __init__(self, kind: str, loaded: Loaded) -> None:
        self.loaded, self.tokenizer = loaded, loaded.tokenizer
        self.template = ChatTemplate.find(loaded.folder, loaded.tokenizer) if loaded.writes else None
        embeds = loaded.layout != "encoder-decoder"
        super().__init__(
            name_of(loaded.folder, loaded.title),
            f"{kind}/1:{digest_folder(loaded.folder)}",
            Capabilities(
                chat=self.template is not None,
                complete=loaded.writes,
                score=loaded.writes,
                embed=embeds,
                stream=loaded.writes,
                context=loaded.context,
                dimensions=loaded.dimensions if embeds else None,
            ),
        )
        self._model = threading.Lock()

    # --- what a subclass does

    @abstractmethod
    def _write(self, prompts: Sequence[list[int]], how: Sampling, seed: int, on_id: OnId | None) -> list[Written]:
        """Continues or answers each prompt; `on_id(i, id)` hears ids that belong to the answer."""

    @abstractmethod
    def _log_probabilities(self, pairs: Sequence[IdPair]) -> list[list[float]]:
        """Per pair (before, after) the log-probability (nats) of each id of `after`, which is never empty."""

    @abstractmethod
    def _vectors(self, texts: Sequence[list[int]]) -> NDArray[np.float32]:
        """(N, D), pooled, in the order of the texts."""

    # --- the verbs

    def generate(
        self, prompts: Sequence[Prompt], how: Sampling, *, on_token: OnToken | None = None
    ) -> list[Generation]:
        """Writes in batches of prompts of similar length; no answer depends on its neighbours."""
        self.require_prompts(prompts, on_token)
        ids = [self.prompt_ids(prompt) for prompt in prompts]
        answers: dict[int, Generation] = {}
        for rows in self._batches(ids, how):
            answers |= zip(rows, self._answers(rows, ids, how, on_token), strict=True)
        return [answers[row] for row in range(len(ids))]

    def _batches(self, ids: Sequence[list[int]], how: Sampling) -> Iterator[list[int]]:
        """Rows to write together."""
        alone = [self._alone(one, how) for one in ids]
        order = sorted((row for row in range(len(ids)) if not alone[row]), key=lambda row: len(ids[row]))
        for start in range(0, len(order), WRITING_BATCH):
            yield order[start : start + WRITING_BATCH]
        yield from ([row] for row in range(len(ids)) if alone[row])

    def _alone(self, ids: list[int], how: Sampling) -> bool:
        """Whether a prompt is written alone because in a batch its answer would depend on the others."""
        del ids
        return how.temperature > 0 and how.seed is not None

    def _answers(
        self, rows: list[int], ids: Sequence[list[int]], how: Sampling, on_token: OnToken | None
    ) -> list[Generation]:
        pieces = [Pieces(self.tokenizer, how.stop) for _ in rows]
        first: dict[int, float] = {}
        began = time.perf_counter()

        def hear(place: int, token: int) -> None:
            first.setdefault(place, time.perf_counter() - began)
            if on_token is not None and (piece := pieces[place].take(token)):
                on_token(rows[place], piece)

        seed = secrets.randbits(30) if how.seed is None else how.seed
        with self._model:
            written = self._write([ids[row] for row in rows], how, seed, hear)
        seconds, out = time.perf_counter() - began, []
        for place, (row, one) in enumerate(zip(rows, written, strict=True)):
            rest = pieces[place].rest(one.text)
            if on_token is not None and rest:
                on_token(row, rest)
            usage = Usage(len(ids[row]), len(one.ids), 1, "tokenizer")
            out.append(Generation(one.text, one.stopped, self.name, usage, Timing(seconds, first.get(place))))
        return out

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Sums over the tokens of a continuation: those of the joined text that end behind the prompt."""
        self.require("score")
        began = time.perf_counter()
        ids = [self.scored_ids(prompt, continuation) for prompt, continuation in pairs]
        with self._model:
            found = iter(self._log_probabilities([pair for pair in ids if pair[1]]))
        sums = [float(sum(next(found))) if after else 0.0 for _, after in ids]
        timing = Timing(time.perf_counter() - began)
        return [
            Score(total, len(after), self.name, Usage(len(before) + len(after), 0, 1, "tokenizer"), timing)
            for total, (before, after) in zip(sums, ids, strict=True)
        ]

    @property
    def echoes(self) -> bool:  # type: ignore[override]
        """Whether it continues texts: an encoder-decoder has no tokens of a prompt to score."""
        return self.loaded.writes and self.loaded.layout == "decoder"

    def token_scores(self, text: str) -> list[TokenScore]:
        """The tokens of a text, the first scored where a token starts texts."""
        if not self.echoes:
            raise Unsupported(f"{self.name} cannot echo a prompt", remedy="score an answer to it instead")
        joined, begin = self.tokenizer.spans(text), self.start_ids()
        ids = [*begin, *joined.ids]
        with self._model:
            found = self._log_probabilities([(ids[:1], ids[1:])])[0] if len(ids) > 1 else []
        values = [*([] if begin else [None]), *found]
        return [
            TokenScore(text[start:end], start, value)
            for (start, end), value in zip(joined.offsets, values, strict=True)
        ]

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Pooled vectors, in batches of texts of similar length; longer texts than the context are cut and counted."""
        self.require("embed")
        began = time.perf_counter()
        ids, cut = self.embedded_ids(texts)
        with self._model:
            vectors = self._vectors(ids) if ids else np.zeros((0, self.loaded.dimensions), np.float32)
        usage = Usage(sum(map(len, ids)), 0, int(bool(ids)), "tokenizer")
        return Embedded(vectors, self.name, usage, Timing(time.perf_counter() - began), len(cut), cut)

    # --- from prompts to ids

    def start_ids(self) -> list[int]:
        """What begins a text from nothing: the start token, or the end token where one serves as both, or nothing."""
        for found in (self.tokenizer.bos_id, self.tokenizer.eos_id):
            if found is not None:
                return [found]
        return []

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The ids that the model continues (decoder) or answers (encoder-decoder)."""
        if not isinstance(prompt, str):
            if self.template is None:
                raise Unsupported(f"{self.name} has no chat template", remedy="give a plain text, or a chat model")
            ids = self.template.prompt([{"role": one.role, "content": one.content} for one in prompt])
            # An encoder reads a text with its end, as it did in training.
            ended = self.loaded.layout == "encoder-decoder" and self.tokenizer.eos_id is not None
            return [*ids, self.tokenizer.eos_id or 0] if ended else ids
        if self.loaded.layout == "encoder-decoder":
            return self.tokenizer.encode(prompt)
        return [*self.start_ids(), *self.tokenizer.encode(prompt, add_special=False)]

    def embedded_ids(self, texts: Sequence[str]) -> tuple[list[list[int]], tuple[int, ...]]:
        """The ids of texts to embed, and the places of those that were cut at the context.

        Raises DataError for a text without tokens.
        """
        begin = self.start_ids() if self.loaded.layout == "decoder" else None
        ids = self.tokenizer.encode_batch(texts, begin is None) if texts else []
        ids = ids if begin is None else [[*begin, *one] for one in ids]
        limit = self.loaded.context
        cut = tuple(row for row, one in enumerate(ids) if limit is not None and len(one) > limit)
        for row in cut:
            ids[row] = self.tokenizer.encode(texts[row], max_length=limit) if begin is None else ids[row][:limit]
        for row, one in enumerate(ids):
            if not one:
                raise DataError(f"text {row + 1} has no tokens to embed", remedy="drop empty texts first")
        return ids, cut

    def scored_ids(self, prompt: Prompt, continuation: str) -> tuple[list[int], list[int]]:
        """Ids before the continuation, and its own. Plain texts are cut into tokens as one, as a model reads them."""
        if not isinstance(prompt, str) or self.loaded.layout == "encoder-decoder":
            after = self.tokenizer.encode(continuation, add_special=False)
            return self.prompt_ids(prompt), after
        joined = self.tokenizer.spans(prompt + continuation)
        own = next((i for i, (_, end) in enumerate(joined.offsets) if end > len(prompt)), len(joined.ids))
        before, after = [*self.start_ids(), *joined.ids[:own]], joined.ids[own:]
        if not before and after:
            raise DataError(
                "a continuation of nothing cannot be scored: the tokenizer has no token that starts a text",
                remedy="give a prompt of at least one token",
            )
        return before, after


class Pieces:
    """An answer's text as its tokens come: only what later tokens cannot change, and no part of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.ids: list[int] = []
        self.said = ""

    def take(self, token: int) -> str:
        """The new piece after one more token; empty where it must wait."""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        safe = len(text.rstrip("\ufffd"))  # the rest of a character may be still to come
        for one in self.stop:
            if (place := text.find(one)) >= 0:
                safe = min(safe, place)
            held = next((n for n in range(min(len(one) - 1, len(text)), 0, -1) if text.endswith(one[:n])), 0)
            safe = min(safe, len(text) - held)
        return self._say(text[:safe])

    def rest(self, text: str) -> str:
        """What of the finished text was not said yet."""
        return self._say(text)

    def _say(self, text: str) -> str:
        if not text.startswith(self.said):
            return ""
        piece, self.said = text[len(self.said) :], text
        return piece


def name_of(folder: Path, title: str) -> str:
    """What reports call a checkpoint: its artifact, else its folder, else what it is.

    Never `_name_or_path` of its config: that is often the model from which this one was once made.
    """
    plain = _json(folder / RECORD_NAME)
    if isinstance(plain.get("name"), str) and plain["name"]:
        return f"{plain['name']}@{plain['version']}" if plain.get("version") else str(plain["name"])
    name = folder.resolve().name
    return title if name in ("engine", "model") or name.isdigit() else name


def pooling_of(folder: Path) -> tuple[Literal["cls", "mean", "last"], bool]:
    """How a sentence encoder makes one vector, and whether it is scaled to length 1: from `modules.json`.

    Mean of all tokens, not scaled, where the folder says nothing. Raises CheckpointError for a pooling not known here.
    """
    modules = folder / "modules.json"
    listed = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in listed]
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise CheckpointError(
            f"{modules} names {', '.join(unknown)}, which is not known here", remedy="serve the model, give its address"
        )
    place = next((str(one.get("path")) for one, kind in zip(listed, kinds, strict=True) if kind == "Pooling"), None)
    config = _json(folder / (place or "1_Pooling") / "config.json")
    chosen = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    known: dict[str, Literal["cls", "mean", "last"]] = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
    if len(chosen) > 1 or any(one not in known for one in chosen):
        raise CheckpointError(
            f"{folder} pools by {', '.join(chosen)}, which is not known here",
            remedy="serve the model, give its address",
        )
    return known[chosen[0]] if chosen else "mean", "Normalize" in kinds


def longest_text(folder: Path, positions: int | None) -> int | None:
    """The context of an encoder: what sentence-transformers is told, within the positions there are."""
    told = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    limits = [one for one in (told, positions) if isinstance(one, int)]
    return min(limits) if limits else None


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}", remedy="fetch the model again") from error
    return value if isinstance(value, dict) else {}
