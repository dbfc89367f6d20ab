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
from nacre.kernel.model import Kernel, Output
from nacre.kernel.sampling import SamplingConfig, choose

Stopped = Literal["end", "stop", "length", "context"]
Decode = Callable[[list[int]], str]
_TOKENS = 8192  # of a batch that is scored, padding included
_LOGITS = 2**24  # held at once while scoring: 64 MB


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
    Written greedily, a text is the same alone and in a batch: padding takes no positions.
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
    rngs = [torch.Generator().manual_seed(config.seed * 1_000_003 + number) for number in range(len(prompts))]
    if kernel.config.layout == "encoder-decoder":
        start = kernel.config.decoder_start_id
        if start is None:
            raise ConfigError("the kernel names no token that starts its answers", remedy="set decoder_start_id")
        texts = [_Text(number, [start], 1, rngs[number]) for number in range(len(prompts))]
        ids, mask = _padded(kernel, prompts)
        cache = Cache(kernel.config, config.max_new_tokens + 1)
        first = torch.full((len(prompts), 1), start, device=ids.device)
        hidden = kernel(ids, mask=_unless_whole(mask), decoder_ids=first, cache=cache).hidden
    else:
        texts = [_Text(number, list(one), len(one), rngs[number]) for number, one in enumerate(prompts)]
        ids, mask = _padded(kernel, prompts, left=True)
        cache = Cache(kernel.config, ids.shape[1] + config.max_new_tokens)
        hidden = kernel(ids, mask=_unless_whole(mask), cache=cache).hidden
    return texts, kernel.lm_logits(hidden[:, -1]), cache


def _padded(kernel: Kernel, texts: Sequence[Sequence[int]], *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids (B, T) on the kernel's device, and a mask (B, T) that is True where they are real."""
    device, pad, width = next(kernel.parameters()).device, kernel.config.pad_id or 0, max(map(len, texts))
    fill = [[pad] * (width - len(one)) for one in texts]
    ids = [[*blank, *one] if left else [*one, *blank] for one, blank in zip(texts, fill, strict=True)]
    lengths = torch.tensor([len(one) for one in texts], device=device)[:, None]
    places = torch.arange(width, device=device)
    return torch.tensor(ids, device=device), (places >= width - lengths) if left else (places < lengths)


def _unless_whole(mask: Tensor) -> Tensor | None:
    """The mask where anything is padded: without one the kernel is faster."""
    return None if bool(mask.all()) else mask


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
    kernel: Kernel,
    texts: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]] | None = None,
    *,
    given: Sequence[int] | None = None,
) -> list[list[float]]:
    """The log-probability (nats) of each token given those before it, in the order of the texts.

    Decoder: one value per token from the second on, so begin a text with the start token to score all of it.
    Encoder-decoder: `texts` are answers to `sources`, one value per token. `given`: so many tokens that each text
    begins with are read, but not scored, which saves their logits. Texts are taken by length in batches of bounded
    size; the padding changes nothing.
    """
    both = kernel.config.layout == "encoder-decoder"
    if both and sources is None:
        raise ConfigError("an encoder-decoder scores answers to sources", remedy="pass sources=")
    short = None if both else next((number for number, ids in enumerate(texts, 1) if len(ids) < 2), None)
    if short is not None:
        raise DataError(f"text {short} has no second token to score", remedy="begin it with the start token")
    first = 0 if both else 1
    starts = [first] * len(texts) if given is None else [max(first, one) for one in given]
    lengths = [len(ids) + (len(sources[row]) if sources else 0) for row, ids in enumerate(texts)]
    values: list[list[float]] = [[] for _ in texts]
    with _at_rest(kernel), torch.inference_mode():
        for rows in _by_length([row for row in range(len(texts)) if starts[row] < len(texts[row])], lengths):
            hidden = _states(kernel, [texts[row] for row in rows], sources and [sources[row] for row in rows])
            scored = [(place, at) for place, row in enumerate(rows) for at in range(starts[row], len(texts[row]))]
            states = hidden[[place for place, _ in scored], [at - first for _, at in scored]]
            found = _log_probabilities(kernel, states, [texts[rows[place]][at] for place, at in scored])
            for (place, _), value in zip(scored, found, strict=True):
                values[rows[place]].append(value)
    return values


def _by_length(rows: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of similar length, of at most `_TOKENS` tokens with their padding, or one row. Sources may add as many."""
    batch: list[int] = []
    for row in sorted(rows, key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > _TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _states(kernel: Kernel, texts: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] | None) -> Tensor:
    """Hidden states (B, T, D) before each token of an answer, or before each but the first of a text."""
    # Padding stands on the right, where no real token of a decoder looks: it needs no mask.
    if sources is None:
        out: Output = kernel(_padded(kernel, [ids[:-1] for ids in texts])[0])
    else:
        before, _ = _padded(kernel, [[kernel.config.decoder_start_id or 0, *ids[:-1]] for ids in texts])
        ids, mask = _padded(kernel, sources)
        out = kernel(ids, mask=_unless_whole(mask), decoder_ids=before)
    return out.hidden


def _log_probabilities(kernel: Kernel, states: Tensor, tokens: Sequence[int]) -> list[float]:
    """Of each token (N,) after its state (N, D), with a bounded number of logits at a time."""
    wanted, size = torch.tensor(tokens, device=states.device), max(1, _LOGITS // kernel.config.vocab_size)
    found: list[float] = []
    for start in range(0, len(tokens), size):
        logits = kernel.lm_logits(states[start : start + size]).float()
        own = wanted[start : start + size].unsqueeze(-1)
        found += logits.log_softmax(dim=-1).gather(-1, own).squeeze(-1).tolist()
    return found


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
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = torch.empty(len(texts), kernel.config.hidden_size)
    with _at_rest(kernel), torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            ids, mask = _padded(kernel, [texts[row] for row in rows])
            hidden = kernel(ids, mask=_unless_whole(mask)).hidden
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
