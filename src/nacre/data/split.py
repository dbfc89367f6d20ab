"""Splits by content: where a row goes depends on nothing but its own content, so adding data moves no row.

The hash is taken before any shuffling and needs no state, so every process computes the same split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nacre.data.normal import normal
from nacre.data.rows import Row, content
from nacre.errors import ConfigError, DataError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class SplitConfig:
    """`ratios` by split, summing to 1. `salt` draws another split of the same data. `group`: a field whose equal values
    stay together (an author, a page); without it equal content (normalised) stays together."""

    ratios: Mapping[str, float] = field(default_factory=lambda: {"train": 0.9, "valid": 0.05, "test": 0.05})
    salt: str = ""
    group: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.ratios) - set(SPLITS))
        if unknown:
            raise ConfigError(f"unknown split {unknown[0]!r}", remedy=f"use {', '.join(SPLITS)}")
        if any(not 0 <= ratio <= 1 for ratio in self.ratios.values()) or abs(sum(self.ratios.values()) - 1) > 1e-9:
            raise ConfigError(
                f"split ratios {dict(self.ratios)} do not sum to 1",
                remedy="such as {train: 0.9, valid: 0.05, test: 0.05}",
            )


def split_of(key: str, config: SplitConfig) -> str:
    """The split of a key. Test is cut off first, then valid: changing the share of valid leaves test as it is."""
    digest = hashlib.blake2b(f"{config.salt}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    point, edge = int.from_bytes(digest, "big") / 2**64, 0.0
    for name in reversed(SPLITS):
        edge += config.ratios.get(name, 0.0)
        if point < edge:
            return name
    return next(name for name in SPLITS if config.ratios.get(name))


def split_key(row: Row, config: SplitConfig) -> str:
    """What decides a row's split: the value of its group field, else its normalised content."""
    if config.group is None:
        return normal(content(row))
    if config.group not in row:
        raise DataError(
            f"a row has no field {config.group!r} to group by", remedy="name a field that every row has (split: group)"
        )
    return f"{config.group}={row[config.group]}"


def split(rows: Iterable[Row], config: SplitConfig, clusters: Iterable[str] | None = None) -> Iterator[tuple[str, Row]]:
    """(split, row) in the order of the rows.

    `clusters` gives each row its cluster's key (`Clusters.keys`): near-duplicates that are all kept then stay on one
    side. A row's key changes only when a new near-duplicate of it arrives.
    """
    if clusters is None:
        for row in rows:
            yield split_of(split_key(row, config), config), row
        return
    if config.group is not None:
        raise ConfigError(
            "a split by group and by clusters at once", remedy="group by a field, or remove near-duplicates first"
        )
    for row, key in zip(rows, clusters, strict=True):
        yield split_of(key, config), row


@dataclass
class Stratification:
    """How labels spread over splits. Counting only: a split by hash is never bent to look balanced."""

    labels: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, split: str, label: str) -> None:
        self.labels.setdefault(split, Counter())[label] += 1

    def unseen_in_training(self) -> list[str]:
        """Labels that valid or test has and train has not."""
        train = self.labels.get("train", Counter())
        return sorted({label for counts in self.labels.values() for label in counts if not train[label]})

    def largest_deviation(self) -> float:
        """The largest difference between a label's share in one split and its share in all of them (0 to 1)."""
        total = sum(self.labels.values(), Counter[str]())
        shares = [
            abs(counts[label] / counts.total() - total[label] / total.total())
            for counts in self.labels.values()
            for label in total
            if counts.total()
        ]
        return max(shares, default=0.0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "labels": {split: dict(sorted(counts.items())) for split, counts in sorted(self.labels.items())},
            "unseen_in_training": self.unseen_in_training(),
            "largest_deviation": round(self.largest_deviation(), 6),
        }
