"""Server-sent events passed on byte for byte (WHATWG HTML, section 9.2), with an eye on what they say of usage.

Nothing is rewritten. Bytes are held back only until the event that they belong to is whole, and only so that the one
event that the client did not ask for (what the answer used) can be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson

from nacre.lifecycle.serve.contract import Json, Usage

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.){1,200})"')
_LARGEST_USAGE = 64 * 1024  # an event beyond this is an answer, not an account: passed on before it is whole


def usage_in(body: Json) -> Usage:
    """What an upstream says that an answer used."""
    counted = body.get("usage")
    if not isinstance(counted, dict):
        return Usage()
    read, written = counted.get("prompt_tokens"), counted.get("completion_tokens", 0)
    if not _is_count(read) or not _is_count(written):
        return Usage()
    return Usage(read, written, "upstream")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass
class EventWatch:
    """Takes chunks of a stream as they come, gives the bytes to send on, and remembers how the stream stands.

    `strip` leaves out the event that holds usage and no choice. `done` is [DONE] seen, `finished` a finish_reason,
    `failed` an error event of the upstream's own.
    """

    strip: bool
    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    done: bool = False
    finished: bool = False
    failed: bool = False
    _held: bytes = b""
    _long: bool = False  # inside an event that is passed on before it is whole

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may go out now."""
        data = self._held + chunk if self._held else chunk
        out: list[bytes] = []
        start = 0
        for match in _END.finditer(data):
            event = data[start : match.end()]
            start = match.end()
            if self._long:
                self._long = False
                out.append(event)
            elif not self._is_account(event):
                out.append(event)
        rest = data[start:]
        if self._long or len(rest) > _LARGEST_USAGE:
            keep = rest[-3:] if rest[-1:] in (b"\r", b"\n") else b""  # its end may be cut in two
            out.append(rest[: len(rest) - len(keep)])
            self._held, self._long = keep, True
        else:
            self._held = rest
        return b"".join(out)

    def rest(self) -> bytes:
        """What is left when the upstream has ended: an event without its empty line, if anything."""
        held, self._held = self._held, b""
        return held if not held or self._long or not self._is_account(held) else b""

    @property
    def is_inside(self) -> bool:
        """Whether the beginning of an event is out already, and its end is not."""
        return self._long

    def _is_account(self, event: bytes) -> bool:
        """Notes what an event says; whether it is the one to leave out."""
        if event.startswith(b"data: [DONE]") or event.startswith(b"data:[DONE]"):
            self.done = True
            return False
        if not self.finished and _FINISHED.search(event):
            self.finished = True
        if self.model is None and (found := _MODEL.search(event)):
            self.model = found[1].decode("utf-8", "replace")
        if b'"usage"' not in event and b'"error"' not in event:
            return False
        return self._look(event)

    def _look(self, event: bytes) -> bool:
        lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        try:
            value = orjson.loads(b"\n".join(lines))
        except orjson.JSONDecodeError:
            return False
        if not isinstance(value, dict):
            return False
        if value.get("error"):
            self.failed = True
        usage = usage_in(value)
        if usage.counted_by == "upstream":
            self.usage = usage
        return self.strip and usage.counted_by == "upstream" and value.get("choices") == []
