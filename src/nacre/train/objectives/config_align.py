"""The settings of objectives that teach and align, as plain values: free of torch, so that plans can check them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nacre.errors import ConfigError
from nacre.train.objectives.config import TokenLoss


@dataclass(frozen=True)
class SftConfig:
    """`context`: positions of a block. `packing`: `documents` puts several conversations in a block, isolated from each
    other, positions restarting with each; `none` keeps one per example.

    `trained`: every answer (`assistant`), the `last` one, or `all` tokens. `too_long`: of a conversation longer than
    the context the oldest `turns` go first, then the `end` of the last answer; or at once the `end`; or all of it
    (`drop`). An answer is never cut away whole where another could be kept: such conversations are dropped. Everything
    is counted. `target_context`, `start_id`: of the answers that an encoder-decoder writes, as in `Seq2SeqConfig`.
    """

    context: int = 512
    packing: Literal["documents", "none"] = "documents"
    trained: Literal["assistant", "last", "all"] = "assistant"
    too_long: Literal["turns", "end", "drop"] = "turns"
    target_context: int = 256
    start_id: int | None = None
    count_bytes: bool = False
    loss: TokenLoss = field(default_factory=TokenLoss)

    def __post_init__(self) -> None:
        for name in ("context", "target_context"):
            if getattr(self, name) < 3:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="give the tokens of an example, 512 say")
