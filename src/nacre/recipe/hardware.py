"""Named machines: how much they compute in a second of training, and what an hour of them costs.

The table is `hardware.yaml` beside this file; a file of the user's adds machines and replaces blocks of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.errors import ConfigError, UsageError, closest
from nacre.recipe import yaml12
from nacre.recipe.config import build

TABLE = Path(__file__).with_name("hardware.yaml")


@dataclass(frozen=True)
class Hardware:
    """A machine. `peak_tflops`: 1e12 operations per second by precision; `utilisation`: the share that is reached.

    `price_per_hour` None is unknown, never free. `dated`: when the figures were put down.
    """

    title: str
    peak_tflops: Mapping[str, float]
    utilisation: float
    price_per_hour: float | None = None
    currency: str = "USD"
    dated: str = ""
    note: str = ""
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not self.peak_tflops or min(self.peak_tflops.values()) <= 0:
            raise ConfigError(
                f"peak_tflops is {dict(self.peak_tflops)}", remedy="give a precision and a number above 0"
            )
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"utilisation is {self.utilisation}", remedy="give a share above 0 and at most 1")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < float("inf"):
            raise ConfigError(
                f"price_per_hour is {self.price_per_hour}", remedy="give 0 or more, or null where it is unknown"
            )

    @property
    def precision(self) -> str:
        """What one would train in: bf16 where the machine multiplies in it, else its first precision."""
        return "bf16" if "bf16" in self.peak_tflops else next(iter(self.peak_tflops))

    def flops_per_second(self, precision: str | None = None) -> float:
        """Operations of training per second, utilisation taken into account."""
        wanted = precision or self.precision
        if wanted not in self.peak_tflops:
            raise ConfigError(
                f"{self.name or self.title} has no peak for {wanted!r}", remedy=closest(wanted, self.peak_tflops)
            )
        return self.peak_tflops[wanted] * 1e12 * self.utilisation

    def seconds(self, flops: float, precision: str | None = None) -> float:
        """How long `flops` operations of training take."""
        return flops / self.flops_per_second(precision)

    def money(self, seconds: float) -> float | None:
        """What that time costs; None where the price is unknown."""
        return None if self.price_per_hour is None else seconds / 3600 * self.price_per_hour


def machines(own: Path | None = None) -> dict[str, Hardware]:
    """Every named machine; `own` is a YAML file of the same form that adds to the table and replaces its blocks."""
    found = _read(TABLE)
    return found | (_read(own) if own is not None else {})


def choose(names: list[str], known: Mapping[str, Hardware]) -> list[Hardware]:
    """The machines of these names; UsageError names the closest for one that there is not."""
    for name in names:
        if name not in known:
            raise UsageError(f"no hardware is called {name!r}", remedy=closest(name, known))
    return [known[name] for name in names]


def _read(path: Path) -> dict[str, Hardware]:
    plain: Any = yaml12.load(path)
    if not isinstance(plain, dict) or not all(isinstance(block, dict) for block in plain.values()):
        raise ConfigError(f"{path} is no table of machines", remedy=f"write it as {TABLE} is written")
    return {name: build(Hardware, {**block, "name": name}, f"{path.name}: {name}") for name, block in plain.items()}
