"""Placeholders restored inside server-sent events (WHATWG HTML, section 9.2), also where one is split over several.

Every text that grows through a stream (a choice's content, reasoning, a tool's arguments) has a restorer of its own. An
event that nothing is changed in leaves byte for byte as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import orjson

from nacre.data.masking import Masker, Restorer
from nacre.lifecycle.serve.contract import Json

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_TEXTS = frozenset(("content", "reasoning_content", "reasoning", "refusal", "arguments", "text"))
_LARGEST = 1024 * 1024  # an event beyond this is passed on unread, and counted
Path = tuple[str | int, ...]
Leaf = tuple[Any, Any, Path]  # container, its key, where it stands in the choice


def json_escape(value: str) -> str:
    """A value as it stands inside a JSON string."""
    return orjson.dumps(value).decode()[1:-1]


class EventRestorer:
    """Takes the bytes of a stream as they come and gives those to send on. `end` gives what was still held back."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._restorers: dict[tuple[int, Path], Restorer] = {}
        self._buffer = b""
        self._envelope: Json = {}
        self._unread = False
        self.n_unread = 0

    def feed(self, chunk: bytes) -> bytes:
        """The events that are whole now, restored."""
        data = self._buffer + chunk
        out, start = [], 0
        for end in _END.finditer(data, max(0, len(self._buffer) - 3)):
            event = data[start : end.end()]
            out.append(event if self._unread else self._event(event))
            self._unread, start = False, end.end()
        self._buffer = data[start:]
        if len(self._buffer) > _LARGEST:
            self.n_unread += not self._unread
            self._unread = True
            out.append(self._buffer[:-3])
            self._buffer = self._buffer[-3:]
        return b"".join(out)

    def end(self) -> bytes:
        """The stream has ended: the rest, and texts that were held back, in an event of their own."""
        rest, self._buffer = self._buffer, b""
        if rest and not self._unread:
            rest = self._event(rest)
        return self._leftover() + rest

    def _event(self, event: bytes) -> bytes:
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if data == b"[DONE]":
            return self._leftover() + event
        try:
            value: Any = orjson.loads(data) if data else None
        except orjson.JSONDecodeError:
            return event
        if not isinstance(value, dict) or not isinstance(choices := value.get("choices"), list):
            return event
        self._envelope = {name: one for name, one in value.items() if name not in ("choices", "usage")}
        changed = [self._choice(choice) for choice in choices if isinstance(choice, dict)]
        return _with_data(event, value) if any(changed) else event

    def _choice(self, choice: Json) -> bool:
        """Restores the texts of one choice in place; whether any of them changed."""
        number, changed = choice.get("index", 0), False
        for container, key, path in list(_leaves(choice)):
            before = container[key]
            container[key] = self._restorer(number, path).feed(before)
            changed |= container[key] != before
        if choice.get("finish_reason") is not None:
            for path, tail in self._tails(number):
                _append(choice, path, tail)
                changed = True
        return changed

    def _restorer(self, number: int, path: Path) -> Restorer:
        found = self._restorers.get((number, path))
        if found is None:
            found = self._masker.restorer(json_escape if path[-1] == "arguments" else None)
            self._restorers[number, path] = found
        return found

    def _tails(self, number: int) -> Iterator[tuple[Path, str]]:
        for (choice, path), restorer in self._restorers.items():
            if choice == number and restorer.held:
                yield path, restorer.flush()

    def _leftover(self) -> bytes:
        """What texts that never finished still held, as one event."""
        choices: list[Json] = []
        for number in dict.fromkeys(number for number, _ in self._restorers):
            choice: Json = {"index": number, "finish_reason": None}
            for path, tail in self._tails(number):
                _append(choice, path, tail)
            if len(choice) > 2:
                choices.append(choice)
        return b"data: " + orjson.dumps(self._envelope | {"choices": choices}) + b"\n\n" if choices else b""


def _leaves(choice: Json) -> Iterator[Leaf]:
    """The texts of a choice: its `text`, and those anywhere in its `delta`."""
    if isinstance(choice.get("text"), str):
        yield choice, "text", ("text",)
    yield from _inside(choice.get("delta"), ("delta",))


def _inside(value: Any, path: Path) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, str):
                if name in _TEXTS:
                    yield value, name, (*path, name)
            else:
                yield from _inside(one, (*path, name))
    elif isinstance(value, list):
        for place, one in enumerate(value):
            index = one.get("index", place) if isinstance(one, dict) else place
            yield from _inside(one, (*path, index))


def _append(choice: Json, path: Path, text: str) -> None:
    """Adds text to the leaf at `path`, which is made where the event does not have it."""
    here: Any = choice
    for step, following in pairwise(path):
        if isinstance(step, int):
            here = _item(here, step)
        else:
            if not isinstance(here.get(step), dict | list):
                here[step] = [] if isinstance(following, int) else {}
            here = here[step]
    here[path[-1]] = (here.get(path[-1]) or "") + text


def _item(items: list[Any], index: int) -> Any:
    for place, one in enumerate(items):
        if isinstance(one, dict) and one.get("index", place) == index:
            return one
    items.append({"index": index})
    return items[-1]


def _with_data(event: bytes, value: Json) -> bytes:
    """The event with another `data`; its other fields stay."""
    others = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    return b"\n".join([*others, b"data: " + orjson.dumps(value)]) + b"\n\n"
