"""Writing with a kernel: generation over a KV cache, log-probabilities of given text, and embeddings.

B texts, T tokens, V vocabulary, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nacre.errors import ConfigError, DataError
from nacre.kernel.cache import Cache
from nacre.kernel.config import Pooling
from nacre.kernel.heads import pool
from nacre.kernel.model import Kernel
from nacre.kernel.sampling import SamplingConfig, choose

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
    included. `stopped` is `end` (the end token), `stop` (a stop string), `length` (max_new_tokens) or `context` (the
    kernel has no further positions).
    """

    ids: list[int]
    text: str | None
    log_probabilities: list[float]
    stopped: Stopped


@dataclass
class _Text:
    """One text under way. `number` is its place in the answer, `seen` prompt and answer so far."""

    number: int
    seen: list[int]
    prompt: int
    rng: torch.Generator
    log_probabilities: list[float] = field(default_factory=list)

    @property
    def written(self) -> list[int]:
        return self.seen[self.prompt :]


def generate(
    kernel: Kernel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig | None = None,
    *,
    decode: Decode | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """Continues each prompt, or answers it with an encoder-decoder kernel; in the order of the prompts.

    `decode` turns ids into text and is needed for stop strings. `on_token(prompt, id)` hears each token at once.
    Raises ConfigError for a kernel that cannot write, DataError for a prompt that is empty or leaves no position.
    """
    config = config or GenerationConfig()
    if kernel.config.head != "lm":
        raise ConfigError(
            f"a kernel with the head {kernel.config.head!r} cannot write text",
            remedy="use a decoder or an encoder-decoder with its language-model head",
        )
    if config.stop and decode is None:
        raise ConfigError("stop strings need a decoder of ids", remedy="pass decode=tokenizer.decode")
    if not prompts:
        return []
    _check_prompts(kernel, prompts)
    done: dict[int, Generated] = {}
    with _at_rest(kernel), torch.inference_mode():
        texts, logits, cache = _begin(kernel, prompts, config)
        while True:
            texts, kept = _advance(kernel, texts, logits, config, decode, on_token, done)
            if not texts:
                return [done[number] for number in range(len(prompts))]
            if len(kept) < logits.shape[0]:
                cache.select(torch.tensor(kept, device=logits.device))
            logits = _next_logits(kernel, torch.tensor([[t.seen[-1]] for t in texts], device=logits.device), cache)


def _check_prompts(kernel: Kernel, prompts: Sequence[Sequence[int]]) -> None:
    limit = kernel.config.max_positions if kernel.config.position in ("learned", "rotary") else None
    for number, ids in enumerate(prompts, 1):
        if not ids:
            raise DataError(f"prompt {number} is empty", remedy="give a text, or begin it with the start token")
        if limit is not None and len(ids) >= limit:
            raise DataError(
                f"prompt {number} has {len(ids)} tokens; the kernel has {limit} positions for prompt and answer",
                remedy="shorten the prompt",
            )


def _begin(
    kernel: Kernel, prompts: Sequence[Sequence[int]], config: GenerationConfig
) -> tuple[list[_Text], Tensor, Cache]:
    """The first forward pass: logits (B, V) after each prompt."""
    device = next(kernel.parameters()).device
    rngs = [torch.Generator().manual_seed(config.seed * 1_000_003 + number) for number in range(len(prompts))]
    width = max(map(len, prompts))
    pad = kernel.config.pad_id or 0
    if kernel.config.layout == "encoder-decoder":
        start = kernel.config.decoder_start_id
        if start is None:
            raise ConfigError("the kernel names no token that starts its answers", remedy="set decoder_start_id")
        texts = [_Text(number, [start], 1, rngs[number]) for number in range(len(prompts))]
        ids = torch.tensor([[*one, *[pad] * (width - len(one))] for one in prompts], device=device)
        mask = torch.tensor([[True] * len(one) + [False] * (width - len(one)) for one in prompts], device=device)
        cache = Cache(kernel.config, config.max_new_tokens + 1)
        first = torch.full((len(prompts), 1), start, device=device)
        hidden = kernel(ids, mask=None if bool(mask.all()) else mask, decoder_ids=first, cache=cache).hidden
    else:
        texts = [_Text(number, list(one), len(one), rngs[number]) for number, one in enumerate(prompts)]
        ids = torch.tensor([[*[pad] * (width - len(one)), *one] for one in prompts], device=device)
        mask = torch.tensor([[False] * (width - len(one)) + [True] * len(one) for one in prompts], device=device)
        cache = Cache(kernel.config, width + config.max_new_tokens)
        hidden = kernel(ids, mask=None if bool(mask.all()) else mask, cache=cache).hidden
    return texts, kernel.lm_logits(hidden[:, -1]), cache


def _next_logits(kernel: Kernel, ids: Tensor, cache: Cache) -> Tensor:
    """(B, V) after one more token of each text, `ids` (B, 1)."""
    if kernel.config.layout == "encoder-decoder":
        return kernel.lm_logits(kernel(None, decoder_ids=ids, cache=cache).hidden[:, -1])
    return kernel.lm_logits(kernel(ids, cache=cache).hidden[:, -1])


def _advance(
    kernel: Kernel,
    texts: list[_Text],
    logits: Tensor,
    config: GenerationConfig,
    decode: Decode | None,
    on_token: Callable[[int, int], None] | None,
    done: dict[int, Generated],
) -> tuple[list[_Text], list[int]]:
    """Draws a token for each text; gives those that go on, and their rows in the batch."""
    draws = torch.stack([torch.rand((), generator=text.rng, dtype=torch.float64) for text in texts])
    chosen = choose(logits, [text.seen for text in texts], config.sampling, draws)
    own = logits.float().log_softmax(dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    kept: list[int] = []
    for row, (text, token, value) in enumerate(zip(texts, chosen.tolist(), own.tolist(), strict=True)):
        text.log_probabilities.append(value)
        finished = _finish(kernel, text, token, config, decode)
        if on_token is not None and (finished is None or finished.stopped in ("length", "context")):
            on_token(text.number, token)
        if finished is None:
            kept.append(row)
        else:
            done[text.number] = finished
    return [texts[row] for row in kept], kept


def _finish(
    kernel: Kernel, text: _Text, token: int, config: GenerationConfig, decode: Decode | None
) -> Generated | None:
    """The finished answer if `token` ends the text, else None; the token is added to the text unless it is the end."""
    ends = kernel.config.eos_id
    stopped: Stopped | None = None
    if token == ends or (isinstance(ends, tuple) and token in ends):
        stopped = "end"
    else:
        text.seen.append(token)
    answer = decode(text.written) if decode is not None and (config.stop or stopped) else None
    if stopped is None and answer is not None:
        cuts = [place for one in config.stop if (place := answer.find(one)) >= 0]
        if cuts:
            return Generated(text.written, answer[: min(cuts)], text.log_probabilities, "stop")
    if stopped is None and len(text.written) >= config.max_new_tokens:
        stopped = "length"
    bounded = kernel.config.position in ("learned", "rotary") and kernel.config.layout != "encoder-decoder"
    if stopped is None and bounded and len(text.seen) >= kernel.config.max_positions:
        stopped = "context"
    if stopped is None:
        return None
    return Generated(text.written, decode(text.written) if decode else None, text.log_probabilities, stopped)


def score(
    kernel: Kernel, texts: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] | None = None
) -> list[list[float]]:
    """The log-probability (nats) of each token given those before it.

    Decoder: one value per token from the second on, so begin a text with the start token to score all of it.
    Encoder-decoder: `texts` are answers to `sources`, one value per token.
    """
    answers = []
    with _at_rest(kernel), torch.inference_mode():
        device = next(kernel.parameters()).device
        for number, ids in enumerate(texts):
            if kernel.config.layout == "encoder-decoder":
                if sources is None:
                    raise ConfigError("an encoder-decoder scores answers to sources", remedy="pass sources=")
                before = torch.tensor([[kernel.config.decoder_start_id or 0, *ids[:-1]]], device=device)
                source = torch.tensor([list(sources[number])], device=device)
                hidden, targets = kernel(source, decoder_ids=before).hidden, torch.tensor(ids, device=device)
            else:
                if len(ids) < 2:
                    raise DataError(
                        f"text {number + 1} has no second token to score", remedy="begin it with the start token"
                    )
                hidden = kernel(torch.tensor([list(ids[:-1])], device=device)).hidden
                targets = torch.tensor(list(ids[1:]), device=device)
            found = kernel.lm_logits(hidden[0]).float().log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1))
            answers.append(found.squeeze(-1).tolist())
    return answers


def embed(
    kernel: Kernel,
    texts: Sequence[Sequence[int]],
    pooling: Pooling = "mean",
    *,
    normalise: bool = False,
    batch: int = 32,
) -> Tensor:
    """One vector per text, (B, D) float32 on the CPU: mean of real tokens, first or last token, before any pooler.

    Texts are taken by length in batches of `batch`; the padding changes nothing. `normalise` scales to length 1.
    """
    if any(not ids for ids in texts):
        raise DataError("a text without tokens has no embedding", remedy="drop empty texts first")
    device, pad = next(kernel.parameters()).device, kernel.config.pad_id or 0
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = torch.empty(len(texts), kernel.config.hidden_size)
    with _at_rest(kernel), torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            width = max(len(texts[row]) for row in rows)
            ids = torch.tensor([[*texts[row], *[pad] * (width - len(texts[row]))] for row in rows], device=device)
            mask = torch.tensor([[i < len(texts[row]) for i in range(width)] for row in rows], device=device)
            hidden = kernel(ids, mask=None if bool(mask.all()) else mask).hidden
            vectors[rows] = pool(hidden, mask, pooling).float().cpu()
    return torch.nn.functional.normalize(vectors, dim=-1) if normalise else vectors


@contextmanager
def _at_rest(kernel: Kernel) -> Iterator[None]:
    """Evaluation mode inside, the kernel's former mode afterwards."""
    training = kernel.training
    kernel.eval()
    try:
        yield
    finally:
        kernel.train(training)
