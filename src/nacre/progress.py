"""Progress as an argument: long work reports to a `Progress`; sinks decide what becomes of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from nacre.lazy import require

Scalar = float | int | str | bool | None


class Progress(Protocol):
    """What long work talks to. `update` may be called at every step: a sink thins out by itself."""

    def update(self, step: int, total: int | None = None, **metrics: Scalar) -> None:
        """`step` of `total` is done; `metrics` are measured values at that step."""

    def note(self, event: str, **details: Any) -> None:
        """Something happened once that a person should know (a drop, a fallback, a stop), with its counts."""


class Silent:
    """Discards everything."""

    def update(self, step: int, total: int | None = None, **metrics: Scalar) -> None:
        pass

    def note(self, event: str, **details: Any) -> None:
        pass


class Fanout:
    """Passes everything to several sinks."""

    def __init__(self, sinks: Sequence[Progress]) -> None:
        self.sinks = tuple(sinks)

    def update(self, step: int, total: int | None = None, **metrics: Scalar) -> None:
        for sink in self.sinks:
            sink.update(step, total, **metrics)

    def note(self, event: str, **details: Any) -> None:
        for sink in self.sinks:
            sink.note(event, **details)


class JsonLines:
    """Appends every call to a file, one JSON object a line, flushed at once so that it can be followed live."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def update(self, step: int, total: int | None = None, **metrics: Scalar) -> None:
        self._write({"step": step, "total": total, **metrics})

    def note(self, event: str, **details: Any) -> None:
        self._write({"event": event, **details})

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps({"time": round(time.time(), 3), **row}, ensure_ascii=False, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Writes every numeric metric as a scalar for TensorBoard (extra `tensorboard`)."""

    def __init__(self, folder: Path) -> None:
        require("tensorboard")
        self._writer = require("torch.utils.tensorboard").SummaryWriter(log_dir=str(folder))

    def update(self, step: int, total: int | None = None, **metrics: Scalar) -> None:
        for name, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, step)

    def note(self, event: str, **details: Any) -> None:
        self._writer.add_text(event, json.dumps(details, ensure_ascii=False, default=str))

    def close(self) -> None:
        self._writer.close()


class Terminal:
    """One line that is rewritten in place on a terminal, a line every ten seconds elsewhere. Writes to stderr."""

    def __init__(self, label: str = "", stream: IO[str] | None = None) -> None:
        self.label = label
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._every_s = 0.2 if self._live else 10.0
        self._began = self._last = time.monotonic()
        self._first_step: int | None = None
        self._open_line = False

    def update(self, step: int, total: int | None = None, **metrics: Scalar) -> None:
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._began = step, now
        finished = total is not None and step >= total
        if now - self._last < self._every_s and not finished:
            return
        self._last = now
        words = [self.label, f"{step:,}/{total:,}" if total else f"{step:,}", self._eta(step, total, now)]
        words += [f"{name} {_short(value)}" for name, value in metrics.items()]
        self._print("  ".join(word for word in words if word), keep=finished or not self._live)

    def note(self, event: str, **details: Any) -> None:
        words = [self.label, event] + [f"{name}={_short(value)}" for name, value in details.items()]
        self._print("  ".join(word for word in words if word), keep=True)

    def _eta(self, step: int, total: int | None, now: float) -> str:
        done = step - (self._first_step or 0)
        if total is None or done <= 0 or step >= total:
            return ""
        left_s = (now - self._began) / done * (total - step)
        return f"eta {int(left_s // 60)}:{int(left_s % 60):02d}"

    def _print(self, line: str, *, keep: bool) -> None:
        start = "\r\x1b[K" if self._open_line else ""
        self._stream.write(start + line + ("\n" if keep else ""))
        self._stream.flush()
        self._open_line = not keep


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
