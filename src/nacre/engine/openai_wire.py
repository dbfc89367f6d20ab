"""OpenAI's wire format: requests as they are sent, replies as they are read. Every field is checked before it is used.

Reading raises `Malformed` where a reply lacks what its format promises.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nacre.engine.protocol import Message, Prompt, Sampling, Stopped, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Json = dict[str, Any]
_STOPPED: dict[str, Stopped] = {"stop": "end", "eos_token": "end", "length": "length", "content_filter": "filtered"}
_DATE = re.compile(r"[-@:](?:\d{4}|\d{6}|\d{8}|\d{4}-\d{2}(?:-\d{2})?)$")


class Malformed(Exception):
    """A reply is not what its format promises."""


@dataclass(frozen=True)
class Reply:
    """One answer as read: `finish` is the upstream's own word for why it ended."""

    text: str
    stopped: Stopped
    model: str | None
    usage: Usage
    finish: str | None


# --- requests


def writing_body(model: str, prompt: Prompt, how: Sampling, limit_name: str = "max_tokens") -> Json:
    """A request to continue a text, or to answer messages."""
    body: Json = {"model": model, limit_name: how.max_tokens, "temperature": how.temperature}
    if isinstance(prompt, str):
        body["prompt"] = prompt
    else:
        body["messages"] = [{"role": one.role, "content": one.content} for one in prompt]
    optional = {"top_p": how.top_p, "stop": list(how.stop) or None, "seed": how.seed}
    return body | {name: value for name, value in optional.items() if value is not None}


def is_same_model(asked: str, given: str) -> bool:
    """Whether a reply's model is the asked one: the same, or one of its dated versions; a provider's prefix is none."""
    mine, theirs = (one.lower().rstrip("/").rpartition("/")[2].removesuffix(":latest") for one in (asked, given))
    return mine == theirs or _DATE.sub("", theirs) == mine


# --- replies


def usage_of(reply: Json) -> Usage:
    """What the upstream counted; unknown where it counted nothing."""
    counted = reply.get("usage")
    if not isinstance(counted, dict):
        return Usage(requests=1)
    read, written = counted.get("prompt_tokens"), counted.get("completion_tokens", 0)
    if not isinstance(read, int) or not isinstance(written, int):
        return Usage(requests=1)
    return Usage(read, written, 1, "upstream")


def read_answer(reply: Json) -> Reply:
    """The one choice of a chat or a completion."""
    choice = _first_choice(reply)
    if "message" in choice:
        message = choice["message"]
        if not isinstance(message, dict) or not ("content" in message or "refusal" in message):
            raise Malformed("its message has no content")
        text, refusal = message.get("content"), message.get("refusal")
    elif "text" in choice:
        text, refusal = choice["text"], None
    else:
        raise Malformed("its choice has neither message nor text")
    if not isinstance(text, str | None) or not isinstance(refusal, str | None):
        raise Malformed("its content is no text")
    finish = choice.get("finish_reason")
    stopped: Stopped = "refused" if refusal else _STOPPED.get(str(finish), "end")
    return Reply(text or refusal or "", stopped, _model(reply), usage_of(reply), finish)


def read_stream(events: Iterable[str]) -> Iterator[str | Reply]:
    """Pieces of text as they come, and at last the whole; raises Malformed where the stream ends before its end."""
    pieces: list[str] = []
    refusals: list[str] = []
    finish, model, usage, done = None, None, Usage(requests=1), False
    for event in events:
        if event.strip() == "[DONE]":
            done = True
            break
        chunk = _chunk(event)
        model, usage = model or _model(chunk), usage_of(chunk) if chunk.get("usage") else usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta", choice)
            text = delta.get("content") or delta.get("text")
            refusals += [delta["refusal"]] if delta.get("refusal") else []
            finish = choice.get("finish_reason") or finish
            if text:
                pieces.append(text)
                yield text
    if not done and finish is None:
        raise Malformed("the stream ended before the answer did")
    stopped: Stopped = "refused" if refusals else _STOPPED.get(str(finish), "end")
    yield Reply("".join(pieces) or "".join(refusals), stopped, model, usage, finish)


def read_vectors(reply: Json, n_texts: int) -> NDArray[np.float32]:
    """(N, D), in the order of the texts, finite."""
    import numpy as np

    data = reply.get("data")
    if not isinstance(data, list) or not all(isinstance(one, dict) and "embedding" in one for one in data):
        raise Malformed("it has no list of embeddings")
    if len(data) != n_texts:
        raise Malformed(f"it has {len(data)} embeddings for {n_texts} texts")
    places = [one.get("index", place) for place, one in enumerate(data)]
    if sorted(places) != list(range(n_texts)):
        raise Malformed("the numbers of its embeddings are not those of the texts")
    rows = [_vector(data[places.index(place)]["embedding"]) for place in range(n_texts)]
    sizes = sorted({len(row) for row in rows})
    if len(sizes) != 1 or sizes[0] == 0:
        raise Malformed(f"its embeddings have {', '.join(map(str, sizes))} dimensions")
    vectors = np.stack(rows)
    if not np.isfinite(vectors).all():
        raise Malformed("its embeddings hold values that are not finite")
    return vectors


def read_score(reply: Json, prompt: str, continuation: str) -> tuple[float, int]:
    """The sum of log-probabilities of the tokens of an echoed text that end behind the prompt, and their number."""
    found = _first_choice(reply).get("logprobs")
    if not isinstance(found, dict) or not isinstance(found.get("token_logprobs"), list):
        raise Malformed("it has no log-probabilities of the echoed prompt")
    values, tokens = found["token_logprobs"], found.get("tokens") or []
    starts = _offsets(found, tokens, prompt + continuation, len(values))
    end = len(prompt) + len(continuation)
    ends = [*starts[1:], end]
    own = [i for i, start in enumerate(starts) if start < end and (start >= len(prompt) or ends[i] > len(prompt))]
    chosen = [values[i] for i in own]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in chosen):
        raise Malformed("a token of the continuation has no log-probability")
    return float(sum(chosen)), len(chosen)


def messages_of(value: Any) -> tuple[Message, ...]:
    """Messages of a request; raises Malformed. Content may be a text, or a list of text parts."""
    if not isinstance(value, list) or not value:
        raise Malformed("messages must be a list with at least one message")
    out = []
    for one in value:
        role, content = (one.get("role"), one.get("content")) if isinstance(one, dict) else (None, None)
        if isinstance(content, list):
            kinds = [part.get("type") if isinstance(part, dict) else None for part in content]
            if any(kind != "text" for kind in kinds):
                raise Malformed("only text parts are understood")
            content = "".join(str(part["text"]) for part in content)
        known: dict[Any, Literal["system", "user", "assistant"]] = {
            "system": "system",
            "developer": "system",
            "user": "user",
            "assistant": "assistant",
        }
        if role not in known or not isinstance(content, str):
            raise Malformed("a message has a role (system, user, assistant) and a content")
        out.append(Message(known[role], content))
    return tuple(out)


def encode_vector(vector: Sequence[float], encoding: str) -> Any:
    """A vector as numbers, or as base64 of little-endian float32."""
    import numpy as np

    row = np.asarray(vector, dtype="<f4")
    return base64.b64encode(row.tobytes()).decode("ascii") if encoding == "base64" else row.tolist()


# --- inside


def _first_choice(reply: Json) -> Json:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Malformed("it has no choices")
    return dict(choices[0])


def _model(reply: Json) -> str | None:
    model = reply.get("model")
    return model if isinstance(model, str) and model else None


def _chunk(event: str) -> Json:
    try:
        chunk = json.loads(event)
    except ValueError as error:
        raise Malformed(f"an event of the stream is no JSON: {event[:120]!r}") from error
    if not isinstance(chunk, dict):
        raise Malformed("an event of the stream is no object")
    if chunk.get("error"):
        raise Malformed(f"the stream says: {str(chunk['error'])[:200]}")
    return chunk


def _vector(value: Any) -> NDArray[np.float32]:
    import numpy as np

    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
        return np.array([float(one) for one in value], dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise Malformed("an embedding is no list of numbers") from error


def _offsets(found: Json, tokens: list[Any], text: str, n: int) -> list[int]:
    """Where each token starts in the text: told, or by adding up the tokens where they spell it."""
    told = found.get("text_offset")
    if isinstance(told, list) and len(told) == n and all(isinstance(one, int) for one in told):
        return list(told)
    if len(tokens) == n and all(isinstance(one, str) for one in tokens) and "".join(tokens).startswith(text):
        starts = [0]
        for token in tokens[:-1]:
            starts.append(starts[-1] + len(token))
        return starts
    raise Malformed("it does not say where its tokens lie in the text")
