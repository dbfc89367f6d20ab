"""Texts written together, each of which may come and go between two steps: continuous batching over one KV cache.

Orca (Yu et al., OSDI 2022, section 4): scheduling by iteration, not by request. B texts, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nacre.errors import ConfigError, DataError
from nacre.kernel.cache import Cache
from nacre.kernel.model import Kernel
from nacre.kernel.sampling import SamplingConfig, draw

Stopped = Literal["end", "stop", "length", "context"]
Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class GenerationConfig:
    """`max_new_tokens` bounds the answer; `stop` strings end it and are cut off; `seed` fixes all draws.

    Each text draws from its own stream, so it is the same alone and in a batch.
    """

    max_new_tokens: int = 128
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"generation: max_new_tokens is {self.max_new_tokens}", remedy="give 1 or more")
        if any(not text for text in self.stop):
            raise ConfigError("generation: a stop string is empty", remedy="remove it")


@dataclass(frozen=True)
class Generated:
    """What was written: `ids` without prompt and without the end token; `text` when a decoder of ids was given.

    `log_probabilities` are the kernel's own (before temperature and truncation), one per drawn token, the end token
    included; `drawn_log_probabilities` those of the distribution that the tokens were drawn from. `stopped` is `end`
    (the end token, which is in `end`), `stop` (a stop string), `length` (max_new_tokens) or `context` (the kernel has
    no further positions).
    """

    ids: list[int]
    text: str | None
    log_probabilities: list[float]
    stopped: Stopped
    drawn_log_probabilities: list[float] = field(default_factory=list)
    end: int | None = None


@dataclass(frozen=True)
class Asked:
    """A text to write. `number` names it to the caller; `stream` tells texts of one seed apart."""

    number: int
    prompt: Sequence[int]
    config: GenerationConfig
    stream: int = 0


@dataclass(frozen=True)
class Drawn:
    """One step of one text. `token` is None where it is no part of the answer; `done` where the text has ended."""

    number: int
    token: int | None
    done: Generated | None


@dataclass
class _Text:
    """One text under way: `seen` is prompt and answer so far."""

    number: int
    seen: list[int]
    prompt: int
    config: GenerationConfig
    rng: torch.Generator
    log_probabilities: list[float] = field(default_factory=list)
    drawn_log_probabilities: list[float] = field(default_factory=list)

    @property
    def written(self) -> list[int]:
        return self.seen[self.prompt :]

    def ended(self, stopped: Stopped, text: str | None, end: int | None = None) -> Generated:
        return Generated(self.written, text, self.log_probabilities, stopped, self.drawn_log_probabilities, end)


class Running:
    """Texts under way in one batch of `kernel`, which is in evaluation mode. Not thread-safe.

    `decode` turns ids into text and is needed for stop strings. No text depends on the others: padding takes no
    positions, and every text has its own stream of draws.
    """

    def __init__(self, kernel: Kernel, decode: Decode | None = None) -> None:
        if kernel.config.head != "lm":
            raise ConfigError(
                f"a kernel with the head {kernel.config.head!r} cannot write text",
                remedy="use a decoder or an encoder-decoder with its language-model head",
            )
        self.kernel, self.decode = kernel, decode
        self.room = kernel.room  # with the adapters that act now, and must act at every step
        self._texts: list[_Text] = []
        self._cache = Cache(kernel.config)
        self._logits: Tensor | None = None  # (B, V) after what every text holds; None once a token was drawn from it

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def nbytes(self) -> int:
        """Bytes of the KV cache."""
        return self._cache.nbytes if self._texts else 0

    def check(self, asked: Asked) -> None:
        """Raises DataError for a prompt that is empty or leaves no position, ConfigError for stops without `decode`."""
        if asked.config.stop and self.decode is None:
            raise ConfigError("stop strings need a decoder of ids", remedy="pass decode=tokenizer.decode")
        limit = self.room
        if not asked.prompt:
            raise DataError(
                f"prompt {asked.number + 1} is empty", remedy="give a text, or begin it with the start token"
            )
        if limit is not None and len(asked.prompt) >= limit:
            raise DataError(
                f"prompt {asked.number + 1} has {len(asked.prompt)} tokens; the kernel has {limit} positions for "
                "prompt and answer",
                remedy="shorten the prompt",
            )

    def admit(self, asked: Sequence[Asked]) -> None:
        """Reads prompts, in one pass, and sets their texts beside those under way. Raises as `check` does."""
        for one in asked:
            self.check(one)
        if not asked:
            return
        with torch.inference_mode():
            texts, logits, cache = self._read(asked)
            if self._texts:
                logits = torch.cat((self._ready(), logits))
                self._cache.join(cache)
            else:
                self._cache = cache
        self._texts += texts
        self._logits = logits

    def step(self) -> list[Drawn]:
        """One more token of every text, in the order of their coming; those that end leave."""
        if not self._texts:
            return []
        with torch.inference_mode():
            logits = self._ready()
            chosen, drawn_from = self._choose(logits)
            own = logits.float().log_softmax(dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            self._logits = None
            drawn = [
                self._take(text, *one)
                for text, *one in zip(self._texts, chosen.tolist(), own.tolist(), drawn_from.tolist(), strict=True)
            ]
            self.leave({one.number for one in drawn if one.done is not None})
        return drawn

    def leave(self, numbers: Collection[int]) -> None:
        """Takes texts out, finished or not; numbers of no text are passed over."""
        kept = [row for row, text in enumerate(self._texts) if text.number not in numbers]
        if len(kept) == len(self._texts):
            return
        self._texts = [self._texts[row] for row in kept]
        if not kept:
            self._cache, self._logits = Cache(self.kernel.config), None
            return
        with torch.inference_mode():
            rows = torch.tensor(kept, device=next(self.kernel.parameters()).device)
            self._cache.select(rows)
            self._cache.trim()
            self._logits = None if self._logits is None else self._logits[rows]

    def _read(self, asked: Sequence[Asked]) -> tuple[list[_Text], Tensor, Cache]:
        """The first forward pass: logits (B, V) after each prompt."""
        config, prompts = self.kernel.config, [one.prompt for one in asked]
        room = max(one.config.max_new_tokens for one in asked)
        if config.layout == "encoder-decoder":
            start = config.decoder_start_id
            if start is None:
                raise ConfigError("the kernel names no token that starts its answers", remedy="set decoder_start_id")
            texts = [_text(one, [start]) for one in asked]
            ids, mask = padded(self.kernel, prompts)
            cache = Cache(config, room + 1)
            first = torch.full((len(prompts), 1), start, device=ids.device)
            hidden = self.kernel(ids, mask=unless_whole(mask), decoder_ids=first, cache=cache).hidden
        else:
            texts = [_text(one, list(one.prompt)) for one in asked]
            ids, mask = padded(self.kernel, prompts, left=True)
            cache = Cache(config, ids.shape[1] + room)
            hidden = self.kernel(ids, mask=unless_whole(mask), cache=cache).hidden
        return texts, self.kernel.lm_logits(hidden[:, -1]), cache

    def _ready(self) -> Tensor:
        """Logits (B, V) after what every text holds: the token drawn last is read now, where it was not yet."""
        if self._logits is None:
            device = next(self.kernel.parameters()).device
            ids = torch.tensor([[text.seen[-1]] for text in self._texts], device=device)
            if self.kernel.config.layout == "encoder-decoder":
                hidden = self.kernel(None, decoder_ids=ids, cache=self._cache).hidden
            else:
                hidden = self.kernel(ids, cache=self._cache).hidden
            self._logits = self.kernel.lm_logits(hidden[:, -1])
        return self._logits

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The next token of each text, (B,), by the rules that each asked for, and how likely these made it, (B,)."""
        draws = torch.stack([torch.rand((), generator=text.rng, dtype=torch.float64) for text in self._texts])
        groups: dict[SamplingConfig, list[int]] = {}
        for row, text in enumerate(self._texts):
            groups.setdefault(text.config.sampling, []).append(row)
        if len(groups) == 1:
            return draw(logits, [text.seen for text in self._texts], self._texts[0].config.sampling, draws)
        chosen = torch.empty(len(self._texts), dtype=torch.long, device=logits.device)
        likely = torch.empty(len(self._texts), dtype=torch.float64, device=logits.device)
        for sampling, rows in groups.items():
            seen = [self._texts[row].seen for row in rows]
            chosen[rows], likely[rows] = draw(logits[rows], seen, sampling, draws[rows])
        return chosen, likely

    def _take(self, text: _Text, token: int, own: float, drawn: float) -> Drawn:
        text.log_probabilities.append(own)
        text.drawn_log_probabilities.append(drawn)
        done = self._finish(text, token)
        heard = done is None or done.stopped in ("length", "context")
        return Drawn(text.number, token if heard else None, done)

    def _finish(self, text: _Text, token: int) -> Generated | None:
        """The finished answer if `token` ends the text, else None; the token is added to the text unless it ends it."""
        config, ends = self.kernel.config, self.kernel.config.eos_id
        stopped: Stopped | None = None
        if token == ends or (isinstance(ends, tuple) and token in ends):
            stopped = "end"
        else:
            text.seen.append(token)
        answer = self.decode(text.written) if self.decode is not None and (text.config.stop or stopped) else None
        if stopped is None and answer is not None:
            cuts = [place for one in text.config.stop if (place := answer.find(one)) >= 0]
            if cuts:
                return text.ended("stop", answer[: min(cuts)])
        if stopped is None and len(text.written) >= text.config.max_new_tokens:
            stopped = "length"
        room = None if config.layout == "encoder-decoder" else self.room
        if stopped is None and room is not None and len(text.seen) >= room:
            stopped = "context"
        if stopped is None:
            return None
        whole = self.decode(text.written) if self.decode is not None else None
        return text.ended(stopped, whole, token if stopped == "end" else None)


def _text(asked: Asked, seen: list[int]) -> _Text:
    rng = torch.Generator().manual_seed(asked.config.seed * 1_000_003 + asked.stream)
    return _Text(asked.number, seen, len(seen), asked.config, rng)


def padded(kernel: Kernel, texts: Sequence[Sequence[int]], *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids (B, T) on the kernel's device, and a mask (B, T) that is True where they are real."""
    device, pad, width = next(kernel.parameters()).device, kernel.config.pad_id or 0, max(map(len, texts))
    fill = [[pad] * (width - len(one)) for one in texts]
    ids = [[*blank, *one] if left else [*one, *blank] for one, blank in zip(texts, fill, strict=True)]
    lengths = torch.tensor([len(one) for one in texts], device=device)[:, None]
    places = torch.arange(width, device=device)
    return torch.tensor(ids, device=device), (places >= width - lengths) if left else (places < lengths)


def unless_whole(mask: Tensor) -> Tensor | None:
    """The mask where anything is padded: without one the kernel is faster."""
    return None if bool(mask.all()) else mask
