"""What the loopback server understands and says: OpenAI's wire format, seen from the serving side."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from nacre.engine.base import BaseEngine
from nacre.engine.openai_wire import Malformed, encode_vector, messages_of
from nacre.engine.protocol import Embedded, Generation, Prompt, Sampling, Stopped, Usage

Json = dict[str, Any]
Kind = Literal["chat", "complete", "embed"]
PATHS: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "complete",
    "/v1/embeddings": "embed",
}
_FINISH: dict[Stopped, str] = {"length": "length", "filtered": "content_filter"}


class Refused(Exception):
    """A request that gets an error: its HTTP status, and OpenAI's word for what is wrong."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Asked:
    """A request as read. `echo` asks for the log-probabilities of a prompt instead of an answer."""

    kind: Kind
    model: str
    prompts: tuple[Prompt, ...] = ()
    texts: tuple[str, ...] = ()
    how: Sampling = field(default_factory=Sampling)
    stream: bool = False
    stream_usage: bool = False
    echo: bool = False
    encoding: str = "float"


def read_request(path: str, body: bytes, model: str) -> Asked:
    """The request, checked; raises Refused for what cannot be done, and never leaves a setting out in silence."""
    kind = PATHS.get(path.partition("?")[0])
    if kind is None:
        raise Refused(404, f"there is no {path}", "not_found")
    try:
        plain = json.loads(body)
    except ValueError as error:
        raise Refused(400, f"the body is no JSON: {error}") from error
    if not isinstance(plain, dict):
        raise Refused(400, "the body is no JSON object")
    if plain.get("model") != model:
        raise Refused(404, f"there is no model {plain.get('model')!r}; this is {model!r}", "model_not_found")
    try:
        return read_plain(kind, plain)
    except Malformed as error:
        raise Refused(400, str(error)) from error


def read_plain(kind: Kind, plain: Json) -> Asked:
    """A parsed request, checked; raises Malformed."""
    return _embedding(plain) if kind == "embed" else _writing(kind, plain)


def _embedding(plain: Json) -> Asked:
    texts = plain.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise Malformed("input must be a text or a list of texts")
    encoding = plain.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise Malformed("encoding_format is float or base64")
    if plain.get("dimensions") is not None:
        raise Malformed("dimensions cannot be chosen")
    return Asked("embed", plain["model"], texts=tuple(texts), encoding=encoding)


def _writing(kind: Kind, plain: Json) -> Asked:
    if plain.get("n") not in (None, 1) or plain.get("best_of") not in (None, 1):
        raise Malformed("n and best_of can only be 1")
    for name in ("tools", "response_format", "logit_bias", "suffix", "presence_penalty", "frequency_penalty"):
        if plain.get(name):
            raise Malformed(f"{name} is not supported")
    stream, echo = bool(plain.get("stream")), bool(plain.get("echo"))
    prompts: tuple[Prompt, ...]
    if kind == "chat":
        if echo or plain.get("logprobs"):
            raise Malformed("log-probabilities are given by completions with echo only")
        prompts = (messages_of(plain.get("messages")),)
    else:
        given = plain.get("prompt")
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
            raise Malformed("prompt must be a text or a list of texts")
        prompts = tuple(given)
    if echo and (plain.get("max_tokens") != 0 or stream or plain.get("logprobs") is None):
        raise Malformed("echo needs logprobs, max_tokens 0, and no stream")
    if not echo and kind == "complete" and plain.get("logprobs"):
        raise Malformed("logprobs need echo")
    if stream and len(prompts) > 1:
        raise Malformed("one prompt at a time can be streamed")
    usage = (plain.get("stream_options") or {}).get("include_usage")
    how = Sampling() if echo else _sampling(plain, kind)
    return Asked(kind, plain["model"], prompts, (), how, stream, bool(usage), echo)


def _sampling(plain: Json, kind: Kind) -> Sampling:
    limit = plain.get("max_completion_tokens") or plain.get("max_tokens")
    temperature, top_p, seed = plain.get("temperature"), plain.get("top_p"), plain.get("seed")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise Malformed("max_tokens must be 1 or more")
    if not isinstance(temperature, int | float | None) or (temperature is not None and not 0 <= temperature <= 2):
        raise Malformed("temperature must be between 0 and 2")
    if not isinstance(top_p, int | float | None) or (top_p is not None and not 0 < top_p <= 1):
        raise Malformed("top_p must be above 0 and at most 1")
    if not isinstance(seed, int | None):
        raise Malformed("seed must be a whole number")
    stop = plain.get("stop") or ()
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(one, str) and one for one in stop):
        raise Malformed("stop must be a text or a list of texts")
    default = 16 if kind == "complete" else 128
    # OpenAI's default temperature is 1.
    return Sampling(limit or default, 1.0 if temperature is None else float(temperature), top_p, stop, seed)


# --- replies


def answer_json(asked: Asked, answers: list[Generation], name: str, when: int) -> Json:
    """A chat's or a completion's reply."""
    choices: list[Json] = []
    total = Usage()
    for index, one in enumerate(answers):
        said: Json = {"text": one.text} if asked.kind == "complete" else {"message": _message(one)}
        choices.append({"index": index, **said, "logprobs": None, "finish_reason": _FINISH.get(one.stopped, "stop")})
        total = total + one.usage
    kind = "text_completion" if asked.kind == "complete" else "chat.completion"
    head = {"id": name, "object": kind, "created": when, "model": asked.model}
    return head | {"choices": choices, "usage": usage_json(total)}


def chunk_json(asked: Asked, name: str, when: int, text: str | None, last: Generation | None = None) -> Json:
    """One event of a stream: a piece; with `last` its end; with `last` and no text what it used."""
    kind = "text_completion" if asked.kind == "complete" else "chat.completion.chunk"
    head: Json = {"id": name, "object": kind, "created": when, "model": asked.model}
    if text is None and last is not None:
        return head | {"choices": [], "usage": usage_json(last.usage)}
    said: Json = {"text": text or ""} if asked.kind == "complete" else {"delta": {"content": text} if text else {}}
    finish = None if last is None else _FINISH.get(last.stopped, "stop")
    return head | {"choices": [{"index": 0, **said, "logprobs": None, "finish_reason": finish}]}


def embedding_json(asked: Asked, found: Embedded) -> Json:
    """The reply for vectors; `truncated`, an addition to the format, lists the texts that were cut."""
    data = [
        {"object": "embedding", "index": index, "embedding": encode_vector(vector, asked.encoding)}
        for index, vector in enumerate(found.vectors)
    ]
    used = {"prompt_tokens": found.usage.prompt_tokens, "total_tokens": found.usage.prompt_tokens}
    return {"object": "list", "data": data, "model": asked.model, "usage": used, "truncated": list(found.cut)}


def score_json(asked: Asked, engine: BaseEngine) -> Json:
    """An echoed prompt with the log-probability of each of its tokens, null where nothing is before it."""
    choices: list[Json] = []
    n_tokens = 0
    for index, prompt in enumerate(asked.prompts):
        found = engine.token_scores(str(prompt))
        n_tokens += len(found)
        logprobs = {
            "tokens": [one.text for one in found],
            "token_logprobs": [one.log_probability for one in found],
            "text_offset": [one.start for one in found],
            "top_logprobs": None,
        }
        choices.append({"index": index, "text": prompt, "logprobs": logprobs, "finish_reason": "length"})
    used = {"prompt_tokens": n_tokens, "completion_tokens": 0, "total_tokens": n_tokens}
    return {"id": "echo", "object": "text_completion", "created": 0, "model": asked.model, "choices": choices} | {
        "usage": used
    }


def usage_json(usage: Usage) -> Json:
    """Token counts; null where nobody counted."""
    read, written = usage.prompt_tokens, usage.completion_tokens
    total = None if read is None or written is None else read + written
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": total}


def _message(one: Generation) -> Json:
    if one.stopped == "refused":
        return {"role": "assistant", "content": None, "refusal": one.text}
    return {"role": "assistant", "content": one.text, "refusal": None}
