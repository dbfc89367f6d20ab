"""Writing with a kernel: generation over a KV cache, log-probabilities of given text, and embeddings.

B texts, T tokens, V vocabulary, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from nacre.errors import ConfigError, DataError
from nacre.kernel.config import Pooling
from nacre.kernel.heads import pool
from nacre.kernel.model import Kernel, Output
from nacre.kernel.running import Asked, Decode, Generated, GenerationConfig, Running, Stopped, padded, unless_whole

__all__ = ["Decode", "Generated", "GenerationConfig", "Stopped", "embed", "generate", "score"]

_TOKENS = 8192  # of a batch that is scored, padding included
_LOGITS = 2**24  # held at once while scoring: 64 MB


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
    running = Running(kernel, decode)
    done: dict[int, Generated] = {}
    with _at_rest(kernel):
        running.admit([Asked(number, ids, config, stream=number) for number, ids in enumerate(prompts)])
        while running:
            for drawn in running.step():
                if on_token is not None and drawn.token is not None:
                    on_token(drawn.number, drawn.token)
                if drawn.done is not None:
                    done[drawn.number] = drawn.done
    return [done[number] for number in range(len(prompts))]


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
        out: Output = kernel(padded(kernel, [ids[:-1] for ids in texts])[0])
    else:
        before, _ = padded(kernel, [[kernel.config.decoder_start_id or 0, *ids[:-1]] for ids in texts])
        ids, mask = padded(kernel, sources)
        out = kernel(ids, mask=unless_whole(mask), decoder_ids=before)
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
            ids, mask = padded(kernel, [texts[row] for row in rows])
            hidden = kernel(ids, mask=unless_whole(mask)).hidden
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
