"""Conversations and tokenizers for tests of chat templates: tiny, of every style, with the control tokens they need."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizer_texts import TEXTS

from nacre.data.chat import shipped
from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train

Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def call(name: str, **arguments: Any) -> Message:
    calls = [{"type": "function", "function": {"name": name, "arguments": arguments}}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CHATS: dict[str, list[Message]] = {
    "one": [user("where is my parcel"), assistant("It is on its way.")],
    "chinese": [user("我的包裹在哪里？"), assistant("已经发货了。")],
    "system": [system("be brief"), user("hello"), assistant("hi")],
    "rounds": [system("be brief"), user("u"), assistant("a"), user("v"), assistant("b")],
    "many": [user("a"), assistant("b"), user("where? 哪里"), assistant("here 这里"), user("and?"), assistant("there")],
}
CALLING = [
    user("weather in 上海?"),
    call("weather", city="上海"),
    {"role": "tool", "content": '{"sky": "clear"}'},
    assistant("It is clear. 晴天。"),
    user("thanks"),
    assistant("welcome"),
]


@cache
def tokenizer(style: Any = "llama", algorithm: Any = "bpe", size: int = 600) -> Tokenizer:
    """A tokenizer trained on a few texts; the same object for the same arguments."""
    with TemporaryDirectory() as folder:
        return train(TEXTS * 3, TokenizerConfig(algorithm, size, style, min_frequency=1, sentinels=0), Path(folder))


def template(name: str, base: Tokenizer | None = None) -> ChatTemplate:
    """A shipped template over a tokenizer that was given its control tokens."""
    base = base or tokenizer()
    return ChatTemplate.named(name, shipped.extended(base, shipped.lacking(name, base)))


def trained_texts(chat: ChatTemplate, turned: Any) -> list[str]:
    """The text of every run of trained tokens, special tokens spelled."""
    runs: list[list[int]] = []
    before = False
    for index, trained in zip(turned.ids.tolist(), turned.trained.tolist(), strict=True):
        if trained and not before:
            runs.append([])
        if trained:
            runs[-1].append(index)
        before = trained
    return [chat.tokenizer.decode(run, skip_special=False) for run in runs]
