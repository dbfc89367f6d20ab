"""The cleaning step `mask`: rows without personal data and secrets, for good (`<ID>`), counted by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nacre.data.masking.find import find
from nacre.data.masking.kinds import KINDS, Found, Tagger, chosen
from nacre.data.masking.masker import replaced
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row

STEP = "mask"
_NO_TEXT = frozenset(("label", "labels", "tags"))  # classes: they are compared, not read


@dataclass(frozen=True)
class MaskConfig:
    """`kinds` to mask, all of `KINDS` when empty. `fields` to look into, every field but labels and tags when empty."""

    kinds: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        chosen(self.kinds)


def mask_rows(
    rows: Iterable[Row], config: MaskConfig, report: DropReport, *, model: Tagger | None = None
) -> Iterator[Row]:
    """Rows with every string in them scrubbed, at any depth. Samples in the report show the scrubbed text only."""
    tally = report.step(STEP)
    kinds = chosen(config.kinds or None)
    for row in rows:
        size = tally.enter(row)
        masked = {
            name: _scrubbed(value, kinds, tally, model) if _is_read(name, config) else value
            for name, value in row.items()
        }
        if isinstance(row.get("tokens"), list) and _is_read("tokens", config):
            tally.note("tokens are looked into one by one: a number cut into several is not found")
        if masked == row:
            tally.leave(size=size)
            yield row
        else:
            tally.leave(masked)
            yield masked


def _is_read(name: str, config: MaskConfig) -> bool:
    return name in config.fields if config.fields else name not in _NO_TEXT


def _scrubbed(value: Any, kinds: frozenset[str], tally: Step, model: Tagger | None) -> Any:
    if isinstance(value, str):
        return _text(value, find(value, kinds, model=model), tally)
    if isinstance(value, list):
        return [_scrubbed(one, kinds, tally, model) for one in value]
    if isinstance(value, dict):
        return {name: _scrubbed(one, kinds, tally, model) for name, one in value.items()}
    return value


def _text(text: str, found: list[Found], tally: Step) -> str:
    if not found:
        return text
    masked = replaced(text, found)
    for kind, times in Counter(one.kind for one in found).items():
        place = masked.find(f"<{KINDS[kind].label}>")
        tally.change(f"masked: {KINDS[kind].words}", masked[max(0, place - 40) : place + 60], times=times)
    return masked
