"""`data.chat`: conversations, preference pairs or judged answers of any format become one dataset artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nacre.data.read import ReadConfig
from nacre.data.split import SPLITS, SplitConfig
from nacre.errors import ConfigError, closest
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage


@dataclass(frozen=True)
class ChatConfig:
    """What the rows hold and what becomes of them.

    `kind`: `auto` takes that of the first row. `fill` replaces `{{name}}` in every text by its value. `system`: a
    system turn for conversations that have none. `bad_rows`: `drop` and count them, or `raise` at the first.
    `duplicates`: `remove` rows with the same texts; a split that is held out keeps its row.
    `splits`: `source` keeps the source's own (files named train, valid, test), `ratio` splits by the prompt's content
    as `split` says, so that a prompt is in one split only; `auto` takes the source's where it has several.
    `valid_share`: this share of the training rows becomes valid where the source has none. `limit`: the first so many
    rows of a split.
    """

    kind: Literal["auto", "conversations", "pairs", "judged"] = "auto"
    fill: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    read: ReadConfig = field(default_factory=ReadConfig)
    bad_rows: Literal["drop", "raise"] = "drop"
    duplicates: Literal["remove", "keep"] = "remove"
    splits: Literal["auto", "source", "ratio"] = "auto"
    split: SplitConfig = field(default_factory=SplitConfig)
    valid_share: float = 0.0
    limit: Mapping[str, int] = field(default_factory=dict)
    n_samples: int = 5

    def __post_init__(self) -> None:
        for name, most in self.limit.items():
            if name not in SPLITS or most < 1:
                remedy = closest(name, SPLITS) if name not in SPLITS else "give 1 row or more"
                raise ConfigError(f"limit: {{{name}: {most}}}", remedy=remedy)
        if not 0 <= self.valid_share < 1:
            raise ConfigError(f"valid_share {self.valid_share} is no share", remedy="0 <= valid_share < 1")
        if self.system is not None and not self.system.strip():
            raise ConfigError("system is empty", remedy="write what the system turn says, or leave it out")


def check(config: ChatConfig, inputs: Mapping[str, Path]) -> None:
    """Reads the first row of every file of the source; raises DataError saying what it looks like."""
    from nacre.lifecycle.prepare.chat_rows import look_at

    if "source" in inputs:
        look_at(config, inputs["source"])


@stage("data.chat", produces="dataset", inputs={"source": Input("dataset", "made_from")}, check=check)
def chat(config: ChatConfig, work: Work) -> dict[str, Scalar]:
    """Makes a dataset artifact of conversations or preferences in any common format, and reports every row it drops."""
    from nacre.lifecycle.prepare.chat_rows import run

    return run(config, work)
